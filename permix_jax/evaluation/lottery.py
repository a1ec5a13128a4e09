"""The persona lottery: what accuracy to expect of the best, or worst, of k personas drawn."""

import numpy as np


def expected_best(accuracy: np.ndarray) -> np.ndarray:
    """Expected best of k personas drawn without replacement, [..., n] -> [..., n] for k = 1..n.

    With a_(1) <= ... <= a_(n), a_(i) is the best of C(i - 1, k - 1) of the C(n, k) subsets, so
    the expectation is sum_i a_(i) C(i - 1, k - 1) / C(n, k) (the order statistics of sampling
    without replacement). k = 1 gives the mean, k = n the best.

    The best is meant by the accuracies given. Measured on few problems they are noisy, and the
    best of noisy estimates lies above what the persona chosen would get on new problems.
    """
    return np.sort(np.asarray(accuracy, float), axis=-1) @ _weights(np.shape(accuracy)[-1]).T


def expected_worst(accuracy: np.ndarray) -> np.ndarray:
    """Expected worst of k, likewise; it falls from the mean to the worst."""
    return 0.0 - expected_best(-np.asarray(accuracy, float))  # 0.0 - x: no negative zeros


def _weights(n: int) -> np.ndarray:
    """C(i - 1, k - 1) / C(n, k) as [k, i], both from 1.

    From i = n down: the last is k / n, and each is the next times (i - k) / (i - 1). Products of
    numbers below 1 cannot overflow, whatever n is, and one that underflows is too small to count.
    """
    k = np.arange(1, n + 1)[:, None]
    later = np.arange(n, 1, -1)  # weight of later - 1 over weight of later
    ratios = np.maximum(later - k, 0) / np.maximum(later - 1, 1)
    falling = np.cumprod(np.concatenate([k / n, ratios], axis=1), axis=1)
    return falling[:, ::-1]
