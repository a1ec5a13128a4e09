"""Two policies, or a persona and none, on the same problems: differences, intervals and tests.

Arrays are as in `stability`: correct [persona, problem, sample], 1 right, 0 wrong, NaN unscorable.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from permix_jax.stats.stability import Figure, Score, check_correct, measure, pss_min_over_max
from permix_jax.stats.statistics import (
    Z_95,
    bootstrap_weights,
    gather_means,
    holm,
    t_interval,
    two_way_interval,
)


class Graded(NamedTuple):
    """One policy's answers: `correct` [persona, problem, sample], `plain` [problem, sample]."""

    correct: np.ndarray
    plain: np.ndarray


def compare_policies(
    ours: Graded,
    theirs: Graded,
    rng: np.random.Generator,
    resamples: int = 2000,
    pss: Score = pss_min_over_max,
) -> dict[str, dict]:
    """Every one of `accuracy_figures` of two policies, and how far they are apart.

    Each has `ours`, `theirs`, `difference` and `difference_ci95`. A score that is not defined is
    None, and so is its difference. The intervals combine those of the two policies with the
    correlation of the two over paired resamples (MOVER: Zou and Donner 2008). Resampling the
    difference of two stability scores instead would have the bias that `extremes` describes, twice.

    Raises:
      ValueError: as `stability`, or arrays of the two that differ in shape.
    """
    ours, theirs = _checked("ours", ours), _checked("theirs", theirs)
    if ours.correct.shape != theirs.correct.shape:
        raise ValueError(
            f"ours has shape {ours.correct.shape}, theirs {theirs.correct.shape}: compare the same "
            "personas, problems and number of samples"
        )
    weights = bootstrap_weights(ours.correct.shape[1], resamples, rng)
    a, b = (measure(*policy, weights, pss) for policy in (ours, theirs))
    return {name: _apart(a[name], b[name]) for name in a}


def over_seeds(
    estimates: np.ndarray, resampled: np.ndarray, shared: bool
) -> tuple[float | None, list[float] | None]:
    """The mean of a figure over seeds, and its 95 % interval, None for one seed.

    The interval holds for new seeds and new problems: `two_way_interval` where the seeds share
    their problems. Where they do not, the spread over seeds has both, and it is Student's t.

    Args:
      estimates: [seed]. If one is not finite, both are None.
      resampled: [resample, seed] over the problems; read if they are `shared`.
    """
    if not np.isfinite(estimates).all():
        return None, None
    defined = resampled[np.isfinite(resampled).all(axis=1)]
    if shared and len(defined) > 1:
        mean, half = two_way_interval(estimates, defined)
    else:
        mean, half = t_interval(estimates)
    return mean, None if np.isnan(half) else [mean - half, mean + half]


def persona_effects(
    correct: np.ndarray,
    correct_no_persona: np.ndarray,
    persona_ids: Sequence[str],
) -> list[dict]:
    """What each persona does to accuracy, most harmful first.

    `effect` is its accuracy minus the plain prompt's on the same problems. `effect_ci95` is normal
    with the problem as the unit, `p` of `sign_flip_test`, `p_adjusted` Holm's over personas. The
    first effects are overstated, because the ranking is by the estimate: the more so the more
    personas and the fewer problems there are.

    Args:
      correct: [persona, problem, sample]. correct_no_persona: [problem, sample], as many samples.
    """
    correct, plain = np.asarray(correct, float), np.asarray(correct_no_persona, float)
    check_correct(correct, plain, persona_ids)
    if plain.shape != correct.shape[1:]:
        raise ValueError(
            f"correct_no_persona has shape {plain.shape}, a persona {correct.shape[1:]}: "
            "sample both equally often"
        )
    everyone = np.concatenate([correct, plain[None]])
    accuracy, _, covariance, *_ = gather_means(everyone)
    effect = accuracy[:-1] - accuracy[-1]
    variance = np.diag(covariance)[:-1] - 2 * covariance[:-1, -1] + covariance[-1, -1]
    half = Z_95 * np.sqrt(np.maximum(variance, 0) * len(plain) / max(1, len(plain) - 1))
    p_values = np.array([sign_flip_test(row, plain) for row in correct])
    adjusted = holm(p_values)
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

    The permutation test over problems. Its statistic is the sum over problems of the difference in
    right answers (sample s against sample s, where both are scorable). If the two are alike, each
    problem's difference is as likely with the other sign. Differences are whole numbers, so the
    distribution is computed exactly, as a convolution of binomials. With one sample this is the
    exact McNemar test.
    """
    from scipy.stats import binom  # a second, which only an evaluation needs

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


def _apart(ours: Figure, theirs: Figure) -> dict:
    x, y = ours.value, theirs.value
    if not np.isfinite((x, y)).all():
        x, y = (value if np.isfinite(value) else None for value in (x, y))
        return {"ours": x, "theirs": y, "difference": None, "difference_ci95": None}
    r = _correlation(ours.resampled, theirs.resampled)
    # Distances from the estimate to its limits. A corrected interval may leave it outside.
    (down, up), (y_down, y_up) = (
        (max(0.0, of.value - of.interval[0]), max(0.0, of.interval[1] - of.value))
        for of in (ours, theirs)
    )
    below = np.sqrt(max(0.0, down**2 + y_up**2 - 2 * r * down * y_up))
    above = np.sqrt(max(0.0, up**2 + y_down**2 - 2 * r * up * y_down))
    interval = [float(x - y - below), float(x - y + above)]
    return {"ours": x, "theirs": y, "difference": x - y, "difference_ci95": interval}


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    defined = ~(np.isnan(x) | np.isnan(y))
    x, y = x[defined], y[defined]
    if x.size < 2 or x.std() < 1e-12 or y.std() < 1e-12:
        return 0.0
    return float(np.corrcoef(x, y)[0, 1])


def _checked(name: str, graded: Graded) -> Graded:
    graded = Graded(np.asarray(graded.correct, float), np.asarray(graded.plain, float))
    try:
        check_correct(graded.correct, graded.plain, range(len(graded.correct)))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    return graded
