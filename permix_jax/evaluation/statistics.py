"""Intervals: the paired bootstrap over problems, and Student's t over seeds.

Axes: R resample, G group (persona), I item (problem or prompt), S sample.
"""

from collections.abc import Sequence

import numpy as np
from scipy.special import stdtrit


def require_axes(name: str, values: np.ndarray, *axes: str) -> None:
    """Raises ValueError unless `values` has these axes and at least one entry on each."""
    if values.ndim != len(axes) or 0 in values.shape:
        raise ValueError(
            f"{name} has shape {values.shape}: give a non-empty array [{', '.join(axes)}]"
        )


def bootstrap_weights(items: int, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """How often each resample drew each item, float [R, I]; every row sums to `items`.

    Drawing the indices with replacement and counting them is a multinomial draw. The same
    weights for every persona and for the plain prompt make the bootstrap paired: the problems
    that are hard for one persona are mostly hard for the next, and that part cancels.
    """
    return rng.multinomial(items, np.full(items, 1 / items), size=resamples).astype(float)


def pooled_means(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted means over items and samples: values [G, I, S], weights [R, I] -> [R, G].

    NaN values count neither above nor below the line; a mean of none is NaN.
    """
    present = ~np.isnan(values)
    totals = weights @ np.where(present, values, 0.0).sum(axis=-1).T
    counts = weights @ present.sum(axis=-1).T
    return np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)


def percentile_interval(resampled: np.ndarray) -> list[float]:
    """The 95 % percentile interval [low, high] of a statistic's resamples [R].

    Resamples in which the statistic is NaN are left out; raises ValueError if none is left.
    """
    defined = resampled[~np.isnan(resampled)]
    if not defined.size:
        raise ValueError("no bootstrap resample is scorable: evaluate on more problems")
    return np.percentile(defined, [2.5, 97.5]).tolist()


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and the half-width of its 95 % Student-t interval, NaN for one seed."""
    values = np.asarray(values, float)
    require_axes("values", values, "seed")
    if values.size == 1:
        return float(values[0]), float("nan")
    standard_error = values.std(ddof=1) / np.sqrt(values.size)
    return float(values.mean()), float(stdtrit(values.size - 1, 0.975) * standard_error)
