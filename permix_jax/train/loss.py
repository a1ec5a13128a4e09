"""The losses of tokens, pure functions of their log-probs: `batch.py` has how they are weighed."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_MAX_LOG_RATIO = 20.0  # far beyond any clip; keeps exp, and so the gradient, finite

# In place of a reference log-prob: the policy being updated still is the reference.
SAME_AS_POLICY = np.float32(np.inf)


@dataclass(frozen=True)
class LossConfig:
    """The fields `grpo.*` that the loss depends on (docs/config.md), and rollout.max_new_tokens."""

    loss: str
    aggregation: str
    dead_groups: str
    clip_low: float
    clip_high: float
    dual_clip: float
    importance: str
    importance_cap: float
    kl_weight: float
    kl_estimator: str
    kl_in: str
    entropy_weight: float
    mask_truncated: bool
    max_new_tokens: int

    @property
    def of_completions(self) -> bool:
        """Whether a token's loss depends on ratios of its whole completion."""
        by_sequence = self.importance_cap and self.importance == "sequence"
        return bool(self.loss == "gspo" or by_sequence)


class LossTokens(NamedTuple):
    """What the loss knows of each token, arrays of one shape, f32 but for `rollout`.

    behaviour: log-probs as sampled.
    advantages: of the token's rollout.
    weights: the token's losses are summed with them.
    shares: its metrics are summed with them: 1 / kept tokens of the whole batch, or 0 for a token
      that the loss leaves out.
    rollout: int32, which rollout the token is of; None where no ratio is of a whole completion.
    reference: log-probs under the reference, or SAME_AS_POLICY; None without a KL.
    trainer: log-probs, scored by the trainer, of the policy that the step began with. None: the
      policy being updated is that policy.
    mean_log_ratio, log_importance: of the token's completion; see `with_completions`.
    """

    behaviour: jax.Array
    advantages: jax.Array
    weights: jax.Array
    shares: jax.Array
    rollout: jax.Array | None = None
    reference: jax.Array | None = None
    trainer: jax.Array | None = None
    mean_log_ratio: jax.Array | None = None
    log_importance: jax.Array | None = None


def with_completions(logprobs: jax.Array, tokens: LossTokens, config: LossConfig) -> LossTokens:
    """`tokens` with the ratios of whole completions, without gradient; the same if none is needed.

    mean_log_ratio: the mean over a completion's tokens of log pi - log pi_old, the logarithm of
      GSPO's sequence ratio (arXiv 2507.18071, eq. 7).
    log_importance: the sum over a completion's tokens of log pi_trainer - log pi_behaviour.

    Args:
      logprobs: f32 [R, L], under the policy being updated. A completion's tokens stand side by side
        in one row.
    """
    if not config.of_completions:
        return tokens
    trainer, old = _compared_with(logprobs, tokens, config)
    kept = tokens.shares > 0

    def sums(values, rollout):
        changes = jnp.concatenate([jnp.zeros(1, bool), rollout[1:] != rollout[:-1]])
        index = jnp.cumsum(changes)
        totals = jax.ops.segment_sum(values, index, len(index), indices_are_sorted=True)
        return totals[index]

    def of_completion(values):
        return jax.vmap(sums)(jnp.where(kept, values, 0), tokens.rollout)

    mean = of_completion(logprobs - old) / jnp.maximum(of_completion(jnp.ones_like(logprobs)), 1)
    both = jax.lax.stop_gradient((mean, of_completion(trainer - tokens.behaviour)))
    return tokens._replace(mean_log_ratio=both[0], log_importance=both[1])


def _compared_with(
    logprobs: jax.Array, tokens: LossTokens, config: LossConfig
) -> tuple[jax.Array, jax.Array]:
    """(log-probs by the trainer under the step's first policy, those that the ratio is to)."""
    trainer = jax.lax.stop_gradient(logprobs) if tokens.trainer is None else tokens.trainer
    return trainer, trainer if config.importance_cap else tokens.behaviour


def token_losses(
    logprobs: jax.Array, tokens: LossTokens, config: LossConfig
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Loss and metrics of each token, f32, from its log-prob under the policy being updated.

    With ratio = pi / pi_old and clipped = clip(ratio, 1 - clip_low, 1 + clip_high), the loss is
    kl_weight * kl, plus importance times:

      ppo        -min(ratio A, clipped A)             (clip-higher: arXiv 2503.14476, eq. 8)
      gspo       the same, with the ratio of the whole completion, exp(mean log ratio), in the form
                 whose gradient goes through each token   (arXiv 2507.18071, eq. 5, 7 and 13)
      cispo      -min(ratio, 1 + clip_high) A log pi; no gradient in the ratio  (arXiv 2506.13585)
      reinforce  -A log pi

    With dual_clip = c the loss of ppo and gspo is at most -c A where A < 0 (arXiv 1912.09729).

    Sampler and trainer give the same policy other log-probs where they round differently, as in
    bf16. Without `importance_cap`, pi_old is the policy as sampled, and importance is 1. With it,
    pi_old is the policy as the trainer scores it, and r = pi_trainer / pi_behaviour gives, without
    gradient, the importance:

      token      min(r, cap): truncated importance sampling (Ionides 2008, J. Comput. Graph. Stat.
                 17(2); Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You
                 Off-Policy RL Training")
      sequence   the same with the product of r over the completion
      mask       r where 1 / cap <= r <= cap, else 0 (IcePop: Ling Team 2025, arXiv 2510.18855)

    The values of tokens that the loss leaves out are arbitrary.
    """

    # A token that is left out must not overflow: 0 times an infinite ratio is a NaN gradient.
    def masked(x):
        return jnp.where(tokens.shares > 0, x, 0.0)

    trainer, old = _compared_with(logprobs, tokens, config)
    logprobs, off_policy = masked(logprobs), masked(trainer - tokens.behaviour)
    advantages = tokens.advantages
    token_ratio = ratio = _exp(masked(logprobs - old))
    if config.loss == "gspo":
        through_token = logprobs - jax.lax.stop_gradient(logprobs)
        ratio = _exp(masked(tokens.mean_log_ratio) + through_token)
    losses = _policy_losses(logprobs, ratio, advantages, config)
    metrics = {
        # CISPO has no lower bound, REINFORCE none.
        "clip_ratio/low_mean": (ratio < 1 - config.clip_low)
        & (advantages < 0)
        & (config.loss in ("ppo", "gspo")),
        "clip_ratio/high_mean": (ratio > 1 + config.clip_high)
        & (advantages > 0)
        & (config.loss != "reinforce"),
        "sampling/logp_difference": jnp.abs(off_policy),
        "sampling/logp_difference_max": jnp.abs(off_policy),
    }
    if config.importance_cap:
        by_sequence = config.importance == "sequence"
        importance = _importance(
            masked(tokens.log_importance) if by_sequence else off_policy, config
        )
        losses *= importance
        metrics["sampling/importance"] = importance
    if config.kl_weight:
        reference = masked(tokens.reference)
        same = reference == SAME_AS_POLICY
        reference = jnp.where(same, jax.lax.stop_gradient(logprobs), reference)
        metrics["kl"] = kl_term(logprobs, reference, "k3")
        if config.kl_in == "loss":
            kl = kl_term(logprobs, reference, config.kl_estimator, token_ratio)
            losses += config.kl_weight * kl
    return losses, metrics


def entropy_factors(tokens: LossTokens, config: LossConfig) -> jax.Array:
    """What each token's entropy is multiplied with in the loss: a bonus of `entropy_weight`."""
    return -config.entropy_weight * tokens.weights


def _policy_losses(
    logprobs: jax.Array, ratio: jax.Array, advantages: jax.Array, config: LossConfig
) -> jax.Array:
    if config.loss == "reinforce":
        return -advantages * logprobs
    if config.loss == "cispo":
        weight = jax.lax.stop_gradient(jnp.minimum(ratio, 1 + config.clip_high))
        return -weight * advantages * logprobs
    clipped = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
    gain = jnp.minimum(ratio * advantages, clipped * advantages)
    if config.dual_clip:
        gain = jnp.where(advantages < 0, jnp.maximum(gain, config.dual_clip * advantages), gain)
    return -gain


def _importance(log_ratio: jax.Array, config: LossConfig) -> jax.Array:
    ratio, cap = _exp(log_ratio), config.importance_cap
    if config.importance == "mask":
        ratio = jnp.where((ratio >= 1 / cap) & (ratio <= cap), ratio, 0)
    return jnp.minimum(ratio, cap)


def _exp(log_ratio: jax.Array) -> jax.Array:
    return jnp.exp(jnp.clip(log_ratio, -_MAX_LOG_RATIO, _MAX_LOG_RATIO))


def kl_term(
    logprobs: jax.Array, reference: jax.Array, estimator: str, ratio: jax.Array | float = 1.0
) -> jax.Array:
    """Per-token KL loss, named with the divergence that its gradient descends on-policy.

    With d = log pi - log pi_ref at tokens y ~ pi (Schulman 2020, "Approximating KL divergence";
    gradients: Tang and Munos 2025, arXiv 2506.09477):

      k2 = d^2 / 2            gradient E[d grad log pi]              = grad KL(pi || pi_ref)
      k3 = exp(-d) - 1 + d    gradient E[(1 - pi_ref/pi) grad log pi] = grad KL(pi_ref || pi)
      k3_ratio = ratio * k3   gradient of E_old[pi / pi_old k3]       = grad KL(pi || pi_ref)

    k3_ratio is exact off-policy, too (TRL's use_bias_correction_kl). k1 = d has the gradient
    E[grad log pi] = 0 and is refused by the config. As a value, k3 is an unbiased, never negative
    estimate of KL(pi || pi_ref), and so is the one that is logged.
    """
    difference = logprobs - reference
    if estimator == "k2":
        return difference**2 / 2
    k3 = jnp.exp(jnp.minimum(-difference, _MAX_LOG_RATIO)) - 1 + difference
    return ratio * k3 if estimator == "k3_ratio" else k3
