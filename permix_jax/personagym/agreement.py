"""Krippendorff's alpha: how far judges agree beyond chance.

Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011. Axes: U unit (what is rated),
J judge, V value, R resample.
"""

import numpy as np


def coincidences(ratings: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How often each pair of `values` [V] occurs in each unit, float [U, V, V].

    `ratings` is float [J, U], NaN where a judge gave none. A pair of judges counts
    1 / (judges of the unit - 1), so that a unit weighs as much as it has ratings.
    """
    counts = (ratings.T[:, :, None] == values).sum(axis=1).astype(float)  # [U, V]
    pairs = counts[:, :, None] * counts[:, None, :]
    diagonal = np.arange(len(values))
    pairs[:, diagonal, diagonal] -= counts
    judges = counts.sum(axis=1)
    return pairs / np.maximum(judges - 1, 1)[:, None, None]


def alpha(pairs: np.ndarray, values: np.ndarray, metric: str) -> np.ndarray:
    """Alpha of coincidences [..., V, V], summed over units, of `values` [V].

    It is 1 for full agreement, 0 for that of chance, negative for less than that, and NaN where no
    unit has two ratings or all ratings are equal. `metric` is the distance of two values: "nominal"
    (0 or 1), "ordinal" (by the ranks between them) or "interval" (their squared difference).
    """
    totals = pairs.sum(axis=-1)
    number = totals.sum(axis=-1)
    difference = _squared_differences(totals, values, metric)
    observed = (pairs * difference).sum(axis=(-2, -1))
    expected = (totals[..., :, None] * totals[..., None, :] * difference).sum(axis=(-2, -1))
    defined = expected > 0
    ratio = np.divide(
        (number - 1) * observed, expected, out=np.full(np.shape(expected), np.nan), where=defined
    )
    return 1 - ratio


def _squared_differences(totals: np.ndarray, values: np.ndarray, metric: str) -> np.ndarray:
    if metric == "nominal":
        return 1.0 - np.eye(len(values))
    if metric == "interval":
        return (values[:, None] - values) ** 2
    if metric == "ordinal":  # the number of ratings between the two, and half of their own
        middle = np.cumsum(totals, axis=-1) - totals / 2
        return (middle[..., :, None] - middle[..., None, :]) ** 2
    raise ValueError(f"metric is {metric!r}: use nominal, ordinal or interval")
