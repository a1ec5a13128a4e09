"""What a GRPO step is made of, as its config says: programs, shapes of packed rows, settings."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.core.field_rules import call_with
from permix_jax.core.randomness import generator
from permix_jax.models.lm_head import Scoring
from permix_jax.models.packing import PackedRows, Packing, Ragged, RowShape, pack, row_shapes
from permix_jax.models.transformer import Decoder
from permix_jax.rollout.sampling import Sampling
from permix_jax.train.batch import RolloutBatch, of_problems
from permix_jax.train.gradients import cross_entropy, packed_gradients
from permix_jax.train.loss import (
    LossConfig,
    LossTokens,
    entropy_factors,
    token_losses,
    with_completions,
)
from permix_jax.train.state import Programs, make_programs


def grpo_programs(
    config: ConfigDict, model: Decoder, mesh: Mesh, token_loss: Callable = token_losses
) -> Programs:
    """The programs of a GRPO run: the trainer runs them, `launch/plan.py` compiles them.

    `update` takes (state, rows, tokens, frozen, *rehearsal) as `policy_gradients` does.
    `token_loss`: the method's, as `token_losses`.
    """
    updates = config.train.steps * updates_per_step(config)
    gradients = policy_gradients(config, model, token_loss)
    renewed = bool(config.grpo.kl_weight and config.grpo.reference_every)
    warmup = config.train.warmup_steps * updates_per_step(config)
    settings = {**config.train, "warmup_steps": warmup}
    return make_programs(settings, updates, model, mesh, gradients, renewed)


def policy_gradients(
    config: ConfigDict, model: Decoder, token_loss: Callable = token_losses
) -> Callable:
    """(params, rows, tokens, frozen[, rehearsal]) -> (gradients, metrics) of the run's loss.

    This is GRPO's loss. With an SftBatch of rehearsal, `rehearsal.weight` times the cross-entropy
    on it is added, at the temperature that it was sampled at. `rehearsal/loss` is the latter alone.
    """
    how, weight, loss = scoring(config), config.rehearsal.weight, loss_config(config)
    grpo = partial(
        packed_gradients,
        model,
        partial(token_loss, config=loss),
        how,
        prepare=partial(with_completions, config=loss) if loss.of_completions else None,
        entropy=partial(entropy_factors, config=loss) if loss.entropy_weight else None,
    )
    supervised = partial(packed_gradients, model, cross_entropy, how)

    def gradients(params, rows: PackedRows, tokens: LossTokens, frozen: dict, *rehearsal):
        grads, metrics = grpo(params, rows, tokens, frozen)
        for batch in rehearsal:
            sft_grads, sft_metrics = supervised(params, *batch, frozen)
            grads = jax.tree.map(lambda x, y: x + weight * y, grads, sft_grads)
            metrics["loss"] += weight * sft_metrics["loss"]
            metrics["rehearsal/loss"] = sft_metrics["loss"]
        return grads, metrics

    return gradients


def scoring(config: ConfigDict) -> Scoring:
    """How update and reference compute log-probs: at the temperature of sampling."""
    return Scoring(config.rollout.temperature, config.model.head_chunk)


def loss_config(config: ConfigDict) -> LossConfig:
    return call_with(LossConfig, config.grpo, config.rollout)


def rollout_sampling(config: ConfigDict) -> Sampling:
    """How the run draws its rollouts."""
    return call_with(Sampling, config.rollout)


def updates_per_step(config: ConfigDict) -> int:
    return config.grpo.epochs * config.grpo.mini_batches


def scores_trainer(config: ConfigDict) -> bool:
    """Whether the trainer scores the policy that a step begins with, before it updates it."""
    return bool(config.grpo.importance_cap) and updates_per_step(config) > 1


def rollouts_per_step(config: ConfigDict) -> int:
    return config.train.problems_per_step * config.rollout.group_size


def prompts_are_shared(config: ConfigDict) -> bool:
    """Whether a problem's rollouts answer one prompt: none of them has a persona of its own."""
    return config.personas.level == "problem" or config.personas.share == 0


def step_shapes(config: ConfigDict) -> list[RowShape]:
    """The shapes that the rollouts of a mini-batch are packed into."""
    rollouts = rollouts_per_step(config) // config.grpo.mini_batches
    prompts = rollouts
    if prompts_are_shared(config):
        prompts = rollouts // config.rollout.group_size
    return batch_shapes(config, rollouts, config.rollout.max_new_tokens, prompts)


def batch_shapes(
    config: ConfigDict, completions: int, max_new_tokens: int, prompts: int | None = None
) -> list[RowShape]:
    """The shapes that so many completions are packed into.

    `prompts`: how many prompts they share equally; None: each has a prompt of its own.
    """
    prompts = prompts or completions
    limits = (prompts, config.rollout.max_prompt_tokens), (completions, max_new_tokens)
    rows = config.mesh.data * config.mesh.fsdp
    return row_shapes(*limits, rows, config.train.micro_batch_tokens)


def mini_batches(
    config: ConfigDict, batch: RolloutBatch, step: int
) -> list[tuple[RolloutBatch, np.ndarray]]:
    """The rollouts of each mini-batch of a step, and their numbers in the step.

    A mini-batch holds whole problems. Which ones is a pure function of (seed, step).
    """
    problems, parts = config.train.problems_per_step, config.grpo.mini_batches
    if parts == 1:
        return [(batch, np.arange(len(batch.problem)))]
    order = generator(config.seed, "mini_batches", step).permutation(problems)
    return [of_problems(batch, np.sort(part)) for part in np.split(order, parts)]


def pack_step(batch: RolloutBatch, shapes: Sequence[RowShape]) -> Packing:
    """The rollouts of a mini-batch in packed rows, on the host."""
    prompts = Ragged.masked(*batch.prompts)
    completions = Ragged.masked(batch.completions.tokens, batch.completions.mask)
    U, N = len(prompts.lengths), len(completions.lengths)
    return pack(prompts, completions, np.repeat(np.arange(U), N // U), shapes)


def pack_tokens(tokens: LossTokens, mask: np.ndarray, packing: Packing) -> LossTokens:
    """Tokens [N, T] of a mask [N, T], at the targets of the rows that they are packed into."""
    return jax.tree.map(lambda x: packing.spread(x[mask]), tokens)
