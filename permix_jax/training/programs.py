"""The jitted programs of a GRPO run: the trainer runs them, `launch/plan.py` compiles them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.grpo.batch import RolloutBatch
from permix_jax.grpo.gradients import grpo_gradients, score
from permix_jax.grpo.loss import LossConfig
from permix_jax.grpo.micro_batches import join_rows, split_rows
from permix_jax.models.params import without_lora
from permix_jax.models.transformer import Decoder
from permix_jax.training.sft import SFTBatch, sft_gradients
from permix_jax.training.state import TrainState, make_optimizer, make_step, state_shardings


class GrpoPrograms(NamedTuple):
    """What a run needs to update its policy.

    optimizer, schedule: AdamW, and its learning rate by update.
    shardings: NamedShardings of the TrainState.
    update: (state, batch, frozen, rehearsal) -> (state, metrics), the state donated; the last
      argument, an SFTBatch, is left out where `rehearsal.weight` is 0.
    score: (base parameters, batch) -> TokenStatistics of the reference [N, T], computed in as many
      parts as the update, which so need no more memory than that.
    """

    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    shardings: TrainState
    update: Callable
    score: Callable


def grpo_programs(config: ConfigDict, model: Decoder, mesh: Mesh) -> GrpoPrograms:
    """The programs of the run's config; nothing is traced or compiled yet."""
    t = config.train
    temperature, chunk_tokens = config.rollout.temperature, config.model.head_chunk
    optimizer, schedule = _optimizer(config, updates=t.steps * config.grpo.epochs)
    shardings = state_shardings(model, optimizer, mesh)
    gradients = policy_gradients(config, model)

    def reference(params, batch):
        base = without_lora(model)
        score_part = lambda part: score(base, params, part, temperature, chunk_tokens)  # noqa: E731
        if t.micro_batches == 1:
            return score_part(batch)
        prompts = batch.prompt_tokens.shape[0]
        parts = split_rows(batch, t.micro_batches, prompts)
        return join_rows(jax.lax.map(score_part, parts), prompts)

    update = make_step(gradients, optimizer, shardings)
    return GrpoPrograms(optimizer, schedule, shardings, update, jax.jit(reference))


def policy_gradients(config: ConfigDict, model: Decoder) -> Callable:
    """(params, batch, frozen[, rehearsal]) -> (gradients, metrics) of the run's loss.

    That is GRPO's, plus `rehearsal.weight` times the cross-entropy on the rehearsal batch, scored
    at the temperature that it was sampled at. `rehearsal/loss` is the latter alone.
    """
    t, loss = config.train, loss_config(config)
    temperature, chunk_tokens = config.rollout.temperature, config.model.head_chunk
    weight = config.rehearsal.weight

    def gradients(params, batch: RolloutBatch, frozen: dict, rehearsal: SFTBatch | None = None):
        found, metrics = grpo_gradients(
            model, params, batch, loss, temperature, t.micro_batches, chunk_tokens, frozen
        )
        if rehearsal is None:
            return found, metrics
        more, of_it = sft_gradients(
            model, params, rehearsal, chunk_tokens, temperature, t.micro_batches, frozen
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
        parts, chunk_tokens = config.train.micro_batches, config.model.head_chunk
        return sft_gradients(model, params, batch, chunk_tokens, temperature, parts, frozen)

    update = make_step(gradients, optimizer, shardings)
    return SupervisedPrograms(optimizer, schedule, shardings, update)


def _optimizer(config: ConfigDict, updates: int):
    t = config.train
    return make_optimizer(
        t.learning_rate, t.warmup_steps, updates, t.decay, t.weight_decay, t.max_grad_norm
    )


def loss_config(config: ConfigDict) -> LossConfig:
    """The method's fields of the run's config."""
    g = config.grpo
    return LossConfig(
        g.aggregation,
        g.clip_low,
        g.clip_high,
        g.kl_weight,
        g.kl_estimator,
        g.mask_truncated,
        config.rollout.max_new_tokens,
    )
