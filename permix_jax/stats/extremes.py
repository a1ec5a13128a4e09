"""Intervals for the worst and the best of many accuracies, and for worst over best.

The minimum of noisy estimates lies below the true minimum, and a bootstrap adds that bias again.
Its percentile, basic and BCa intervals nearly always miss a stability score near 1, because the
minimum is not differentiable where two personas tie (Fang and Santos 2019). So these intervals are
intersection bounds (Chernozhukov, Lee and Rosen 2013). Worst over best is the minimum, over all
pairs of personas j and l, of accuracy j over accuracy l, and each of these ratios is smooth.

- Lower limit: the lowest of the pairs' own lower limits. It exceeds the truth only if that of the
  truly lowest pair does: 2.5 %.
- Upper limit: the lowest of simultaneous upper limits. Their factor is a quantile, over paired
  resamples, of the greatest studentised deviation of the pairs that can be the lowest.

An interval holds for these personas over the population of problems. It is wider than necessary
where many personas are nearly equal, and grows with their number.

Axes: R resample, G group (persona); a pair is [J, L], numerator and denominator.
"""

import numpy as np

from permix_jax.stats.statistics import Z_95, Means

_FAR = 6.0  # standard errors from the lowest pair, beyond which a pair cannot be the minimum
_CHUNK = 2_000_000  # entries of [R, J, L] held at once
_WORK = 100_000_000  # entries computed in all; with very many pairs, fewer resamples are used


def ratio_interval(means: Means) -> list[float]:
    """95 % interval [low, high] of worst over best, inside [0, 1].

    The limits of a pair are Fieller's (1954); [0, 1] where the best is not clearly above 0.
    """
    if not means.estimate.any():
        return [0.0, 1.0]
    low, high = _ratio_limits(means, np.ones_like(means.covariance, bool))
    return [float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))]


def worst_over_first_interval(means: Means) -> list[float] | None:
    """95 % interval of the lowest accuracy of groups 1, 2, ... over that of group 0, from 0 on.

    The limits of a pair are Fieller's; None where group 0 is not clearly above 0.
    """
    low, high = _ratio_limits(means, _against_first(means))
    return [max(0.0, float(low)), float(high)] if np.isfinite(high) else None


def worst_minus_first_interval(means: Means) -> list[float]:
    """95 % interval of the lowest accuracy of groups 1, 2, ... minus that of group 0, in [-1, 1].

    The lowest difference of a pair is bounded as worst over best is; its own limits are normal.
    """
    covariance, used = _floored(means), _against_first(means)
    variance = np.diag(covariance)
    gap = np.where(used, means.estimate[:, None] - means.estimate, np.inf)
    spread = np.where(used, _root(variance[:, None] - 2 * covariance + variance), 0)
    # `_simultaneous` bounds row minus slope times column, which is the gap.
    factor = _simultaneous(means, gap, spread, spread, np.ones_like(spread))
    low, high = (gap - Z_95 * spread).min(), (gap + factor * spread).min()
    return [float(np.clip(low, -1, 1)), float(np.clip(high, -1, 1))]


def range_interval(means: Means) -> list[float]:
    """95 % interval [low, high] of best minus worst, inside [0, 1]."""
    covariance = _floored(means)
    gap = means.estimate[:, None] - means.estimate
    variance = np.diag(covariance)
    spread = _root(variance[:, None] - 2 * covariance + variance)
    factor = _simultaneous(means, gap, spread, spread, np.ones_like(gap))
    low, high = (gap - Z_95 * spread).min(), (gap + factor * spread).min()
    return [float(np.clip(-high, 0, 1)), float(np.clip(-low, 0, 1))]


def worst_interval(means: Means) -> list[float]:
    """95 % interval [low, high] of the lowest accuracy; the limits of a persona are Wilson's."""
    estimate = means.estimate[:, None]  # pairs with a denominator that does not matter
    spread = _root(np.diag(_floored(means)))[:, None]
    factor = _simultaneous(means, estimate, spread, spread, np.zeros_like(estimate))
    return [float(means.wilson()[0].min()), float(means.wilson(factor)[1].min())]


def best_interval(means: Means) -> list[float]:
    """95 % interval [low, high] of the highest accuracy: 1 minus that of the lowest error."""
    mirrored = means._replace(estimate=1 - means.estimate, resampled=1 - means.resampled)
    low, high = worst_interval(mirrored)
    return [1 - high, 1 - low]


def _against_first(means: Means) -> np.ndarray:
    """The pairs of a group 1, 2, ... with group 0, bool [J, L]."""
    used = np.zeros_like(means.covariance, bool)
    used[1:, 0] = True
    return used


def _ratio_limits(means: Means, used: np.ndarray) -> tuple[float, float]:
    """Limits of the lowest ratio of the pairs in `used` [J, L]; the upper one may be infinite."""
    covariance = _floored(means)
    above, below = means.estimate[:, None], means.estimate[None, :]
    variance = np.diag(covariance)
    ratio = np.divide(above, below, out=np.ones_like(covariance), where=below > 0)
    spread = _root(variance[:, None] - 2 * ratio * covariance + ratio**2 * variance)

    def limit(factor: float, side: int) -> float:
        a = below**2 - factor**2 * variance
        b = above * below - factor**2 * covariance
        root = _root(b**2 - a * (above**2 - factor**2 * variance[:, None]))
        unbounded = np.full_like(b, 0.0 if side < 0 else np.inf)
        return np.divide(b + side * root, a, out=unbounded, where=a > 0)[used].min()

    scale = np.where(below > 0, below, np.inf)
    slope, error = ratio, np.where(used, spread / scale, 0)
    spread, ratio = np.where(used, spread, 0), np.where(used, ratio, np.inf)
    factor = _simultaneous(means, ratio, error, spread, slope)
    return limit(Z_95, -1), limit(factor, 1)


def _simultaneous(
    means: Means,
    estimate: np.ndarray,
    error: np.ndarray,
    spread: np.ndarray,
    slope: np.ndarray,
) -> float:
    """The factor of the upper limits, over the pairs that can be the minimum.

    Chernozhukov, Lee and Rosen (2013, section 3.2) say which pairs to keep.

    Args:
      estimate, error: [J, L] the pairs' figures and their standard errors.
      spread: [J, L] standard error of the deviation J - slope L, with slope [J, L].
    """
    resampled = means.resampled[~np.isnan(means.resampled).any(axis=1)]
    deviation = (resampled - means.estimate).astype(np.float32)

    def quantile(level: float, chosen: np.ndarray) -> float:
        rows, columns = np.flatnonzero(chosen.any(axis=1)), np.flatnonzero(chosen.any(axis=0))
        if not rows.size:
            return Z_95
        grid = np.ix_(rows, columns)
        precision = np.divide(1, spread, out=np.zeros_like(spread), where=chosen)[grid]
        tilt = (precision * slope[grid]).astype(np.float32)
        precision = precision.astype(np.float32)
        size, most = precision.size, max(400, _WORK // precision.size)
        step = max(1, _CHUNK // size)
        greatest = []
        for at in range(0, min(most, len(deviation)), step):
            part = deviation[at : min(at + step, most)]
            below = tilt * part[:, None, columns] - precision * part[:, rows, None]
            greatest.append(below.max(axis=(1, 2)))
        return float(max(Z_95, np.quantile(np.concatenate(greatest), level)))

    noisy = spread > 1e-12
    near = noisy & (estimate - _FAR * error <= (estimate + _FAR * error).min())
    certainty = 1 - 0.1 / np.log(max(means.problems, 3))
    wide = quantile(certainty, near)
    bound = (estimate + wide * error).min()
    return quantile(0.975, near & (estimate <= bound + 2 * wide * error))


def _root(variance: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum(variance, 0))


def _floored(means: Means) -> np.ndarray:
    """The covariance, with a least variance for a persona whose answers nearly all agree.

    No right answer to n problems does not prove an accuracy of 0. Below 2.5 right (or wrong) ones
    the variance is at least that of Agresti and Coull's (1998) estimate, (right + 2) / (n + 4).
    """
    covariance, n = means.covariance.copy(), means.problems
    adjusted = (means.estimate * n + 2) / (n + 4)
    floor = adjusted * (1 - adjusted) / (n + 4)
    few = np.minimum(means.estimate, 1 - means.estimate) * n < 2.5
    diagonal = np.diag(covariance)
    np.fill_diagonal(covariance, np.where(few, np.maximum(diagonal, floor), diagonal))
    return covariance
