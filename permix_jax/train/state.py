"""What a trainer carries from step to step, where it lies on the mesh, and the jitted update."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh

from permix_jax.core.field_rules import call_with
from permix_jax.core.sharding import platform, shardings_of
from permix_jax.models.params import boxed_shapes, split_trained, with_shardings
from permix_jax.models.transformer import Decoder


@flax.struct.dataclass
class TrainState:
    """What is saved of a run.

    step: int32 [], counts optimiser updates.
    params: the trained parameters. opt_state: the optimiser's moments, laid out like them.
    accuracies: the personas' running accuracies (`personas/adaptive.py`), if the mixture adapts.
    """

    step: jax.Array
    params: dict
    opt_state: optax.OptState
    accuracies: dict = flax.struct.field(default_factory=dict)


class Programs(NamedTuple):
    """What a run needs to update its policy.

    optimizer, schedule: AdamW, and its learning rate by update.
    abstract: ShapeDtypeStructs of the TrainState, with their shardings.
    update: (state, *inputs) -> (state, metrics), jitted; see `make_step`.
    """

    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    abstract: TrainState
    update: Callable


def make_programs(
    settings: Mapping, updates: int, model: Decoder, mesh: Mesh, gradients: Callable
) -> Programs:
    """The programs for so many updates; nothing is compiled yet.

    `settings`: a config section with the fields of the optimiser. `gradients`: as in `make_step`.
    """
    optimizer, schedule = call_with(make_optimizer, settings, total_steps=updates)
    abstract = abstract_state(model, optimizer, mesh)
    return Programs(optimizer, schedule, abstract, make_step(gradients, optimizer, abstract))


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


def abstract_state(
    model: Decoder, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """ShapeDtypeStructs of the whole TrainState, with their shardings: what a restore fills.

    The optimiser's moments lie where their parameter does.
    """
    trained, _ = split_trained(model, boxed_shapes(model))
    step = jax.ShapeDtypeStruct((), jnp.int32)
    boxed = TrainState(step, trained, jax.eval_shape(optimizer.init, trained))
    return with_shardings(nn.unbox(boxed), shardings_of(boxed, mesh))


def create_state(params, optimizer: optax.GradientTransformation, abstract) -> TrainState:
    """A state at step 0 that owns copies of `params` (the step donates its state's buffers)."""

    def init(params):
        return TrainState(jnp.int32(0), jax.tree.map(jnp.copy, params), optimizer.init(params))

    return jax.jit(init, out_shardings=_shardings(abstract))(params)


def _shardings(tree):
    return jax.tree.map(lambda x: x.sharding, tree)


def make_step(
    gradients: Callable, optimizer: optax.GradientTransformation, abstract: TrainState
) -> Callable:
    """The jitted step (state, *inputs) -> (state, metrics); it writes over the old state.

    `gradients`: (params, *inputs) -> (gradients like params, dict of f32 scalars). The inputs are
    the batch and what stays the same, such as a frozen base. The state keeps the shardings of
    `abstract`.

    The metrics gain `grad_norm`, the global norm before clipping. Where it is 0, the batch taught
    nothing. Then parameters and moments stay as they are, though AdamW's momentum and weight decay
    would move them. The step still counts, and the learning rate goes on.
    """

    def is_rate(x) -> bool:
        return isinstance(x, optax.ScaleByScheduleState)  # the learning rate's count

    def step(state: TrainState, *inputs) -> tuple[TrainState, dict[str, jax.Array]]:
        grads, metrics = gradients(state.params, *inputs)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        norm = optax.tree.norm(grads)
        nothing = norm == 0

        def select(old, new):
            return new if is_rate(new) else jnp.where(nothing, old, new)

        old, new = (state.params, state.opt_state), (params, opt_state)
        params, opt_state = jax.tree.map(select, old, new, is_leaf=is_rate)
        return TrainState(state.step + 1, params, opt_state), {**metrics, "grad_norm": norm}

    # By default XLA runs on a CPU whatever it can at once, and so computes the activations of all
    # layers again before it uses those of one.
    memory = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    options = memory if platform() == "cpu" else {}
    return jax.jit(
        step, donate_argnums=0, out_shardings=(_shardings(abstract), None), compiler_options=options
    )
