"""Persona fidelity without a judge, from likelihoods under a frozen reference model.

Axes: R response, C candidate persona (column 0 the response's own), T token.

The unit of every interval is a cluster of responses, because answers of one persona, or to one
question, are alike. `cluster` [R] labels them: by persona where the personas are many and stand for
others (PersonaGym), by question where a fixed set of personas all answer the same questions. Shares
and gains have the linearised variance over clusters and Student's t. Where clusters are many, the
bootstrap over clusters agrees with that; where they are few, it is too narrow.
"""

import numpy as np
from scipy.special import stdtrit

from permix_jax.core.randomness import generator
from permix_jax.stats.statistics import (
    bootstrap_weights,
    percentile_interval,
    quotient,
    require_axes,
    wilson_limits,
)


def draw_candidates(own: np.ndarray, personas: int, k: int, seed: int) -> np.ndarray:
    """Which personas each response is scored under, int [R, k]: its own first, then k - 1 others.

    Row r is a pure function of (seed, r, own[r]): it does not depend on the other responses.

    Args:
      own: [R] index of each response's persona, below `personas`.
      k: candidates, 2 to `personas`.
    """
    own = np.asarray(own)
    require_axes("own", own, "response")
    if not 2 <= k <= personas:
        raise ValueError(f"k is {k}: choose 2 to {personas} candidates, the number of personas")
    if not ((own >= 0) & (own < personas)).all():
        raise ValueError(f"own must be in 0..{personas - 1}, got {own.min()}..{own.max()}")
    rows = []
    for index, persona in enumerate(own):
        others = generator(seed, "identification", index).permutation(personas - 1)[: k - 1]
        rows.append([persona, *(others + (others >= persona))])
    return np.array(rows)


def identified(logp: np.ndarray) -> np.ndarray:
    """Whether each response is most likely under its own persona, [R, C] -> [R], column 0 own.

    1 or 0, and 1 / t where t candidates share the greatest likelihood. If responses had nothing to
    do with their personas, the mean would be 1 / C.
    """
    _check_logp(logp)
    greatest = logp == logp.max(axis=1, keepdims=True)
    return greatest[:, 0] / greatest.sum(axis=1)


def identification(logp: np.ndarray, cluster: np.ndarray) -> dict:
    """The `share` of responses identified, with `share_ci95` (Wilson's), `chance` and `n`.

    Args:
      logp: [R, C] log p(y_r | candidate c, x_r), summed over the tokens; column 0 is the own.
      cluster: [R] labels, at least two different ones.
    """
    hits = identified(logp)
    share, variance, clusters = _cluster_ratio(hits, np.ones(len(hits)), cluster)
    one = (np.array([share]), np.array([variance]), clusters, np.array([len(hits)]))
    limits = wilson_limits(*one, float(stdtrit(clusters - 1, 0.975)))
    interval, chance = [float(limit[0]) for limit in limits], 1 / logp.shape[1]
    return {"share": share, "share_ci95": interval, "chance": chance, "n": len(hits)}


def gain_per_token(
    logp: np.ndarray, plain: np.ndarray, lengths: np.ndarray, cluster: np.ndarray
) -> dict:
    """How much the own persona raises the log-likelihood of a response, in nats a token.

    `gain` is sum_r (log p(y_r | own, x_r) - log p(y_r | x_r)) / sum_r lengths_r. It has no chance
    level: it is negative for responses drawn from the plain prompt. `margin` is the same against
    the mean of the other candidates, and 0 by chance. Both have `_ci95`.

    Args:
      logp: [R, C] as in `identification`, finite. plain: [R] log p(y_r | x_r).
      lengths: [R] number of tokens summed, at least 1.
      cluster: [R] labels, at least two different ones.
    """
    _check_logp(logp)
    plain, lengths = np.asarray(plain, float), np.asarray(lengths, float)
    for name, values in (("plain", plain), ("lengths", lengths)):
        if values.shape != (len(logp),):
            raise ValueError(f"{name} has shape {values.shape}: give [{len(logp)}], as logp")
    if not (np.isfinite(logp).all() and np.isfinite(plain).all() and (lengths >= 1).all()):
        raise ValueError("logp and plain must be finite, lengths at least 1: leave out others")
    result = {"n": len(logp), "tokens": int(lengths.sum())}
    for name, other in (("gain", plain), ("margin", logp[:, 1:].mean(axis=1))):
        gain = logp[:, 0] - other
        value, variance, clusters = _cluster_ratio(gain, lengths, cluster)
        half = float(stdtrit(clusters - 1, 0.975) * np.sqrt(variance))
        result[name], result[f"{name}_ci95"] = value, [value - half, value + half]
    return result


def agreement(
    score: np.ndarray,
    in_style: np.ndarray,
    cluster: np.ndarray,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> dict:
    """How well a judge-free score of each response agrees with an exact rule's verdict.

    `auc`: the probability that a response in style scores higher than one that is not, ties
    counting half (Mann and Whitney), chance 0.5. `correlation`: point-biserial, chance 0. Both have
    `_ci95`, percentiles of the bootstrap over clusters, too narrow with fewer than about 20.

    Args:
      score: [R], such as the gain per token of each response. in_style: bool [R]. cluster: [R].

    Raises:
      ValueError: shapes or dtypes that do not fit, NaN, or verdicts that are all alike.
    """
    score, in_style = np.asarray(score, float), np.asarray(in_style)
    require_axes("score", score, "response")
    if in_style.shape != score.shape or in_style.dtype != bool or np.isnan(score).any():
        raise ValueError(
            f"score {score.shape} must be without NaN and in_style {in_style.shape} "
            f"{in_style.dtype} bool of the same shape"
        )
    from scipy.stats import pointbiserialr  # a second, which only an evaluation needs

    if in_style.all() or not in_style.any():
        raise ValueError("in_style is the same for all responses: there is nothing to tell apart")
    index, clusters = _cluster_index(cluster, len(score))
    weights = bootstrap_weights(clusters, resamples, rng)[:, index]  # draws clusters whole
    correlation, limits = 0.0, [0.0, 0.0]
    if np.ptp(score) > 0:
        correlation = float(pointbiserialr(in_style, score).statistic)
        limits = percentile_interval(_weighted_correlation(score, in_style, weights))
    return {
        "auc": float(_weighted_auc(score, in_style, np.ones((1, len(score))))[0]),
        "auc_ci95": percentile_interval(_weighted_auc(score, in_style, weights)),
        "correlation": correlation,
        "correlation_ci95": limits,
        "n": len(score),
    }


def _check_logp(logp: np.ndarray) -> None:
    require_axes("logp", logp, "response", "candidate")
    if logp.shape[1] < 2 or np.isnan(logp).any():
        raise ValueError(
            f"logp {logp.shape} must have two candidates or more and no NaN: leave out responses "
            "that could not be scored"
        )


def _cluster_ratio(
    above: np.ndarray, below: np.ndarray, cluster: np.ndarray
) -> tuple[float, float, int]:
    """sum(above) / sum(below), its linearised variance over clusters, and their number."""
    index, clusters = _cluster_index(cluster, len(above))
    ratio = above.sum() / below.sum()
    influence = np.bincount(index, above - ratio * below) / below.sum()
    return float(ratio), float((influence**2).sum() * clusters / (clusters - 1)), clusters


def _cluster_index(cluster: np.ndarray, responses: int) -> tuple[np.ndarray, int]:
    labels, index = np.unique(np.asarray(cluster), return_inverse=True)
    if index.shape != (responses,) or len(labels) < 2:
        raise ValueError(
            f"cluster has shape {index.shape} and {len(labels)} different labels: give one label "
            f"for each of {responses} responses, at least two different ones"
        )
    return index, len(labels)


def _weighted_auc(score: np.ndarray, positive: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """AUC under weights [resample, R] -> [resample]; NaN where one class has none."""
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf) > 0)
    up = np.add.reduceat(np.where(positive, weights, 0.0)[:, order], starts, axis=1)
    down = np.add.reduceat(np.where(positive, 0.0, weights)[:, order], starts, axis=1)
    below = np.cumsum(down, axis=1) - down / 2  # ties count half
    return quotient((up * below).sum(axis=1), up.sum(axis=1) * down.sum(axis=1))


def _weighted_correlation(x: np.ndarray, y: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's under weights [resample, R] -> [resample]; NaN where one is constant."""
    share = weights / weights.sum(axis=1, keepdims=True)
    x, y = x - x.mean(), y - y.mean()  # against cancellation
    mean_x, mean_y = share @ x, share @ y
    covariance = share @ (x * y) - mean_x * mean_y
    variances = (share @ x**2 - mean_x**2) * (share @ y**2 - mean_y**2)
    root = np.sqrt(np.maximum(variances, 0))
    return np.divide(covariance, root, out=np.full_like(root, np.nan), where=root > 1e-12)
