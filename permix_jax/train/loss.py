"""The batch that goes from rollout to update, and the GRPO loss: pure functions of log-probs.

Every token has a weight that already holds the division by the global denominator, so the loss
of a batch is the plain sum of the losses of its parts: it cannot change with micro-batching or
sharding.
"""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from permix_jax.rollout.sampler import Completions

_MAX_LOG_RATIO = 20.0  # far beyond any clip; keeps exp, and so the gradient, finite


class RolloutBatch(NamedTuple):
    """N rollouts of U distinct prompts on the host: rollout n answers prompt n // (N / U).

    U is the number of problems where they have one persona each, and N where each rollout has a
    persona of its own.

    prompts: tokens and mask [U, P], right-padded. completions: [N, T], as they were sampled.
    problem: int32 [N], which problem of the step.
    persona: int32 [N], index into the personas of the run, -1 for none.
    rewards: f32 [N], NaN where the verifier could not tell; the loss leaves such rollouts out.
    advantages: f32 [N]. It and the rewards are None until the rollouts are graded.
    """

    prompts: tuple[np.ndarray, np.ndarray]
    completions: Completions
    problem: np.ndarray
    persona: np.ndarray
    rewards: np.ndarray | None = None
    advantages: np.ndarray | None = None


@dataclass(frozen=True)
class LossConfig:
    """The fields `grpo.*` that the loss depends on (docs/config.md), and rollout.max_new_tokens."""

    aggregation: str
    clip_low: float
    clip_high: float
    kl_weight: float
    kl_estimator: str
    mask_truncated: bool
    max_new_tokens: int
    importance_cap: float


def token_weights(batch: RolloutBatch, config: LossConfig) -> np.ndarray:
    """Weights f32 [N, T] with which token losses are summed.

      grpo     mean over rollouts of the mean over their tokens   (arXiv 2402.03300)
      dapo     mean over all tokens of the batch                  (arXiv 2503.14476)
      dr_grpo  sum over tokens / (rollouts * max_new_tokens)      (arXiv 2503.20783)

    Rollouts that count are those with a reward, and with `mask_truncated` only those that ended.
    """
    mask = np.float32(kept_tokens(batch, config))
    lengths = mask.sum(axis=1, keepdims=True)
    rollouts = np.float32(max((lengths > 0).sum(), 1))
    if config.aggregation == "grpo":
        return mask / np.maximum(lengths, 1) / rollouts
    if config.aggregation == "dapo":
        return mask / np.maximum(mask.sum(), 1)
    return mask / (rollouts * config.max_new_tokens)


def kept_tokens(batch: RolloutBatch, config: LossConfig) -> np.ndarray:
    """Bool [N, T]: the tokens that the loss sees.

    It sees none of a rollout without a reward (NaN): the KL would still move the policy on it, and
    it would count in the denominators.
    """
    live = ~np.isnan(batch.rewards)
    if config.mask_truncated:
        live &= ~batch.completions.truncated
    return batch.completions.mask & live[:, None]


class LossTokens(NamedTuple):
    """What the loss knows of each token, f32 arrays of one shape.

    behaviour: log-probs as sampled.
    advantages: of the token's rollout.
    weights: the token's losses are summed with them.
    shares: its metrics are summed with them: 1 / kept tokens of the whole batch, or 0 for a token
      that the loss leaves out.
    reference: log-probs under the frozen reference; None without a KL.
    trainer: log-probs, scored by the trainer, of the policy that the step began with. None: the
      policy being updated is that policy.
    """

    behaviour: jax.Array
    advantages: jax.Array
    weights: jax.Array
    shares: jax.Array
    reference: jax.Array | None = None
    trainer: jax.Array | None = None


def loss_tokens(batch: RolloutBatch, config: LossConfig) -> LossTokens:
    """The tokens of a batch, NumPy arrays [N, T], without what a model has to score."""
    kept = kept_tokens(batch, config)
    advantages = np.broadcast_to(np.float32(batch.advantages)[:, None], kept.shape)
    # Metrics are means over the tokens that the loss sees, however the loss weighs them.
    shares = np.float32(kept) / np.float32(max(kept.sum(), 1))
    weights = token_weights(batch, config)
    return LossTokens(batch.completions.logprobs, advantages, weights, shares)


def token_losses(
    logprobs: jax.Array, tokens: LossTokens, config: LossConfig
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss and metrics of each token, f32, from its log-prob under the policy being updated.

    -min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A) + kl_weight * kl, with ratio =
    pi / pi_behaviour per token (clip-higher: arXiv 2503.14476, eq. 8).

    Sampler and trainer give the same policy other log-probs where they round differently, as in
    bf16. With `importance_cap` the ratio is to the trainer's own log-probs of that policy, and the
    first term is multiplied by min(pi_trainer / pi_behaviour, importance_cap), without gradient:
    truncated importance sampling (Ionides 2008, "Truncated Importance Sampling", J. Comput. Graph.
    Stat. 17(2); for samplers of RL: Yao et al. 2025, "Your Efficient RL Framework Secretly
    Brings You Off-Policy RL Training").

    The values of tokens that the loss leaves out are arbitrary.
    """

    # A token that is left out must not overflow: 0 times an infinite ratio is a NaN gradient.
    def masked(x):
        return jnp.where(tokens.shares > 0, x, 0.0)

    trainer = jax.lax.stop_gradient(logprobs) if tokens.trainer is None else tokens.trainer
    off_policy, advantages = masked(trainer - tokens.behaviour), tokens.advantages
    ratio = _exp(masked(logprobs - (trainer if config.importance_cap else tokens.behaviour)))
    clipped = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
    losses = -jnp.minimum(ratio * advantages, clipped * advantages)
    metrics = {
        "clip_ratio/low_mean": (ratio < 1 - config.clip_low) & (advantages < 0),
        "clip_ratio/high_mean": (ratio > 1 + config.clip_high) & (advantages > 0),
        "sampling/logp_difference": jnp.abs(off_policy),
        "sampling/logp_difference_max": jnp.abs(off_policy),
    }
    if config.importance_cap:
        importance = jnp.minimum(_exp(off_policy), config.importance_cap)
        losses *= importance
        metrics["sampling/importance"] = importance
    if config.kl_weight:
        kl = kl_term(masked(logprobs), masked(tokens.reference), config.kl_estimator)
        losses += config.kl_weight * kl
        metrics["kl"] = kl_term(masked(logprobs), masked(tokens.reference), "k3")
    return losses, metrics


def _exp(log_ratio: jax.Array) -> jax.Array:
    return jnp.exp(jnp.clip(log_ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO))


def kl_term(logprobs: jax.Array, reference: jax.Array, estimator: str) -> jax.Array:
    """Per-token KL loss, named with the divergence that its gradient descends on-policy.

    With d = log pi - log pi_ref at tokens y ~ pi (Schulman 2020, "Approximating KL divergence";
    gradients: Tang and Munos 2025, arXiv 2506.09477):

      k2 = d^2 / 2            gradient E[d grad log pi]              = grad KL(pi || pi_ref)
      k3 = exp(-d) - 1 + d    gradient E[(1 - pi_ref/pi) grad log pi] = grad KL(pi_ref || pi)

    (k1 = d has gradient E[grad log pi] = 0 and is refused by the config.) As a value, k3 is an
    unbiased, never negative estimate of KL(pi || pi_ref), and so is the one that is logged.
    """
    difference = logprobs - reference
    if estimator == "k2":
        return difference**2 / 2
    return jnp.exp(jnp.minimum(-difference, _MAX_LOG_RATIO)) - 1 + difference
