"""Group-relative advantages (Shao et al. 2024, arXiv 2402.03300, eq. 3 and its variants)."""

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


def group_advantages(rewards: np.ndarray, groups: np.ndarray, scale: str) -> np.ndarray:
    """Advantages f32 [N]: reward less the mean of its group, scaled.

    scale "group" divides by the group's standard deviation (GRPO), "batch" by that of all
    rewards, "none" by nothing (Dr. GRPO, arXiv 2503.20783). Population standard deviations.
    A NaN reward (the verifier could not tell) has advantage 0 and takes no part in any mean.

    The mean includes the rollout itself, as in GRPO: with scale "none" the expected gradient is
    (1 - 1/G) times the policy gradient, so with KL of weight beta a group of G converges to
    pi_ref exp((1 - 1/G) r / beta) / Z.
    """
    known = ~np.isnan(rewards)
    _, index = np.unique(groups, return_inverse=True)
    counts = np.maximum(np.bincount(index, known), 1)
    values = np.where(known, rewards, 0.0)
    centred = np.where(known, values - (np.bincount(index, values) / counts)[index], 0.0)
    if scale == "group":
        centred /= np.sqrt(np.bincount(index, centred**2) / counts)[index] + _EPSILON
    elif scale == "batch":
        centred /= (np.std(rewards[known]) if known.any() else 0.0) + _EPSILON
    return centred.astype(np.float32)


def share_without_spread(rewards: np.ndarray, groups: np.ndarray) -> float:
    """The share of groups whose rewards (none NaN) are all equal, and which so teach nothing."""
    return float(np.mean([np.ptp(rewards[groups == g]) == 0 for g in np.unique(groups)]))
