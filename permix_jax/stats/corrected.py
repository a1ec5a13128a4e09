"""The worst persona, and the score, without what the noise of few problems does to them.

Noise spreads the personas' accuracies apart. So the worst of many is measured too low, the best too
high, and worst over best too low: the more so, the more alike the personas are and the fewer the
problems. A comparison of methods does not cancel this, because the more stable method loses more.

The variance over personas that is measured is the true one plus that of the noise, which the
answers tell. Here each accuracy is drawn towards their mean by the root of the share of the true
one, so that they differ as much as the true accuracies do (constrained empirical Bayes: Louis 1984;
Ghosh 1992). What is the worst of these has little bias where the true accuracies are about normal
over the personas. One persona far below the others is hardly moved; the noise of the others is then
left, too. `benchmarks/headline_coverage.py` measures what the intervals hold.
"""

import numpy as np

from permix_jax.stats.stability import (
    Figure,
    Score,
    accuracy_figures,
    pss_min_over_max,
    with_plain_first,
)
from permix_jax.stats.statistics import Z_95, Means, gather_means

# Figure -> the ends of what is possible. A score of another formula may exceed 1.
CORRECTED = {"pss": (0.0, 1.0), "accuracy_worst": (0.0, 1.0), "worst_minus_none": (-1.0, 1.0)}


def corrected_figures(
    correct: np.ndarray, plain: np.ndarray, weights: np.ndarray, pss: Score
) -> dict[str, Figure]:
    """Those of CORRECTED; the score is not finite where it is 0 / 0, and has no interval then.

    The intervals are normal, with the standard deviation over paired resamples of the problems, in
    each of which twice the noise is taken away. They hold for these personas over the population of
    problems.

    Args:
      correct: [persona, problem, sample]. plain: [problem, sample]. weights: [resample, problem].
    """
    everyone = gather_means(with_plain_first(correct, plain), weights)
    estimate, alone = everyone.estimate[1:], everyone.estimate[0]
    noise = noise_variance(everyone)
    drawn = without_noise(everyone.resampled[:, 1:], 2 * noise)  # a resample has it twice
    values = accuracy_figures(without_noise(estimate, noise), alone, pss)
    resampled = accuracy_figures(drawn, everyone.resampled[:, 0], pss)
    result = {}
    for name, ends in CORRECTED.items():
        if name == "pss" and pss is not pss_min_over_max:
            ends = (-np.inf, np.inf)
        interval = _interval(values[name], resampled[name], ends)
        result[name] = Figure(float(values[name]), resampled[name], interval)
    return result


def without_noise(accuracy: np.ndarray, noise: float) -> np.ndarray:
    """Accuracies [..., persona] whose variance over personas is lower by `noise`, or 0.

    Their mean and order stay.
    """
    if accuracy.shape[-1] < 2:
        return accuracy
    variance = accuracy.var(axis=-1, ddof=1, keepdims=True)
    share = np.divide(noise, variance, out=np.ones_like(variance), where=variance > 0)
    mean = accuracy.mean(axis=-1, keepdims=True)
    return mean + np.sqrt(np.clip(1 - share, 0, 1)) * (accuracy - mean)


def noise_variance(means: Means) -> float:
    """What noise adds to the variance (of a sample) over groups 1, 2, ...; group 0 has no part.

    The mean variance of an accuracy minus the mean covariance of two: what is hard for all personas
    does not spread them apart.
    """
    covariance, n = means.covariance[1:, 1:], means.problems
    groups, own = len(covariance), np.trace(covariance)
    if groups < 2:
        return 0.0
    shared = (covariance.sum() - own) / (groups * (groups - 1))
    return float((own / groups - shared) * n / max(1, n - 1))


def _interval(
    value: np.ndarray, resampled: np.ndarray, ends: tuple[float, float]
) -> list[float] | None:
    defined = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or defined.size < 2:
        return None
    half = Z_95 * defined.std(ddof=1)
    low, high = np.clip([value - half, value + half], *ends)
    return [float(low), float(high)]
