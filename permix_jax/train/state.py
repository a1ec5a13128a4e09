"""What a trainer carries from step to step, where it lies on the mesh, and the jitted update."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from permix_jax.core.field_rules import call_with
from permix_jax.core.sharding import platform
from permix_jax.models.params import abstract_params, split_trained
from permix_jax.models.transformer import Decoder
from permix_jax.train.optimizer import make_optimizer


@flax.struct.dataclass
class TrainState:
    """What is saved of a run.

    step: int32 [], counts optimiser updates.
    params: the trained parameters. opt_state: the optimiser's moments, laid out like them.
    accuracies: the personas' running accuracies (`personas/adaptive.py`), if the mixture adapts.
    ema: a running average of the parameters, if there is one; what is evaluated and exported.
    reference: like the parameters, of the policy that the KL is to, if it is renewed.
    """

    step: jax.Array
    params: dict
    opt_state: optax.OptState
    accuracies: dict = flax.struct.field(default_factory=dict)
    ema: dict = flax.struct.field(default_factory=dict)
    reference: dict = flax.struct.field(default_factory=dict)

    @property
    def policy(self) -> dict:
        """The parameters that are evaluated and exported."""
        return self.ema or self.params


class Programs(NamedTuple):
    """What a run needs to update its policy.

    optimizer, schedule: see `make_optimizer`.
    abstract: ShapeDtypeStructs of the TrainState, with their shardings.
    update: (state, *inputs) -> (state, metrics), jitted; see `make_step`.
    """

    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    abstract: TrainState
    update: Callable


def make_programs(
    settings: Mapping,
    updates: int,
    model: Decoder,
    mesh: Mesh,
    gradients: Callable,
    reference: bool = False,
) -> Programs:
    """The programs for so many updates; nothing is compiled yet.

    `settings`: a config section with the fields of the optimiser. `gradients`: as in `make_step`.
    `reference`: whether the state holds one.
    """
    optimizer, schedule = call_with(make_optimizer, settings, total_steps=updates)
    abstract, ema = abstract_state(model, optimizer, mesh), settings.get("ema", 0.0)
    abstract = abstract.replace(ema=abstract.params if ema else {})
    update = make_step(gradients, optimizer, abstract, ema)
    abstract = abstract.replace(reference=abstract.params if reference else {})
    return Programs(optimizer, schedule, abstract, update)


def abstract_state(
    model: Decoder, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """ShapeDtypeStructs of the whole TrainState, with their shardings: what a restore fills.

    The optimiser's moments lie where their parameter does, if they have its shape.
    """
    trained, _ = split_trained(model, abstract_params(model, mesh))
    everywhere = NamedSharding(mesh, PartitionSpec())
    by_path = {_names(path): x for path, x in jax.tree_util.tree_leaves_with_path(trained)}

    def placed(path, x) -> jax.ShapeDtypeStruct:
        names = _names(path)
        param = next((by_path[names[i:]] for i in range(len(names)) if names[i:] in by_path), None)
        # Adafactor's sums over rows and columns have another shape; they are small.
        same = param is not None and x.shape == param.shape
        sharding = param.sharding if same else everywhere
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    # Shapes alone: the mesh may be of chips that are not here, which can hold no array.
    count = jax.ShapeDtypeStruct((), jnp.int32)
    state = TrainState(count, trained, jax.eval_shape(optimizer.init, trained))
    return jax.tree_util.tree_map_with_path(placed, state)


def _names(path) -> tuple[str, ...]:
    """The keys of dicts on the path of a leaf."""
    return tuple(entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey))


def create_state(params, optimizer: optax.GradientTransformation, abstract) -> TrainState:
    """A state at step 0 that owns copies of `params` (the step donates its state's buffers)."""

    def init(params):
        def copy():
            return jax.tree.map(jnp.copy, params)

        state = TrainState(jnp.int32(0), copy(), optimizer.init(params))
        return state.replace(**{n: copy() for n in ("ema", "reference") if getattr(abstract, n)})

    return jax.jit(init, out_shardings=_shardings(abstract))(params)


def _shardings(tree):
    return jax.tree.map(lambda x: x.sharding, tree)


def make_step(
    gradients: Callable,
    optimizer: optax.GradientTransformation,
    abstract: TrainState,
    ema: float = 0.0,
) -> Callable:
    """The jitted step (state, *inputs) -> (state, metrics); it writes over the old state.

    `gradients`: (params, *inputs) -> (gradients like params, dict of f32 scalars). The inputs are
    the batch and what stays the same, such as a frozen base. The state keeps the shardings of
    `abstract`. `ema` is the decay of the average of the parameters that the state holds;
    0: it holds none.

    The metrics gain `grad_norm`, the global norm before clipping. Where it is 0, the batch taught
    nothing. Then parameters and moments stay as they are, though AdamW's momentum and weight decay
    would move them. The step still counts, and the learning rate goes on.
    """

    def is_rate(x) -> bool:
        return isinstance(x, optax.ScaleByScheduleState)  # the learning rate's count

    def step(state: TrainState, *inputs) -> tuple[TrainState, dict[str, jax.Array]]:
        grads, metrics = gradients(state.params, *inputs)
        with jax.named_scope("optimizer"):
            updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
        norm = optax.tree.norm(grads)
        nothing = norm == 0

        def select(old, new):
            return new if is_rate(new) else jnp.where(nothing, old, new)

        old, new = (state.params, state.opt_state), (params, opt_state)
        with jax.named_scope("optimizer"):
            params, opt_state = jax.tree.map(select, old, new, is_leaf=is_rate)
        new = TrainState(state.step + 1, params, opt_state)
        if ema:
            average = optax.incremental_update(params, state.ema, 1 - ema)
            new = new.replace(ema=jax.tree.map(select, state.ema, average))
        return new, {**metrics, "grad_norm": norm}

    # By default XLA runs on a CPU whatever it can at once, and so computes the activations of all
    # layers again before it uses those of one.
    memory = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    options = memory if platform() == "cpu" else {}
    return jax.jit(
        step, donate_argnums=0, out_shardings=(_shardings(abstract), None), compiler_options=options
    )
