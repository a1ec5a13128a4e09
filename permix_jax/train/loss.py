"""The batch that goes from rollout to update, and its losses: pure functions of log-probs.

Every token has a weight that already holds the division by the global denominator, so the loss
of a batch is the plain sum of the losses of its parts: it cannot change with micro-batching or
sharding.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from permix_jax.rollout.sampler import Completions

_MAX_LOG_RATIO = 20.0  # far beyond any clip; keeps exp, and so the gradient, finite

# In place of a reference log-prob: the policy being updated still is the reference.
SAME_AS_POLICY = np.float32(np.inf)


class RolloutBatch(NamedTuple):
    """N rollouts of U distinct prompts on the host: rollout n answers prompt n // (N / U).

    U is the number of problems where they have one persona each, and N where each rollout has a
    persona of its own.

    prompts: tokens and mask [U, P], right-padded. completions: [N, T], as they were sampled.
    problem: int32 [N], which problem of the step.
    persona: int32 [N], index into the personas of the run, -1 for none.
    group: int [N], which rollouts share a baseline.
    rewards: f32 [N], NaN where the verifier could not tell; the loss leaves such rollouts out.
    advantages: f32 [N]. It and the rewards are None until the rollouts are graded.
    """

    prompts: tuple[np.ndarray, np.ndarray]
    completions: Completions
    problem: np.ndarray
    persona: np.ndarray
    group: np.ndarray
    rewards: np.ndarray | None = None
    advantages: np.ndarray | None = None


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


def token_weights(batch: RolloutBatch, config: LossConfig) -> np.ndarray:
    """Weights f32 [N, T] with which token losses are summed.

      grpo     mean over rollouts of the mean over their tokens   (arXiv 2402.03300)
      dapo     mean over all tokens of the batch                  (arXiv 2503.14476)
      bnpo     the same for one mini-batch (`mini_batch_weights`) (TRL's loss_type="bnpo")
      dr_grpo  sum over tokens / (rollouts * max_new_tokens)      (arXiv 2503.20783)

    The rollouts that count are those of `kept_tokens`.
    """
    mask = np.float32(kept_tokens(batch, config))
    lengths = mask.sum(axis=1, keepdims=True)
    rollouts = np.float32(max((lengths > 0).sum(), 1))
    if config.aggregation == "grpo":
        return mask / np.maximum(lengths, 1) / rollouts
    if config.aggregation == "dr_grpo":
        return mask / (rollouts * config.max_new_tokens)
    return mask / np.maximum(mask.sum(), 1)


def kept_tokens(batch: RolloutBatch, config: LossConfig) -> np.ndarray:
    """Bool [N, T]: the tokens that the loss sees.

    It sees none of a rollout without a reward (NaN): the KL would still move the policy on it, and
    it would count in the denominators. Nor does it see a rollout with faulty log-probs. With
    `mask_truncated` it sees none of a truncated rollout, with dead_groups = "drop" none of a group
    whose advantages are all 0.
    """
    seen = ~np.isnan(batch.rewards) & ~faulty_logprobs(batch.completions).any(axis=1)
    if config.mask_truncated:
        seen &= ~batch.completions.truncated
    if config.dead_groups == "drop":
        seen &= in_live_group(batch.advantages, batch.group)
    return batch.completions.mask & seen[:, None]


def faulty_logprobs(completions: Completions) -> np.ndarray:
    """Bool [N, T]: the tokens of completions whose log-prob, as sampled, cannot be one: it is NaN,
    infinite, or above 0. A ratio to it means nothing.

    0 is no fault. It is the log-prob, in f32, of a token whose probability rounds to 1, and a sure
    policy draws many such. Without them the loss would see the unsure rollouts alone. A sampler
    that gives 0 where it knows no log-prob shows in `sampling/logp_difference`.
    """
    possible = np.isfinite(completions.logprobs) & (completions.logprobs <= 0)
    return completions.mask & ~possible


def in_live_group(advantages: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Bool [N]: whether any rollout of the same group has an advantage other than 0."""
    _, index = np.unique(groups, return_inverse=True)
    return (np.bincount(index, advantages != 0) > 0)[index]


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


def of_problems(batch: RolloutBatch, problems: np.ndarray) -> tuple[RolloutBatch, np.ndarray]:
    """The rollouts of some problems of an ungraded step, as a batch, and their numbers in it."""
    total = batch.problem.max() + 1

    def numbers(rows: int) -> np.ndarray:
        each = rows // total
        return (problems[:, None] * each + np.arange(each)).ravel()

    rollouts, prompts = numbers(len(batch.problem)), numbers(len(batch.prompts[0]))
    of_rollouts = batch.problem, batch.persona, batch.group, batch.rewards, batch.advantages
    part = RolloutBatch(
        tuple(x[prompts] for x in batch.prompts),
        Completions(*(x[rollouts] for x in batch.completions)),
        *(x if x is None else x[rollouts] for x in of_rollouts),
    )
    return part, rollouts


def live_problems(batch: RolloutBatch) -> np.ndarray:
    """The numbers of the problems of a graded batch that any advantage other than 0 is of."""
    return np.unique(batch.problem[batch.advantages != 0])


def filled(batches: Sequence[RolloutBatch], problems: int) -> RolloutBatch:
    """A batch of so many problems out of several graded ones: first those that live, then others.

    Both are taken in the order of the batches, and keep their order in the result.
    """
    live = [live_problems(batch) for batch in batches]
    dead = [np.setdiff1d(batch.problem, own) for batch, own in zip(batches, live, strict=True)]
    parts, left = [], problems
    for batch, chosen in [*zip(batches, live, strict=True), *zip(batches, dead, strict=True)]:
        if left and len(chosen):
            parts.append(of_problems(batch, chosen[:left])[0])
            left -= len(chosen[:left])
    width = max(part.prompts[0].shape[1] for part in parts)
    prompts = [tuple(_widened(x, width) for x in part.prompts) for part in parts]
    groups = [np.unique(part.group, return_inverse=True)[1] for part in parts]
    before = np.cumsum([0, *(group.max() + 1 for group in groups)])
    group = np.concatenate([own + first for own, first in zip(groups, before, strict=False)])
    each = len(group) // problems
    whole = [part._replace(prompts=own) for part, own in zip(parts, prompts, strict=True)]
    joined = jax.tree.map(lambda *x: np.concatenate(x), *whole)
    problem = np.repeat(np.arange(problems, dtype=np.int32), each)
    return joined._replace(problem=problem, group=group)


def _widened(x: np.ndarray, width: int) -> np.ndarray:
    return np.pad(x, ((0, 0), (0, width - x.shape[1])))


def loss_tokens(batch: RolloutBatch, config: LossConfig) -> LossTokens:
    """The tokens of a batch, NumPy arrays [N, T], without what a model has to score."""
    kept = kept_tokens(batch, config)
    advantages = np.broadcast_to(np.float32(batch.advantages)[:, None], kept.shape)
    # Metrics are means over the tokens that the loss sees, however the loss weighs them.
    shares = np.float32(kept) / np.float32(max(kept.sum(), 1))
    rollout = np.broadcast_to(np.arange(len(kept), dtype=np.int32)[:, None], kept.shape)
    return LossTokens(
        batch.completions.logprobs,
        advantages,
        token_weights(batch, config),
        shares,
        rollout if config.of_completions else None,
    )


def mini_batch_tokens(
    tokens: LossTokens, rollouts: np.ndarray, parts: int, config: LossConfig
) -> LossTokens:
    """The tokens of one of `parts` mini-batches of a batch; `rollouts` are those in it.

    Its weights are those of the batch times `parts`: the mean of the mini-batches' gradients at the
    same parameters is the gradient of the batch. Under aggregation "bnpo" each mini-batch has the
    mean over its own tokens instead. Metrics are means over its own tokens.
    """
    if parts == 1:
        return tokens
    part = jax.tree.map(lambda x: x[rollouts], tokens)
    kept = np.float32(part.shares > 0)
    shares = kept / np.maximum(kept.sum(), 1)
    weights = shares if config.aggregation == "bnpo" else part.weights * np.float32(parts)
    return part._replace(weights=weights, shares=shares)


def of_high_entropy(entropy: np.ndarray, kept: np.ndarray, share: float) -> np.ndarray:
    """Bool [N, T]: the `share` of the kept tokens that have the highest entropy (2506.01939).

    Tokens whose entropy is that of the lowest one among them are all in it.
    """
    values = np.sort(entropy[kept])
    number = math.ceil(share * len(values))
    return kept & (entropy >= values[-number]) if number else kept


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
        "clip_ratio/low_mean": (ratio < 1 - config.clip_low) & (advantages < 0),
        "clip_ratio/high_mean": (ratio > 1 + config.clip_high) & (advantages > 0),
        "sampling/logp_difference": jnp.abs(off_policy),
        "sampling/logp_difference_max": jnp.abs(off_policy),
    }
    if config.importance_cap:
        by_sequence = config.importance == "sequence"
        importance = _exp(masked(tokens.log_importance) if by_sequence else off_policy)
        if config.importance == "mask":
            cap = config.importance_cap
            inside = (importance >= 1 / cap) & (importance <= cap)
            importance = jnp.where(inside, importance, 0)
        importance = jnp.minimum(importance, config.importance_cap)
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
