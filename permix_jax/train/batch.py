"""The batch that goes from rollout to update, on the host, and the weights of its tokens.

Every token has a weight that already holds the division by the global denominator, so the loss
of a batch is the plain sum of the losses of its parts: it cannot change with micro-batching or
sharding.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from permix_jax.rollout.sampler import Completions
from permix_jax.train.loss import LossConfig, LossTokens


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


def of_high_entropy(entropy: np.ndarray, kept: np.ndarray, share: float) -> np.ndarray:
    """Bool [N, T]: the `share` of the kept tokens that have the highest entropy (2506.01939).

    Tokens whose entropy is that of the lowest one among them are all in it.
    """
    values = np.sort(entropy[kept])
    number = math.ceil(share * len(values))
    return kept & (entropy >= values[-number]) if number else kept
