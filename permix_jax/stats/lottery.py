"""The persona lottery: what accuracy to expect of the best, or worst, of k personas drawn."""

import numpy as np
from scipy.special import ndtri

from permix_jax.stats.statistics import gather_means


def lottery(correct: np.ndarray) -> dict:
    """Expected best and worst accuracy of k = 1..n personas, with bands for all k at once.

    Both grow with each of the accuracies. So their bands are those of Wilson limits that hold for
    all personas at once (Bonferroni: each at 1 - 0.05 / n). They cover in 95 % of cases or more,
    and are wide where the personas' errors would cancel, as in the mean at k = 1.

    Args:
      correct: [persona, problem, sample], 1 right, 0 wrong, NaN unscorable.

    Returns:
      Lists over k: `k`, `expected_best`, `expected_worst` and each with `_ci95`.
    """
    means, n = gather_means(correct), len(correct)
    limits = np.stack(means.wilson(float(ndtri(1 - 0.025 / n))))
    result: dict = {"k": list(range(1, n + 1))}
    for expected in (expected_best, expected_worst):
        result[expected.__name__] = expected(means.estimate).tolist()
        result[f"{expected.__name__}_ci95"] = expected(limits).T.tolist()
    return result


def expected_best(accuracy: np.ndarray) -> np.ndarray:
    """Expected best of k personas drawn without replacement, [..., n] -> [..., n] for k = 1..n.

    With a_(1) <= ... <= a_(n), a_(i) is the best of C(i - 1, k - 1) of the C(n, k) subsets, so the
    expectation is sum_i a_(i) C(i - 1, k - 1) / C(n, k). On few problems the accuracies are noisy,
    and the best of them is more than that persona would reach on new problems.
    """
    return np.sort(np.asarray(accuracy, float), axis=-1) @ _weights(np.shape(accuracy)[-1]).T


def expected_worst(accuracy: np.ndarray) -> np.ndarray:
    """Expected worst of k personas; it falls from the mean to the worst."""
    return 0.0 - expected_best(-np.asarray(accuracy, float))  # 0.0 - x: no negative zeros


def _weights(n: int) -> np.ndarray:
    """C(i - 1, k - 1) / C(n, k) as [k, i], both from 1.

    The last is k / n, and that of i - 1 is that of i times (i - k) / (i - 1). Products of numbers
    below 1 do not overflow.
    """
    k = np.arange(1, n + 1)[:, None]
    later = np.arange(n, 1, -1)  # weight of later - 1 over weight of later
    ratios = np.maximum(later - k, 0) / np.maximum(later - 1, 1)
    falling = np.cumprod(np.concatenate([k / n, ratios], axis=1), axis=1)
    return falling[:, ::-1]
