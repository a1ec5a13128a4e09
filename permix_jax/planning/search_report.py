"""What a search found, as text."""

from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict

from permix_jax.core.fields import flat_fields
from permix_jax.core.tpus import GIB
from permix_jax.planning.search import FIELDS, Candidate, Fields, Found, setting
from permix_jax.report.tables import text_table

_ROWS = 10  # of settings that were traced and not compiled
_NOTES = """\
Predicted and at least: seconds of a step, as in a plan without --search. What only a bound is known
of was traced, and its memory is estimated. Limited by: the program that takes most of the step, its
share, and the part of the chip that bounds it. Phases beside the steps are not searched: plan the
best setting without --search to see whether they fit. * is the config as it stands."""


def search_report(found: Found, config: ConfigDict) -> str:
    """The ranking, the best setting, and the flags that make it of the config."""
    best, changed = found.best(), changed_by(found.best(), config)
    verdict = [
        f"{found.topology}: {len(found.compiled)} of {found.tried} settings were compiled; "
        f"the best takes {best.seconds():.3g} s a step",
        f"flags: {setting(changed)}" if changed else "the config as it stands is the best",
    ]
    own = next((x for x in found.compiled if not x.moved), None)
    if own and own.plan.fits() and changed:
        gain = own.seconds() / best.seconds()
        verdict[0] += f", {gain:.2f} times as fast as the config ({own.seconds():.3g} s)"
    return "\n".join([ranking(found), "", *verdict, "", _NOTES])


def changed_by(x: Candidate, config: ConfigDict) -> Fields:
    """The fields of a setting that the config has otherwise."""
    own = flat_fields(config.to_dict())
    return {field: value for field, value in x.fields.items() if own[field] != value}


def ranking(found: Found) -> str:
    """A table: compiled settings, the fastest first, those that do not fit last; then the rest, by
    their bounds."""
    names = [field.partition(".")[2] for field in FIELDS]
    columns = ["", "predicted, s", "at least, s", "peak, GiB", "fits", "limited by", *names]
    shown = [*found.compiled, *found.traced[:_ROWS]]
    return text_table(columns, [_row(i, x) for i, x in enumerate(shown, start=1)])


def _row(number: int, x: Candidate) -> list[str]:
    predicted = x.plan.predicted()
    name, missing = x.missing()
    fits = "yes" if x.compiled else "perhaps"
    if not x.plan.fits():
        fits = f"no: {name}, by {missing / GIB:.2f}"
    return [
        f"{number}{'' if x.moved else '*'}",
        "-" if predicted is None else f"{predicted:.3g}",
        f"{x.plan.seconds():.3g}",
        f"{x.peak() / GIB:.2f}",
        fits,
        limit(x),
        *(str(x.fields[field]) for field in FIELDS),
    ]


def limit(x: Candidate) -> str:
    """Such as "rollout 55%, memory"."""
    programs, chip = x.plan.programs, x.plan.chip
    bounds = {name: use.seconds(chip) for name, use in programs.items()}
    seconds = {name: max(bounds[name].values()) for name in programs}
    if x.plan.predicted() is not None:
        seconds = {name: use.predicted() for name, use in programs.items()}
    name = max(seconds, key=seconds.get)
    part = max(bounds[name], key=bounds[name].get)
    return f"{name} {seconds[name] / sum(seconds.values()):.0%}, {part}"


def slices_table(found: Sequence[Found], refused: Mapping[str, str]) -> str:
    """The best setting of each slice, the fewest chip-seconds first, and slices without one."""
    best = {x.topology: x.best() for x in found}
    cost = {name: x.seconds() * x.plan.chips for name, x in best.items()}
    rows = [
        [
            name,
            str(best[name].plan.chips),
            f"{best[name].seconds():.3g}",
            f"{cost[name]:.3g}",
            f"{best[name].peak() / GIB:.2f}",
            limit(best[name]),
        ]
        for name in sorted(best, key=cost.get)
    ]
    columns = ["slice", "chips", "s a step", "chip-seconds a step", "peak, GiB", "limited by"]
    return "\n".join([text_table(columns, rows), *refused.values()])
