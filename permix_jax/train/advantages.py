"""Group-relative advantages (Shao et al. 2024, arXiv 2402.03300, eq. 3 and its variants)."""

from collections.abc import Callable, Sequence

import numpy as np

_EPSILON = 1e-4  # keeps a group of nearly equal rewards from being blown up


def group_ids(kind: str, problem: np.ndarray, persona: np.ndarray) -> np.ndarray:
    """Int [N] ids of the groups that share a baseline.

    "problem": all rollouts of a problem, across personas: a persona that does badly on it is
    told so. "problem_persona": those under the same persona (-1: none) alone.
    """
    if kind == "problem":
        return problem
    return np.unique(np.stack([problem, persona]), axis=1, return_inverse=True)[1].reshape(-1)


def group_advantages(
    rewards: np.ndarray, groups: np.ndarray, scale: str, baseline: str = "group_mean"
) -> np.ndarray:
    """Advantages f32 [N]: reward less the baseline of its group, scaled.

    scale "group" divides by the group's standard deviation (GRPO), "batch" by that of all
    rewards, "none" by nothing (Dr. GRPO, arXiv 2503.20783). Population standard deviations.
    A NaN reward (the verifier could not tell) has advantage 0 and takes no part in any mean.
    Equal rewards have the advantage 0, exactly.

    baseline "group_mean" includes the rollout itself, as in GRPO: with scale "none" the expected
    gradient is (1 - 1/G) times the policy gradient, so with KL of weight beta a group of G
    converges to pi_ref exp((1 - 1/G) r / beta) / Z. baseline "leave_one_out" is the mean of the
    others (RLOO: Ahmadian et al. 2024, arXiv 2402.14740), and the gradient is unbiased; a rollout
    without others has the advantage 0.
    """
    known = ~np.isnan(rewards)
    _, index = np.unique(groups, return_inverse=True)
    counts = np.maximum(np.bincount(index, known), 1)
    # From a reward of the group, so that equal rewards differ by 0 in any precision.
    shifted = np.where(known, rewards - _one_of_each(rewards, index)[index], 0.0)
    centred = np.where(known, shifted - (np.bincount(index, shifted) / counts)[index], 0.0)
    if baseline == "leave_one_out":
        centred *= (counts / np.maximum(counts - 1, 1))[index]
    if scale == "group":
        centred /= np.sqrt(np.bincount(index, centred**2) / counts)[index] + _EPSILON
    elif scale == "batch":
        centred /= (np.std(rewards[known]) if known.any() else 0.0) + _EPSILON
    return centred.astype(np.float32)


def _one_of_each(rewards: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Float [groups]: the largest known reward of each group, 0 where none is known."""
    largest = np.full(index.max(initial=0) + 1, -np.inf)
    np.maximum.at(largest, index, np.where(np.isnan(rewards), -np.inf, rewards))
    return np.where(np.isfinite(largest), largest, 0.0)


def summed_advantages(
    values: np.ndarray,
    weights: Sequence[float],
    advantages: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Advantages f32 [N] of several rewards, each normalised before they are summed.

    GDPO (Liu et al. 2026, arXiv 2601.05242): the advantages of each term, times its weight, are
    added, and the sum is divided by its standard deviation over the batch. (It has the mean 0
    already, for each group has.)

    Args:
      values: [N, K], of K terms; NaN where the verdict is unknown. A rollout with any NaN has the
        advantage 0, and no part in the others'.
      advantages: rewards f32 [N] -> advantages [N].
    """
    known = ~np.isnan(values).any(axis=1)
    terms = np.float32(np.where(known[:, None], values, np.nan)).T
    columns = [np.asarray(advantages(term), float) for term in terms]
    total = sum(w * column for w, column in zip(weights, columns, strict=True))
    return np.float32(total / (np.std(total[known]) + _EPSILON if known.any() else 1.0))


def share_without_spread(rewards: np.ndarray, groups: np.ndarray) -> float:
    """The share of groups whose rewards (none NaN) are all equal, and which so teach nothing."""
    return float(np.mean([np.ptp(rewards[groups == g]) == 0 for g in np.unique(groups)]))
