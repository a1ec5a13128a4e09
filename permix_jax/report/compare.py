"""Finished runs side by side: methods over seeds, PerMix-RLVR against plain RLVR, two runs.

Also which personas lose fidelity: its change under each, by the base's accuracy under it. Rewards
tilt a policy towards the styles in which it is right (docs/method.md). So the personas with the
lowest accuracy of the base should lose most fidelity.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from permix_jax.core.fields import flat_fields
from permix_jax.core.randomness import generator
from permix_jax.report.answers import read_answers
from permix_jax.report.content import text
from permix_jax.report.more_figures import MORE
from permix_jax.report.run_figures import STABILITY, Policy, Run, formula_of, measures_of
from permix_jax.report.tables import text_table
from permix_jax.stats.paired import compare_policies, over_seeds
from permix_jax.stats.robustness import KINDS
from permix_jax.stats.stability import pss_formula
from permix_jax.stats.statistics import percentile_interval, t_interval

# PerMix-RLVR against RLVR, arXiv 2604.08986, abstract: PSS on MATH500, fidelity on PersonaGym.
PAPER = {"PSS": 0.212, "role-play": 0.114}
_RESAMPLES = 1000


def compare_runs(runs: Sequence[Run]) -> dict:
    """Methods over seeds, as plain dicts.

    `methods`: those of `by_method` with `seeds` and, in `measures`, for each of `measures_of` all
    policies, `mean`, `half_width` (None for one seed) and `per_seed`. `more` and `kinds` have the
    same of those measures of `more_measures` that one of the policies has.

    `pairs`: for each "permix..." and "rlvr..." of the same rest of the name that share seeds, the
    `difference` and the `relative` difference (permix / rlvr - 1) of each measure, paired by seed;
    of `more` and `kinds` the difference.

    Raises:
      ValueError: two runs of one method with the same seed.
    """
    methods, pairs = {}, []
    policies = by_method(runs)
    everyone = [of for by_seed in policies.values() for of in by_seed.values()]
    names, others = measures_of(everyone), {"more": {}, "kinds": {}}
    for part, order in (("more", MORE), ("kinds", KINDS)):
        others[part] = [n for n in order if any(n in getattr(of, part) for of in everyone)]
    for name, ours in policies.items():
        seeds = sorted(ours)
        measures = _each_measure(names, [ours[seed] for seed in seeds])
        methods[name] = {"seeds": seeds, "measures": measures}
        for part, shown in others.items():
            methods[name][part] = _each_measure(shown, [ours[seed] for seed in seeds], part=part)
        other = name.replace("permix", "rlvr", 1)
        theirs = policies.get(other, {})
        seeds = [seed for seed in ours if seed in theirs]
        if name.startswith("permix") and seeds:
            sides = [[side[seed] for seed in seeds] for side in (ours, theirs)]
            pair = {"ours": name, "theirs": other, "seeds": seeds}
            pair["difference"] = _each_measure(names, *sides, compare=np.subtract)
            pair["relative"] = _each_measure(names, *sides, compare=lambda x, y: x / y - 1)
            for part, shown in others.items():
                pair[part] = _each_measure(shown, *sides, compare=np.subtract, part=part)
            pairs.append(pair)
    notes = [note for name in policies if (note := _mixed(name, runs))] + _formulas(runs)
    return {"methods": methods, "pairs": pairs, "paper": PAPER, "notes": notes}


def told_apart(runs: Sequence[Run]) -> list[Run]:
    """The runs, with names by which those of one method and seed, but other configs, differ.

    The first config of a method keeps the name. Another one gets the fields that differ from it:
    "permix grpo.loss=gspo". Equal configs stay alike, and `by_method` refuses them.
    """
    named, configs = [], [flat_fields(run.config) | {"seed": None} for run in runs]
    for own, run in zip(configs, runs, strict=True):
        alike = [i for i, other in enumerate(runs) if other.method() == run.method()]
        if len({runs[i].seed for i in alike}) == len(alike):
            named.append(run)
            continue
        first = configs[alike[0]]
        fields = [field for field in sorted({*own, *first}) if own.get(field) != first.get(field)]
        apart = ", ".join(f"{field}={own.get(field)}" for field in fields)
        named.append(replace(run, name=f"{run.name} {apart}".rstrip()))
    return named


def by_method(runs: Sequence[Run]) -> dict[str, dict[int, Policy]]:
    """Method -> seed -> policy. Runs of another preset are methods of their own, and the base
    policy (step 0) comes first. Runs of one seed have evaluated their base alike; the first counts.

    Raises:
      ValueError: two runs of one method with the same seed.
    """
    methods: dict[str, dict[int, Policy]] = {}
    for preset in dict.fromkeys(run.preset for run in runs):
        of_preset = [run for run in runs if run.preset == preset]
        for run in of_preset:
            if run.base:
                methods.setdefault(run.method("base"), {}).setdefault(run.seed, run.base)
        for run in of_preset:
            by_seed = methods.setdefault(run.method(), {})
            if run.seed in by_seed:
                other = by_seed[run.seed].evaluation.folder.parents[1]
                raise ValueError(
                    f"{other} and {run.workdir}: both are {run.name} with seed {run.seed}; leave "
                    "one out"
                )
            by_seed[run.seed] = run.trained
    return methods


def comparison_table(comparison: Mapping) -> str:
    """The result of `compare_runs` as text: a row for each method, three for each pair."""
    rows, names = [], measures_shown(comparison)
    for name, entry in comparison["methods"].items():
        cells = [_cell(entry["measures"][measure]) for measure in names]
        rows.append([name, str(len(entry["seeds"])), *cells])
    for pair in comparison["pairs"]:
        seeds = str(len(pair["seeds"]))
        difference = [_cell(pair["difference"][measure], "+.3f") for measure in names]
        relative = [_cell(pair["relative"][measure], "+.1f", 100, " %") for measure in names]
        rows.append([f"{pair['ours']} - {pair['theirs'].partition(':')[0]}", seeds, *difference])
        rows.append(["  relative", seeds, *relative])
    if comparison["pairs"]:
        paper = comparison["paper"]
        published = [f"{100 * paper[m]:+.1f} %" if m in paper else "" for m in names]
        rows.append(["  the paper", "", *published])
    header = ("method", "seeds", *names)
    table = [text_table(header, rows), text("comparison_legend"), *comparison["notes"]]
    return "\n\n".join(["\n".join(table), *_other_tables(comparison)])


def _other_tables(comparison: Mapping) -> list[str]:
    """More than PSS, and the accuracy by kind of persona where there are several kinds."""
    tables = []
    for part, least in (("more", 1), ("kinds", 2)):
        names = list(next(iter(comparison["methods"].values()))[part])
        if len(names) < least:
            continue
        rows = [
            [name, str(len(entry["seeds"])), *(_cell(entry[part][n]) for n in names)]
            for name, entry in comparison["methods"].items()
        ]
        for pair in comparison["pairs"]:
            cells = [_cell(pair[part][n], "+.3f") for n in names]
            label = f"{pair['ours']} - {pair['theirs'].partition(':')[0]}"
            rows.append([label, str(len(pair["seeds"])), *cells])
        title, _, legend = text(f"compared_{part}", names=names).partition("\n")
        tables.append("\n".join([title, text_table(("method", "seeds", *names), rows), legend]))
    return tables


def measures_shown(comparison: Mapping) -> list[str]:
    """The measures that the result of `compare_runs` has of each of its methods."""
    return list(next(iter(comparison["methods"].values()))["measures"])


def compare_two(ours: Run, theirs: Run) -> dict[str, dict]:
    """Two trained policies on the same items: `difference` and `difference_ci95` by measure.

    The intervals are over the items, paired, and hold for these two policies, not for other seeds.
    The KL is left out, and fidelity where the two were not asked the same.

    Raises ValueError where the two were not asked the same.
    """
    rows = [run.evaluations[-1].rows() for run in (ours, theirs)]
    apart = compare_answers(*rows, ours.config.get("eval", {}))
    if apart is None:
        raise ValueError(
            f"{ours.workdir} and {theirs.workdir} were not asked the same problems under the same "
            "personas; compare them over seeds with launch/compare.py"
        )
    result = {measure: apart[key] for measure, key in STABILITY.items()}
    policies = ours.trained, theirs.trained
    for measure in [name for name in measures_of(policies) if name not in (*STABILITY, "KL")]:
        a, b = (policy.measure(measure) for policy in policies)
        resampled = a.resampled - b.resampled
        if a.items == b.items and np.isfinite(resampled).any():
            interval = percentile_interval(resampled)
            result[measure] = {"difference": a.value - b.value, "difference_ci95": interval}
    return result


def compare_answers(
    ours: Sequence[Mapping], theirs: Sequence[Mapping], settings: Mapping
) -> dict | None:
    """`compare_policies` of the problems; None if the two were not asked the same.

    Args:
      ours, theirs: rows of completions.jsonl.
      settings: with the fields `pss` and `resamples` of the config's `eval`, where it has them.
    """
    a, b = (read_answers(rows).get("problems") for rows in (ours, theirs))
    if a is None or b is None or a[:2] != b[:2] or a.correct.shape != b.correct.shape:
        return None
    if a.personas[0] is not None:
        return None
    rng, resamples = generator(0, "report"), settings.get("resamples", _RESAMPLES)
    pss = pss_formula(formula_of({"eval": settings}))
    return compare_policies(a.graded(), b.graded(), rng, resamples, pss)


def competence_table(runs: Sequence[Run]) -> str:
    """Fidelity by the base's accuracy: a row for each method and kind of prompt, with means over
    seeds and their 95 % t intervals.

    Raises ValueError where a run has no evaluation of its base, or no fidelity by persona.
    """
    changes = defaultdict(list)
    for run in runs:
        before, after = run.evaluations[0], run.evaluations[-1]
        if before.step or not before.fidelity or not after.fidelity:
            raise ValueError(
                f"{run.workdir}: no fidelity by persona of base and trained policy; leave out "
                "--competence, which is for runs of the embedded world"
            )
        accuracy = _by_persona(before.stability["per_persona"], "accuracy")
        for task in before.fidelity["by_task"]:
            base, trained = (
                _by_persona(e.fidelity_of(task)["per_persona"], "fidelity") for e in (before, after)
            )
            of_method = changes[run.name, task.replace("_", "-")]
            of_method.append(by_competence(accuracy, trained - base))
    rows = []
    for (name, task), each in changes.items():
        means = [t_interval(values) for values in zip(*each, strict=True)]
        cells = [f"{m:+.3f}" + ("" if np.isnan(half) else f" ±{half:.3f}") for m, half in means]
        rows.append([name, task, str(len(each)), *cells])
    header = ["fidelity of", "on", "seeds", "correlation", "weaker half", "stronger half"]
    return "\n".join([text_table(header, rows), text("competence_legend")])


def by_competence(accuracy: np.ndarray, change: np.ndarray) -> tuple[float, float, float]:
    """How the change of fidelity goes with the base's accuracy, over A >= 2 personas.

    Pearson's correlation, NaN where one is constant; the mean change over the half of the personas
    with the lower accuracy; that over the other half. The middle one of an odd number is left out.

    Args:
      accuracy: [A] the base's. change: [A] of fidelity.
    """
    half, order = len(accuracy) // 2, np.argsort(accuracy)
    varies = np.ptp(accuracy) > 0 and np.ptp(change) > 0
    correlation = float(np.corrcoef(accuracy, change)[0, 1]) if varies else np.nan
    weaker, stronger = change[order[:half]].mean(), change[order[-half:]].mean()
    return correlation, float(weaker), float(stronger)


def _by_persona(entries: Sequence[dict], key: str) -> np.ndarray:
    """Values in the order of the personas' names, which all evaluations share."""
    return np.array([entry[key] for entry in sorted(entries, key=lambda e: e["persona"])])


def _each_measure(
    measures: Sequence[str],
    *sides: Sequence[Policy],
    compare: Callable[..., np.ndarray] = np.asarray,
    part: str = "measures",
) -> dict[str, dict]:
    """Measure -> mean, half-width and values over seeds, of `compare` of the sides.

    part: the field of Policy that has the measures.
    """
    result = {}
    for measure in measures:
        each = [[policy.measure(measure, part) for policy in side] for side in sides]
        with np.errstate(divide="ignore", invalid="ignore"):
            values = compare(*(np.array([m.value for m in side]) for side in each))
            drawn = compare(*(np.stack([m.resampled for m in side], axis=1) for side in each))
        shared = all(len({m.items for m in side}) == 1 for side in each)
        mean, limits = over_seeds(values, drawn, shared)
        result[measure] = {
            "mean": mean,
            "half_width": None if limits is None else (limits[1] - limits[0]) / 2,
            "per_seed": [float(x) if np.isfinite(x) else None for x in values],
        }
    return result


def _cell(entry: Mapping, spec: str = ".3f", unit: int = 1, name: str = "") -> str:
    """Mean and half-width in a unit; the place of a missing half-width is as wide as one."""
    if entry["mean"] is None:
        return "-"
    half, width = entry["half_width"], 3 if unit == 100 else 5
    text = "-" if half is None else f"{unit * half:{spec.lstrip('+')}}"
    return f"{unit * entry['mean']:{spec}} ±{text:>{width}}{name}"


def _formulas(runs: Sequence[Run]) -> list[str]:
    """A warning where the scores of the runs are of several formulas."""
    names = dict.fromkeys(run.pss for run in runs)
    if len(names) < 2:
        return []
    return [f"note: PSS is of several formulas ({', '.join(names)}); --pss=NAME reads all by one"]


def _mixed(name: str, runs: Sequence[Run]) -> str:
    """A warning where runs of one method differ in more than their seed."""
    of_method = [run for run in runs if run.method() == name]
    configs = [flat_fields(run.config) for run in of_method]
    fields = sorted({field for config in configs for field in config} - {"seed"})
    differing = [f for f in fields if any(c.get(f) != configs[0].get(f) for c in configs)]
    if not differing:
        return ""
    return f"note: the runs of {of_method[0].name} differ in {', '.join(differing)}"
