"""Resampling of problems, intervals, and p values of many tests.

Axes: R resample, G group (persona), I item (problem or prompt), S sample.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri, stdtrit

Z_95 = float(ndtri(0.975))  # the normal quantile of a two-sided 95 % interval


def require_axes(name: str, values: np.ndarray, *axes: str) -> None:
    """Raises ValueError unless `values` has these axes and at least one entry on each."""
    if values.ndim != len(axes) or 0 in values.shape:
        raise ValueError(
            f"{name} has shape {values.shape}: give a non-empty array [{', '.join(axes)}]"
        )


def require_ids(persona_ids: Sequence, number: int, name: str) -> None:
    """Raises ValueError unless there are as many different ids as rows of the array `name`."""
    if len(set(persona_ids)) != len(persona_ids) or len(persona_ids) != number:
        raise ValueError(
            f"persona_ids {list(persona_ids)}: give {number} different ids, "
            f"one for each row of {name}"
        )


def bootstrap_weights(items: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each resample drew each item, float [R, I]; every row sums to `items`.

    The same weights for every persona and for the plain prompt make the bootstrap paired. Problems
    that are hard for one persona are mostly hard for the next, and that part cancels.
    """
    return rng.multinomial(items, np.full(items, 1 / items), size=resamples).astype(float)


def quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """`above` over `below`, NaN where `below` is 0."""
    above, below = np.asarray(above, float), np.asarray(below, float)
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)


def pooled_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means over items and samples: values [G, I, S], weights [R, I] -> [R, G].

    NaN values are left out. The mean of none is NaN.
    """
    present = ~np.isnan(values)
    totals = weights @ np.where(present, values, 0.0).sum(axis=-1).T
    return quotient(totals, weights @ present.sum(axis=-1).T)


class Means(NamedTuple):
    """Accuracies of the personas and their noise.

    estimate: [G]. resampled: [R, G], paired bootstrap over problems.
    covariance: [G, G] of the estimates, over the population of problems.
    answers: [G] number of scorable answers. problems: number of problems.
    """

    estimate: np.ndarray
    resampled: np.ndarray
    covariance: np.ndarray
    answers: np.ndarray
    problems: int

    def wilson(self, factor: float = Z_95) -> tuple[np.ndarray, np.ndarray]:
        """`wilson_limits` of each."""
        variance = np.diag(self.covariance)
        return wilson_limits(self.estimate, variance, self.problems, self.answers, factor)

    def wilson_together(self) -> list[float]:
        """`wilson_limits` of the mean over the personas."""
        together = self._replace(
            estimate=self.estimate.mean(keepdims=True),
            covariance=self.covariance.mean(keepdims=True),
            answers=self.answers.sum(keepdims=True),
        )
        return [float(limit[0]) for limit in together.wilson()]

    def by_persona(self, persona_ids: Sequence[str], name: str) -> list[dict]:
        """`persona`, the estimate under `name`, its Wilson interval and `n` answers of each."""
        each = zip(persona_ids, self.estimate, *self.wilson(), self.answers, strict=True)
        return [
            {
                "persona": persona,
                name: float(estimate),
                f"{name}_ci95": [float(low), float(high)],
                "n": int(answers),
            }
            for persona, estimate, low, high, answers in each
        ]


def gather_means(correct: np.ndarray, weights: np.ndarray | None = None) -> Means:
    """Accuracies of `correct` [persona, problem, sample]; `weights` [resample, problem] or none.

    The covariance is that of the delta method, so without the noise of a bootstrap. Problems are
    the unit, because answers to one are not independent. Every persona needs a scorable answer.
    """
    present, problems = ~np.isnan(correct), correct.shape[1]
    counts, totals = present.sum(axis=-1), np.where(present, correct, 0.0).sum(axis=-1)
    answers = counts.sum(axis=1)
    estimate = totals.sum(axis=1) / answers
    influence = (totals - estimate[:, None] * counts) / answers[:, None]
    resampled = pooled_means(correct, np.ones((0, problems)) if weights is None else weights)
    return Means(estimate, resampled, influence @ influence.T, answers, problems)


def percentile_interval(resampled: np.ndarray) -> list[float]:
    """The 95 % percentile interval [low, high] of a statistic's resamples [R].

    Resamples in which the statistic is NaN are left out; raises ValueError if none is left.
    """
    defined = resampled[~np.isnan(resampled)]
    if not defined.size:
        raise ValueError("no bootstrap resample is scorable: evaluate on more problems")
    return np.percentile(defined, [2.5, 97.5]).tolist()


def wilson_limits(
    mean: np.ndarray,
    variance: np.ndarray,
    items: int,
    answers: np.ndarray,
    factor: float = Z_95,
) -> tuple[np.ndarray, np.ndarray]:
    """Limits (low, high) of means of zeros and ones whose answers come in clusters, all [G].

    Wilson's score interval (1927) at the effective sample size mean (1 - mean) / variance, which
    lies between the number of items and the number of answers (Korn and Graubard 1998). Unlike
    the percentile bootstrap it keeps its coverage where nearly all answers are right, or wrong.

    Args:
      variance: of the means, over items (the diagonal of their covariance).
      answers: number of answers behind each mean.
      factor: the normal quantile; the default gives 95 %.
    """
    spread = mean * (1 - mean)
    size = np.divide(spread, variance, out=np.array(answers, float), where=variance > 0)
    # If all answers agree, the effective size is unknown. The number of items is cautious.
    size = np.where(spread > 0, np.clip(size, np.minimum(items, answers), answers), items)
    centre = (mean + factor**2 / (2 * size)) / (1 + factor**2 / size)
    half = np.sqrt(spread / size + factor**2 / (4 * size**2)) * factor / (1 + factor**2 / size)
    return np.maximum(centre - half, 0.0), np.minimum(centre + half, 1.0)


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and the half-width of its 95 % Student-t interval, NaN for one seed."""
    values = np.asarray(values, float)
    require_axes("values", values, "seed")
    if values.size == 1:
        return float(values[0]), float("nan")
    standard_error = values.std(ddof=1) / np.sqrt(values.size)
    return float(values.mean()), float(stdtrit(values.size - 1, 0.975) * standard_error)


def two_way_interval(estimates: np.ndarray, resampled: np.ndarray) -> tuple[float, float]:
    """Mean over groups (seeds) that answer the same items, and its 95 % half-width.

    Both the groups and the items are samples. The variance of the mean is the sum of two parts: the
    variance over groups, s^2 / G, which contains the noise of each group's own answers, and what
    the groups share through the items, the mean covariance of two groups over resamples of the
    items. (Resampling groups and then items would count the noise two more times: Owen 2007, "The
    pigeonhole bootstrap".) The t quantile has Satterthwaite's (1946) degrees of freedom, with the
    items' part taken as known. The half-width is NaN for one group.

    Args:
      estimates: [G] the figure of each group.
      resampled: [R, G] the same over resamples of the items, the same draw in every group.
    """
    require_axes("estimates", estimates, "group")
    groups = estimates.size
    if resampled.shape[1:] != (groups,) or len(resampled) < 2:
        raise ValueError(f"resampled has shape {resampled.shape}: give [resample, {groups}]")
    if groups == 1:
        return float(estimates[0]), float("nan")
    between = estimates.var(ddof=1) / groups
    covariance = np.cov(resampled, rowvar=False)
    shared = max(0.0, (covariance.sum() - np.trace(covariance)) / (groups * (groups - 1)))
    if between == 0:
        return float(estimates.mean()), float(Z_95 * np.sqrt(shared))
    freedom = (groups - 1) * ((between + shared) / between) ** 2
    return float(estimates.mean()), float(stdtrit(freedom, 0.975) * np.sqrt(between + shared))


def holm(p_values: np.ndarray) -> np.ndarray:
    """Adjusted p values [test]; rejecting those up to alpha keeps the family-wise error at alpha.

    Holm (1979): the i-th smallest of m is multiplied by m - i + 1, then made non-decreasing.
    """
    p_values = np.asarray(p_values, float)
    require_axes("p_values", p_values, "test")
    order = np.argsort(p_values)
    scaled = p_values[order] * np.arange(p_values.size, 0, -1)
    adjusted = np.empty_like(p_values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted
