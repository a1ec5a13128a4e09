"""The jitted programs of a GRPO run: the trainer runs them, `launch/plan.py` compiles them."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.core.field_rules import call_with
from permix_jax.models.lm_head import Scoring
from permix_jax.models.packing import PackedRows, Packing, Ragged, RowShape, pack, row_shapes
from permix_jax.models.transformer import Decoder
from permix_jax.rollout.sampling import Sampling
from permix_jax.train.batch import RolloutBatch
from permix_jax.train.gradients import packed_gradients
from permix_jax.train.loss import LossConfig, LossTokens, loss_tokens, token_losses
from permix_jax.train.sft import SftBatch, cross_entropy
from permix_jax.train.state import TrainState, make_optimizer, make_step, state_shardings


class Programs(NamedTuple):
    """What a run needs to update its policy.

    optimizer, schedule: AdamW, and its learning rate by update.
    shardings: NamedShardings of the TrainState.
    update: (state, rows, tokens, frozen, *rehearsal) -> (state, metrics), the state donated: packed
      rows with what the loss knows of their targets; the last argument, an SftBatch, is left out
      where `rehearsal.weight` is 0.
    """

    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    shardings: TrainState
    update: Callable


def grpo_programs(config: ConfigDict, model: Decoder, mesh: Mesh) -> Programs:
    """The programs of the run's config; nothing is traced or compiled yet."""
    updates = config.train.steps * config.grpo.epochs
    return _programs(config, model, mesh, policy_gradients(config, model), updates)


def supervised_programs(
    config: ConfigDict, model: Decoder, mesh: Mesh, temperature: float
) -> Programs:
    """The programs of the supervised baselines, with the optimiser of GRPO."""
    scoring = Scoring(temperature, config.model.head_chunk)
    gradients = partial(packed_gradients, model, cross_entropy, scoring)
    return _programs(config, model, mesh, gradients, config.train.steps)


def _programs(
    config: ConfigDict, model: Decoder, mesh: Mesh, gradients: Callable, updates: int
) -> Programs:
    optimizer, schedule = _optimizer(config, updates)
    shardings = state_shardings(model, optimizer, mesh)
    return Programs(optimizer, schedule, shardings, make_step(gradients, optimizer, shardings))


def scoring(config: ConfigDict) -> Scoring:
    """How update and reference score what the policy sampled."""
    return Scoring(config.rollout.temperature, config.model.head_chunk)


def policy_gradients(config: ConfigDict, model: Decoder) -> Callable:
    """(params, rows, tokens, frozen[, rehearsal]) -> (gradients, metrics) of the run's loss.

    That is GRPO's, plus `rehearsal.weight` times the cross-entropy on the rehearsal batch, scored
    at the temperature that it was sampled at. `rehearsal/loss` is the latter alone.
    """
    how, weight = scoring(config), config.rehearsal.weight
    grpo = partial(packed_gradients, model, partial(token_losses, config=loss_config(config)), how)
    supervised = partial(packed_gradients, model, cross_entropy, how)

    def gradients(params, rows: PackedRows, tokens: LossTokens, frozen: dict, *rehearsal: SftBatch):
        found, metrics = grpo(params, rows, tokens, frozen)
        for batch in rehearsal:
            more, of_it = supervised(params, *batch, frozen)
            found = jax.tree.map(lambda x, y: x + weight * y, found, more)
            metrics["loss"] += weight * of_it["loss"]
            metrics["rehearsal/loss"] = of_it["loss"]
        return found, metrics

    return gradients


def step_shapes(config: ConfigDict) -> list[RowShape]:
    """The shapes that a step's rollouts are packed into."""
    rollouts = config.train.problems_per_step * config.rollout.group_size
    prompts = config.train.problems_per_step if prompts_are_shared(config) else rollouts
    return _shapes(config, prompts, rollouts, config.rollout.max_new_tokens)


def demonstration_shapes(config: ConfigDict, number: int, max_new_tokens: int) -> list[RowShape]:
    """The shapes that so many demonstrations are packed into, each with a prompt of its own."""
    return _shapes(config, number, number, max_new_tokens)


def _shapes(config: ConfigDict, prompts: int, completions: int, length: int) -> list[RowShape]:
    rows = config.mesh.data * config.mesh.fsdp
    limits = (prompts, config.rollout.max_prompt_tokens), (completions, length)
    return row_shapes(*limits, rows, config.train.micro_batch_tokens)


def pack_step(batch: RolloutBatch, shapes: Sequence[RowShape]) -> Packing:
    """A step's rollouts in packed rows, on the host."""
    prompts = Ragged.masked(batch.prompt_tokens, batch.prompt_mask)
    completions = Ragged.masked(batch.completion_tokens, batch.completion_mask)
    U, N = len(prompts.lengths), len(completions.lengths)
    return pack(prompts, completions, np.repeat(np.arange(U), N // U), shapes)


def pack_tokens(batch: RolloutBatch, packing: Packing, loss: LossConfig) -> LossTokens:
    """What the loss knows of the targets of packed rows, on the host, without what is scored."""
    mask = batch.completion_mask
    return jax.tree.map(lambda x: packing.spread(x[mask]), loss_tokens(batch, loss))


def rollout_sampling(config: ConfigDict) -> Sampling:
    """How the run draws its rollouts."""
    return call_with(Sampling, config.rollout)


def prompts_are_shared(config: ConfigDict) -> bool:
    """Whether a problem's rollouts answer one prompt: none of them has a persona of its own."""
    return config.personas.level == "problem" or config.personas.share == 0


def _optimizer(config: ConfigDict, updates: int):
    return call_with(make_optimizer, config.train, total_steps=updates)


def loss_config(config: ConfigDict) -> LossConfig:
    """The method's fields of the run's config."""
    return call_with(LossConfig, config.grpo, config.rollout)
