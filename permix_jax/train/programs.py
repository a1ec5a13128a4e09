"""The jitted programs of a GRPO run: the trainer runs them, `launch/plan.py` compiles them."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.core.field_rules import call_with
from permix_jax.core.sharding import to_host
from permix_jax.models.params import without_lora
from permix_jax.models.transformer import Decoder
from permix_jax.rollout.sampling import Sampling
from permix_jax.train.batch import RolloutBatch
from permix_jax.train.gradients import grpo_gradients, score
from permix_jax.train.loss import LossConfig
from permix_jax.train.packing import Packing, Shape, pack, packed_shapes
from permix_jax.train.sft import SFTBatch, sft_gradients
from permix_jax.train.state import TrainState, make_optimizer, make_step, state_shardings


class GrpoPrograms(NamedTuple):
    """What a run needs to update its policy.

    optimizer, schedule: AdamW, and its learning rate by update.
    shardings: NamedShardings of the TrainState.
    update: (state, batch, packing, frozen, rehearsal) -> (state, metrics), the state donated; the
      last argument, an SFTBatch, is left out where `rehearsal.weight` is 0.
    score: (base parameters, batch, packing) -> log-probs f32 [N, T] under the reference.
    score_policy: the same of the policy's parameters, adapters included.
    """

    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    shardings: TrainState
    update: Callable
    score: Callable
    score_policy: Callable


def grpo_programs(config: ConfigDict, model: Decoder, mesh: Mesh) -> GrpoPrograms:
    """The programs of the run's config; nothing is traced or compiled yet."""
    t = config.train
    temperature, chunk_tokens = config.rollout.temperature, config.model.head_chunk
    optimizer, schedule = _optimizer(config, updates=t.steps * config.grpo.epochs)
    shardings = state_shardings(model, optimizer, mesh)

    def scorer(model: Decoder) -> Callable:
        how = {"temperature": temperature, "chunk_tokens": chunk_tokens}
        return jax.jit(partial(score, model, **how))

    update = make_step(policy_gradients(config, model), optimizer, shardings)
    scorers = scorer(without_lora(model)), scorer(model)
    return GrpoPrograms(optimizer, schedule, shardings, update, *scorers)


def pack_batch(config: ConfigDict, batch: RolloutBatch) -> Packing:
    """How the update and the reference compute a batch, on the host."""
    masks = to_host((batch.prompt_mask, batch.completion_mask))
    return pack(*masks, batch_shapes(config, *(mask.shape for mask in masks)))


def batch_shapes(
    config: ConfigDict, prompts: tuple[int, int], completions: tuple[int, int]
) -> list[Shape]:
    """The shapes that batches of [U, P] prompts and [N, T] completions can be packed into."""
    rows = config.mesh.data * config.mesh.fsdp
    return packed_shapes(prompts, completions, rows, config.train.micro_batch_tokens)


def policy_gradients(config: ConfigDict, model: Decoder) -> Callable:
    """(params, batch, packing, frozen[, rehearsal]) -> (gradients, metrics) of the run's loss.

    That is GRPO's, plus `rehearsal.weight` times the cross-entropy on the rehearsal batch, scored
    at the temperature that it was sampled at. `rehearsal/loss` is the latter alone.
    """
    loss = loss_config(config)
    temperature, chunk_tokens = config.rollout.temperature, config.model.head_chunk
    weight = config.rehearsal.weight

    def gradients(
        params,
        batch: RolloutBatch,
        packing: Packing,
        frozen: dict,
        rehearsal: SFTBatch | None = None,
    ):
        found, metrics = grpo_gradients(
            model, params, batch, packing, loss, temperature, chunk_tokens, frozen
        )
        if rehearsal is None:
            return found, metrics
        more, of_it = sft_gradients(
            model, params, rehearsal, chunk_tokens, temperature, frozen, _parts(config, rehearsal)
        )
        metrics["loss"] += weight * of_it["loss"]
        metrics["rehearsal/loss"] = of_it["loss"]
        return jax.tree.map(lambda x, y: x + weight * y, found, more), metrics

    return gradients


class SupervisedPrograms(NamedTuple):
    """As `GrpoPrograms`, without a reference; update: (state, SFTBatch, frozen)."""

    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    shardings: TrainState
    update: Callable


def supervised_programs(
    config: ConfigDict, model: Decoder, mesh: Mesh, temperature: float
) -> SupervisedPrograms:
    """The programs of the supervised baselines, with the optimiser of GRPO."""
    optimizer, schedule = _optimizer(config, updates=config.train.steps)
    shardings = state_shardings(model, optimizer, mesh)

    def gradients(params, batch, frozen):
        chunk_tokens, parts = config.model.head_chunk, _parts(config, batch)
        return sft_gradients(model, params, batch, chunk_tokens, temperature, frozen, parts)

    update = make_step(gradients, optimizer, shardings)
    return SupervisedPrograms(optimizer, schedule, shardings, update)


def _parts(config: ConfigDict, batch: SFTBatch) -> int:
    """As few parts of equal size as hold at most `train.micro_batch_tokens` a device."""
    each = batch.prompt_tokens.shape[0] // (config.mesh.data * config.mesh.fsdp)
    width = batch.prompt_tokens.shape[1] + batch.completion_tokens.shape[1]
    fits = lambda parts: each // parts * width <= config.train.micro_batch_tokens  # noqa: E731
    return next(filter(fits, (n for n in range(1, each) if each % n == 0)), each)


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
