"""Finished runs side by side: methods over seeds, PerMix-RLVR against plain RLVR, two runs."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from permix_jax.core.fields import flat_fields
from permix_jax.core.randomness import generator
from permix_jax.report.run_figures import MEASURES, STABILITY, PolicyMeasures, Run, read_answers
from permix_jax.report.tables import text_table
from permix_jax.stats.paired import compare_policies, over_seeds
from permix_jax.stats.stability import pss_formula
from permix_jax.stats.statistics import percentile_interval

# PerMix-RLVR against RLVR, arXiv 2604.08986, abstract: PSS on MATH500, fidelity on PersonaGym.
PAPER = {"PSS": 0.212, "role-play": 0.114}
_RESAMPLES = 1000
_LEGEND = (
    "mean ± half-width of the 95 % interval over seeds, and over problems where seeds share them;",
    "differences are paired by seed; KL: KL(policy || base), nats a response, by sampling (k3);",
    "the paper: PSS on MATH500, fidelity on PersonaGym",
)


def compare_runs(runs: Sequence[Run]) -> dict:
    """Methods over seeds, as plain dicts.

    `methods`: the base policy (step 0) and each method, with `seeds` and, for each of MEASURES,
    `mean`, `half_width` (None for one seed) and `per_seed`. Several runs of one seed that started
    from one base count it once. Runs of another preset are methods of their own.

    `pairs`: for each "permix..." and "rlvr..." of the same rest of the name that share seeds, the
    `difference` and the `relative` difference (permix / rlvr - 1) of each measure, paired by seed.

    Raises:
      ValueError: two runs of one method with the same seed.
    """
    methods, pairs, notes = {}, [], []
    for preset in dict.fromkeys(run.preset for run in runs):
        suffix = f":{preset}" if preset else ""
        of_preset, groups = [run for run in runs if run.preset == preset], defaultdict(list)
        for run in of_preset:
            groups[run.name].append(run)
        by_seed = {name: _by_seed(group) for name, group in groups.items()}
        # Runs of one seed have evaluated their base alike; the first counts.
        bases = {run.seed: run.base for run in reversed(of_preset) if run.base is not None}
        for name, of in (({"base": bases} if bases else {}) | by_seed).items():
            seeds = sorted(of)
            measures = _each_measure([of[seed] for seed in seeds])
            methods[f"{name}{suffix}"] = {"seeds": seeds, "measures": measures}
        for name, ours in by_seed.items():
            other = name.replace("permix", "rlvr", 1)
            theirs = by_seed.get(other, {})
            seeds = [seed for seed in ours if seed in theirs]
            if name.startswith("permix") and seeds:
                sides = [[side[seed] for seed in seeds] for side in (ours, theirs)]
                pairs.append(
                    {
                        "ours": f"{name}{suffix}",
                        "theirs": f"{other}{suffix}",
                        "seeds": seeds,
                        "difference": _each_measure(*sides, np.subtract),
                        "relative": _each_measure(*sides, lambda x, y: x / y - 1),
                    }
                )
        notes += [note for name, group in groups.items() if (note := _mixed(name, group))]
    return {"methods": methods, "pairs": pairs, "paper": PAPER, "notes": notes}


def comparison_table(comparison: Mapping) -> str:
    """The result of `compare_runs` as text: a row for each method, three for each pair."""
    rows = []
    for name, entry in comparison["methods"].items():
        cells = [_cell(entry["measures"][measure]) for measure in MEASURES]
        rows.append([name, str(len(entry["seeds"])), *cells])
    for pair in comparison["pairs"]:
        seeds = str(len(pair["seeds"]))
        difference = [_cell(pair["difference"][measure], "+") for measure in MEASURES]
        rows.append([f"{pair['ours']} - {pair['theirs'].partition(':')[0]}", seeds, *difference])
        relative = [_percent(pair["relative"][measure]) for measure in MEASURES]
        rows.append(["  relative", seeds, *relative])
    if comparison["pairs"]:
        paper = comparison["paper"]
        published = [f"{100 * paper[m]:+.1f} %" if m in paper else "" for m in MEASURES]
        rows.append(["  the paper", "", *published])
    header = ("method", "seeds", *MEASURES)
    return "\n".join([text_table(header, rows), *_LEGEND, *comparison["notes"]])


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
    a, b = ours.trained, theirs.trained
    for measure in [name for name in MEASURES if name not in (*STABILITY, "KL")]:
        resampled = a.resampled[measure] - b.resampled[measure]
        if a.items[measure] == b.items[measure] and np.isfinite(resampled).any():
            result[measure] = {
                "difference": a.values[measure] - b.values[measure],
                "difference_ci95": percentile_interval(resampled),
            }
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
    if a is None or b is None or a[:2] != b[:2]:
        return None
    if a.personas[0] is not None or a.correct.shape != b.correct.shape:
        return None
    return compare_policies(
        a.graded(),
        b.graded(),
        generator(0, "report"),
        settings.get("resamples", _RESAMPLES),
        pss_formula(settings.get("pss", "min_over_max")),
    )


def _by_seed(runs: Sequence[Run]) -> dict[int, PolicyMeasures]:
    by_seed: dict[int, Run] = {}
    for run in runs:
        if run.seed in by_seed:
            raise ValueError(
                f"{by_seed[run.seed].workdir} and {run.workdir}: both are {run.name} with seed "
                f"{run.seed}; leave one out"
            )
        by_seed[run.seed] = run
    return {seed: run.trained for seed, run in by_seed.items()}


def _each_measure(
    ours: Sequence[PolicyMeasures],
    theirs: Sequence[PolicyMeasures] | None = None,
    compare: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> dict[str, dict]:
    """Measure -> mean, half-width and values over seeds; of `compare(ours, theirs)` for two."""
    result = {}
    for measure in MEASURES:
        values, resampled, shared = _stacked(ours, measure)
        if theirs is not None:
            others, others_resampled, same = _stacked(theirs, measure)
            with np.errstate(divide="ignore", invalid="ignore"):
                values, resampled = compare(values, others), compare(resampled, others_resampled)
            shared = shared and same
        mean, limits = over_seeds(values, resampled, shared)
        result[measure] = {
            "mean": mean,
            "half_width": None if limits is None else (limits[1] - limits[0]) / 2,
            "per_seed": [float(x) if np.isfinite(x) else None for x in values],
        }
    return result


def _stacked(
    policies: Sequence[PolicyMeasures], measure: str
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Values [seed], their resamples [resample, seed], and whether the seeds share the items."""
    values = np.array([policy.values[measure] for policy in policies])
    resampled = np.stack([policy.resampled[measure] for policy in policies], axis=1)
    items = {policy.items[measure] for policy in policies}
    shared = len(items) == 1 and None not in items and bool(np.isfinite(resampled).any())
    return values, resampled, shared


def _cell(entry: Mapping, sign: str = "") -> str:
    if entry["mean"] is None:
        return "-"
    half = entry["half_width"]
    return f"{entry['mean']:{sign}.3f} ±{'    -' if half is None else f'{half:.3f}'}"


def _percent(entry: Mapping) -> str:
    if entry["mean"] is None:
        return "-"
    half = entry["half_width"]
    return f"{100 * entry['mean']:+.1f} ±{'  -' if half is None else f'{100 * half:.1f}'} %"


def _mixed(name: str, runs: Sequence[Run]) -> str:
    """A warning where runs of one method differ in more than their seed."""
    configs = [flat_fields(run.config) for run in runs]
    fields = sorted({field for config in configs for field in config} - {"seed"})
    differing = [f for f in fields if any(c.get(f) != configs[0].get(f) for c in configs)]
    return f"note: the runs of {name} differ in {', '.join(differing)}" if differing else ""
