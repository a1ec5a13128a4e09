"""What a trainer carries from step to step, and where it lies on the mesh."""

from collections.abc import Callable
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from permix_jax.core.sharding import platform, shardings_of
from permix_jax.models.params import (
    abstract_params,
    boxed_shapes,
    split_trained,
    with_shardings,
)
from permix_jax.models.transformer import Decoder


@flax.struct.dataclass
class TrainState:
    """What is saved of a run.

    step int32 [] counts optimiser updates; params, the trained ones, and opt_state lie alike.
    accuracies: the personas' running accuracies (`personas/adaptive.py`), if the mixture adapts.
    """

    step: jax.Array
    params: dict
    opt_state: optax.OptState
    accuracies: dict = flax.struct.field(default_factory=dict)


class Start(NamedTuple):
    """The state of step 0: as ShapeDtypeStructs with shardings, and what makes it."""

    abstract: TrainState
    create: Callable[[], TrainState]


def make_optimizer(
    learning_rate: float,
    warmup_steps: int,
    total_steps: int,
    decay: str,
    weight_decay: float,
    max_grad_norm: float,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """AdamW with global-norm clipping, linear warm-up and `decay` "none", "linear" or "cosine"."""
    after = max(1, total_steps - warmup_steps)
    tail = {
        "none": optax.constant_schedule(learning_rate),
        "linear": optax.linear_schedule(learning_rate, 0.0, after),
        "cosine": optax.cosine_decay_schedule(learning_rate, after),
    }[decay]
    # Warm-up starts at 1/(warmup+1), so that the first step is not lost.
    warmup = optax.linear_schedule(learning_rate / (warmup_steps + 1), learning_rate, warmup_steps)
    schedule = optax.join_schedules([warmup, tail], [warmup_steps]) if warmup_steps else tail
    optimizer = optax.chain(
        optax.clip_by_global_norm(max_grad_norm),
        optax.adamw(schedule, b1=0.9, b2=0.95, weight_decay=weight_decay),
    )
    return optimizer, schedule


def state_shardings(model: Decoder, optimizer: optax.GradientTransformation, mesh: Mesh):
    """NamedShardings of the whole TrainState; optimiser moments lie where their parameter does."""
    boxed, _ = split_trained(model, boxed_shapes(model))
    state = TrainState(
        jax.ShapeDtypeStruct((), jnp.int32), boxed, jax.eval_shape(optimizer.init, boxed)
    )
    return shardings_of(state, mesh)


def abstract_state(
    model: Decoder, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """ShapeDtypeStructs of the whole TrainState, with their shardings: what a restore fills."""
    params, _ = split_trained(model, abstract_params(model, mesh))
    state = TrainState(
        jax.ShapeDtypeStruct((), jnp.int32), params, jax.eval_shape(optimizer.init, params)
    )
    return with_shardings(state, state_shardings(model, optimizer, mesh))


def create_state(params, optimizer: optax.GradientTransformation, shardings) -> TrainState:
    """A state at step 0 that owns copies of `params` (the step donates its state's buffers)."""
    init = jax.jit(
        lambda params: TrainState(
            jnp.int32(0), jax.tree.map(jnp.copy, params), optimizer.init(params)
        ),
        out_shardings=shardings,
    )
    return init(params)


def make_step(
    gradients: Callable, optimizer: optax.GradientTransformation, shardings: TrainState
) -> Callable:
    """The jitted step (state, *inputs) -> (state, metrics); the old state's buffers are reused.

    Args:
      gradients: (params, *inputs) -> (gradients like params, dict of f32 scalars); inputs are the
        batch, and whatever else does not change from step to step, such as a frozen base.
      shardings: NamedShardings of the state, which it keeps.

    The metrics gain `grad_norm`, the global norm before clipping. Where it is 0, the batch taught
    nothing: parameters and moments stay as they are, which AdamW would still move by its momentum
    and its weight decay. The step counts, and the learning rate goes on.
    """

    def step(state: TrainState, *inputs) -> tuple[TrainState, dict[str, jax.Array]]:
        grads, metrics = gradients(state.params, *inputs)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        norm = optax.tree.norm(grads)
        params, opt_state = _unless(norm == 0, (state.params, state.opt_state), (params, opt_state))
        return TrainState(state.step + 1, params, opt_state), {**metrics, "grad_norm": norm}

    return jax.jit(
        step,
        donate_argnums=0,
        out_shardings=(shardings, None),
        compiler_options=_compiler_options(),
    )


def _unless(nothing: jax.Array, old, new):
    """`new`, or `old` where the bool scalar `nothing` is True; the learning rate's count is new."""

    def is_rate(x) -> bool:
        return isinstance(x, optax.ScaleByScheduleState)

    def one(old, new):
        return new if is_rate(new) else jnp.where(nothing, old, new)

    return jax.tree.map(one, old, new, is_leaf=is_rate)


def _compiler_options() -> dict[str, str]:
    """On a CPU XLA runs whatever can run at once, and so remakes the activations of all layers
    before it uses those of one: told to, it goes by memory instead."""
    if platform() != "cpu":
        return {}
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
