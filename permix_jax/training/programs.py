"""The jitted programs of a GRPO run: the trainer runs them, `launch/plan.py` compiles them."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.grpo.gradients import grpo_gradients, join_rows, score, split_rows
from permix_jax.grpo.loss import LossConfig
from permix_jax.models.params import without_lora
from permix_jax.models.transformer import Decoder
from permix_jax.training.state import TrainState, make_optimizer, make_step, state_shardings


class GrpoPrograms(NamedTuple):
    """What a run needs to update its policy.

    optimizer, schedule: AdamW, and its learning rate by update.
    shardings: NamedShardings of the TrainState.
    update: (state, batch, frozen) -> (state, metrics), the state donated.
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
    optimizer, schedule = make_optimizer(
        t.learning_rate,
        t.warmup_steps,
        t.steps * config.grpo.epochs,
        t.decay,
        t.weight_decay,
        t.max_grad_norm,
    )
    shardings, loss = state_shardings(model, optimizer, mesh), loss_config(config)

    def gradients(params, batch, frozen):
        return grpo_gradients(
            model, params, batch, loss, temperature, t.micro_batches, chunk_tokens, frozen
        )

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
