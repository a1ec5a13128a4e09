"""Two policies, or a persona and none, on the same problems: differences, intervals and tests.

Arrays are as in `stability`: correct [persona, problem, sample], 1 right, 0 wrong, NaN unscorable.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri
from scipy.stats import binom, false_discovery_control

from permix_jax.stats.stability import (
    Score,
    check_correct,
    figure_intervals,
    figures,
    gather_means,
    pss_min_over_max,
)
from permix_jax.stats.statistics import (
    bootstrap_weights,
    holm,
    means_covariance,
    pooled_means,
    require_axes,
    t_interval,
    two_way_interval,
)

_Z = float(ndtri(0.975))


class Graded(NamedTuple):
    """One policy's answers: `correct` [persona, problem, sample], `plain` [problem, sample]."""

    correct: np.ndarray
    plain: np.ndarray


def compare_policies(
    ours: Graded,
    theirs: Graded,
    persona_ids: Sequence[str],
    rng: np.random.Generator,
    resamples: int = 2000,
    pss: Score = pss_min_over_max,
) -> dict:
    """Every figure of `stability.figures` of two policies, and how far they are apart.

    Each figure has `ours`, `theirs`, `difference` and `relative` (ours / theirs - 1, None where
    theirs is 0) with `_ci95` (a limit that is not bounded is None); a score that is not defined is
    None, and so is what is made of it. The intervals are put together
    from those of the two policies and the correlation of the two over paired resamples (MOVER:
    Zou and Donner 2008; of ratios: Donner and Zou 2012), because resampling the difference of two
    stability scores has the bias that `extremes` describes, twice.

    `per_persona` has, for each persona in the given order, `difference` of the accuracies, its
    p value (`sign_flip_test`) and `p_holm`, adjusted over personas.

    Raises:
      ValueError: as `stability`, or arrays of the two that differ in shape.
    """
    ours, theirs = _checked("ours", ours, persona_ids), _checked("theirs", theirs, persona_ids)
    _same_shape(ours.correct, theirs.correct)
    weights = bootstrap_weights(ours.correct.shape[1], resamples, rng)
    a, b = _Figures.of(ours, weights, pss), _Figures.of(theirs, weights, pss)
    p_values = [sign_flip_test(x, y) for x, y in zip(ours.correct, theirs.correct, strict=True)]
    accuracies = [gather_means(g.correct, weights[:1]).estimate for g in (ours, theirs)]
    return {
        "figures": {name: _apart(a, b, name) for name in a.value},
        "per_persona": [
            {"persona": persona, "difference": float(x - y), "p": p, "p_holm": float(adjusted)}
            for persona, x, y, p, adjusted in zip(
                persona_ids, *accuracies, p_values, holm(np.array(p_values)), strict=True
            )
        ],
    }


def compare_over_seeds(
    ours: Sequence[Graded],
    theirs: Sequence[Graded],
    rng: np.random.Generator,
    shared_problems: bool,
    resamples: int = 2000,
    pss: Score = pss_min_over_max,
) -> dict:
    """Two methods over training seeds, paired by seed: each figure with its mean over seeds.

    The entries are those of `compare_policies`; `difference` and `relative` are means over seeds
    of each seed's own. Their intervals cover new seeds and new problems. With one seed they are
    None. Where the seeds answer different problems, the spread over seeds holds both and Student's
    t is used; where they share them, `two_way_interval`.

    Args:
      ours, theirs: one entry for each seed, the same seeds in the same order.
      shared_problems: whether every seed was tested on the same problems.
    """
    if len(ours) != len(theirs) or not ours:
        raise ValueError(
            f"ours has {len(ours)} seeds, theirs {len(theirs)}: give the same seeds, at least one"
        )
    per_seed = []
    for index, pair in enumerate(zip(ours, theirs, strict=True)):
        x, y = (_checked(f"seed {index}", g, range(len(g.correct))) for g in pair)
        _same_shape(x.correct, y.correct)
        problems = x.correct.shape[1]
        if not (shared_problems and per_seed):
            weights = bootstrap_weights(problems, resamples, rng)
        elif weights.shape[1] != problems:
            raise ValueError(
                f"seed {index} has {problems} problems, seed 0 {weights.shape[1]}: "
                "set shared_problems=False"
            )
        per_seed.append([_values(g, weights, pss) for g in (x, y)])

    result = {}
    for name in per_seed[0][0][0]:
        a, b = (np.array([seed[side][0][name] for seed in per_seed]) for side in (0, 1))
        ra, rb = (np.stack([s[side][1][name] for s in per_seed], axis=1) for side in (0, 1))
        entry = {side: _finite(x.mean()) for side, x in (("ours", a), ("theirs", b))}
        entry |= over_seeds("difference", a - b, ra - rb, shared_problems)
        with np.errstate(divide="ignore", invalid="ignore"):
            entry |= over_seeds("relative", a / b - 1, ra / rb - 1, shared_problems)
        result[name] = entry
    return result


def over_seeds(name: str, estimates: np.ndarray, resampled: np.ndarray, shared: bool) -> dict:
    """`name` and `name`_ci95 of a figure over seeds, as `compare_over_seeds` says.

    Args:
      estimates: [seed]. None comes out if one is not finite.
      resampled: [resample, seed] over the problems, if the seeds share them; else not used.
    """
    if not np.isfinite(estimates).all():
        return {name: None, f"{name}_ci95": None}
    defined = resampled[np.isfinite(resampled).all(axis=1)]
    if shared and len(defined) > 1:
        mean, half = two_way_interval(estimates, defined)
    else:
        mean, half = t_interval(estimates)
    return {name: mean, f"{name}_ci95": None if np.isnan(half) else [mean - half, mean + half]}


def persona_effects(
    correct: np.ndarray,
    correct_no_persona: np.ndarray,
    persona_ids: Sequence[str],
    false_discovery: bool = False,
) -> list[dict]:
    """What each persona does to accuracy, most harmful first.

    `effect` is its accuracy minus the plain prompt's on the same problems, `effect_ci95` normal
    with the problem as the unit, `p` of `sign_flip_test`, and `p_adjusted` Holm's over personas
    or, with `false_discovery`, Benjamini and Hochberg's (personas share problems, which makes
    their p values positively dependent: both hold). The ranking is by the estimate: the effect of
    the one that comes out first is overstated, the more so the more personas and the fewer
    problems there are.

    Args:
      correct: [persona, problem, sample]. correct_no_persona: [problem, sample], as many samples.
    """
    correct, plain = _checked("correct", Graded(correct, correct_no_persona), persona_ids)
    if plain.shape != correct.shape[1:]:
        raise ValueError(
            f"correct_no_persona has shape {plain.shape}, a persona {correct.shape[1:]}: "
            "sample both equally often"
        )
    everyone = np.concatenate([correct, plain[None]])
    accuracy = pooled_means(everyone, np.ones((1, len(plain))))[0]
    covariance = means_covariance(everyone)
    effect = accuracy[:-1] - accuracy[-1]
    variance = np.diag(covariance)[:-1] - 2 * covariance[:-1, -1] + covariance[-1, -1]
    half = _Z * np.sqrt(np.maximum(variance, 0) * len(plain) / max(1, len(plain) - 1))
    p_values = np.array([sign_flip_test(row, plain) for row in correct])
    adjusted = false_discovery_control(p_values) if false_discovery else holm(p_values)
    return [
        {
            "persona": persona_ids[i],
            "accuracy": float(accuracy[i]),
            "effect": float(effect[i]),
            "effect_ci95": [float(effect[i] - half[i]), float(effect[i] + half[i])],
            "p": float(p_values[i]),
            "p_adjusted": float(adjusted[i]),
        }
        for i in np.argsort(effect, kind="stable")
    ]


def sign_flip_test(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Two-sided p value that two sets of answers [problem, sample] are equally often right.

    The statistic is the sum over problems of the difference in right answers (sample s against
    sample s, where both are scorable). If the two are alike, each problem's difference is as
    likely with the other sign, whatever the dependence within a problem: the permutation test
    over problems. Differences are whole numbers, so its distribution is computed exactly, as a
    convolution of binomials. With one sample it is the exact McNemar test.
    """
    differences = np.nansum(ours - theirs, axis=-1).astype(int)
    sizes, counts = np.unique(np.abs(differences), return_counts=True)
    probability = np.ones(1)  # of sum(size * number of positive signs)
    for size, count in zip(sizes, counts, strict=True):
        if size:
            step = binom.pmf(np.arange(count + 1), count, 0.5)
            wider = np.zeros(len(probability) + size * count)
            for positive, weight in enumerate(step):
                at = size * positive
                wider[at : at + len(probability)] += weight * probability
            probability = wider
    total = len(probability) - 1
    as_far = np.abs(2 * np.arange(total + 1) - total) >= abs(differences.sum())
    return float(min(1.0, probability[as_far].sum()))


class _Figures(NamedTuple):
    value: dict[str, np.ndarray]
    resampled: dict[str, np.ndarray]
    interval: dict[str, list[float] | None]

    @classmethod
    def of(cls, graded: Graded, weights: np.ndarray, pss: Score) -> "_Figures":
        everyone = gather_means(graded.correct, weights)
        alone = gather_means(graded.plain[None], weights)
        return cls(
            figures(everyone.estimate, alone.estimate[0], pss),
            figures(everyone.resampled, alone.resampled[:, 0], pss),
            figure_intervals(everyone, alone, pss),
        )


def _values(graded: Graded, weights: np.ndarray, pss: Score) -> tuple[dict, dict]:
    everyone = gather_means(graded.correct, weights)
    alone = gather_means(graded.plain[None], weights)
    return (
        figures(everyone.estimate, alone.estimate[0], pss),
        figures(everyone.resampled, alone.resampled[:, 0], pss),
    )


def _apart(a: _Figures, b: _Figures, name: str) -> dict:
    x, y = float(a.value[name]), float(b.value[name])
    if not np.isfinite((x, y)).all():
        unknown = ("difference", "difference_ci95", "relative", "relative_ci95")
        return {"ours": _finite(x), "theirs": _finite(y)} | dict.fromkeys(unknown)
    (x_low, x_high), (y_low, y_high) = a.interval[name], b.interval[name]
    r = _correlation(a.resampled[name], b.resampled[name])
    # Distances from estimate to limit; a corrected interval may leave its estimate outside.
    down, up = max(0.0, x - x_low), max(0.0, x_high - x)
    y_down, y_up = max(0.0, y - y_low), max(0.0, y_high - y)
    below = np.sqrt(max(0.0, down**2 + y_up**2 - 2 * r * down * y_up))
    above = np.sqrt(max(0.0, up**2 + y_down**2 - 2 * r * up * y_down))
    entry = {
        "ours": x,
        "theirs": y,
        "difference": x - y,
        "difference_ci95": [float(x - y - below), float(x - y + above)],
        "relative": None,
        "relative_ci95": None,
    }
    if y > 0:
        low = _ratio_limit(x, y, down, y_up, r, -1)
        high = _ratio_limit(x, y, up, y_down, r, 1)
        entry["relative"] = x / y - 1
        entry["relative_ci95"] = [low - 1, high - 1 if np.isfinite(high) else None]
    return entry


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _ratio_limit(x: float, y: float, dx: float, dy: float, r: float, side: int) -> float:
    """The ratio q at which the limit of x - q y is 0: a quadratic, as in Fieller's theorem."""
    a, b, c = y**2 - dy**2, x * y - r * dx * dy, x**2 - dx**2
    root = np.sqrt(max(0.0, b**2 - a * c))
    if side > 0:
        return float((b + root) / a) if a > 1e-12 else float("inf")
    return float(max(0.0, c / (b + root))) if b + root > 0 else 0.0


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    defined = ~(np.isnan(x) | np.isnan(y))
    x, y = x[defined], y[defined]
    if x.size < 2 or x.std() < 1e-12 or y.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _checked(name: str, graded: Graded, persona_ids: Sequence) -> Graded:
    graded = Graded(np.asarray(graded.correct, float), np.asarray(graded.plain, float))
    try:
        check_correct(graded.correct, graded.plain, persona_ids)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return graded


def _same_shape(ours: np.ndarray, theirs: np.ndarray) -> None:
    require_axes("ours", ours, "persona", "problem", "sample")
    if ours.shape != theirs.shape:
        raise ValueError(
            f"ours has shape {ours.shape}, theirs {theirs.shape}: compare the same personas, "
            "problems and number of samples"
        )
