"""One mesh, one table from logical axis names to mesh axes, and what follows from them.

Every parameter and activation is named in logical axes where it is made (`models/`); nothing
else in the code mentions a device.
"""

import os
from collections.abc import Sequence
from math import prod

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax._src.xla_bridge import backends_are_initialized  # nothing public tells it
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from permix_jax.core.watch import waiting

MESH_AXES = ("data", "fsdp", "tensor")

# Rows are spread over `data` and `fsdp`. Weights are cut along `embed` over `fsdp` (gathered
# layer by layer when used) and along the output of the first matmul of each block over `tensor`
# (so that a block needs one all-reduce, after its second matmul).
LOGICAL_TO_MESH = {
    "batch": ("data", "fsdp"),
    "vocab": "tensor",
    "embed": "fsdp",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "head_dim": None,
    "norm": None,
    None: None,
}


# By default a GPU adds in any order what a scatter writes to one place, and XLA takes the kernels
# that were fastest as it compiled. The expander is a fast form of ordered scatters, with wrong
# values for some (github.com/openxla/xla/issues/47330).
_DETERMINISTIC = (
    "--xla_gpu_deterministic_ops=true",
    "--xla_gpu_enable_scatter_determinism_expander=false",
)


def ask_for_determinism() -> None:
    """Has the same program give the same bits on a GPU each time; to be called before JAX finds its
    devices. Raises ValueError where that were GPUs."""
    before = os.environ.get("XLA_FLAGS", "").split()
    if set(_DETERMINISTIC) <= set(before):
        return
    if not backends_are_initialized():
        os.environ["XLA_FLAGS"] = " ".join([*before, *_DETERMINISTIC])
    elif jax.default_backend() == "gpu":
        flags = " ".join(_DETERMINISTIC)
        raise ValueError(
            "mesh.deterministic is True, but JAX has found its GPUs already; set it to False, or "
            f"start Python with XLA_FLAGS='{flags}'"
        )


def make_mesh(data: int, fsdp: int, tensor: int, deterministic: bool = False) -> Mesh:
    """A mesh over the first data * fsdp * tensor devices; raises ValueError if there are fewer.

    `deterministic`: as `ask_for_determinism`, which raises, too.
    """
    if deterministic:
        ask_for_determinism()
    shape = (data, fsdp, tensor)
    if min(shape) < 1:
        raise ValueError(f"mesh: data, fsdp, tensor = {shape}: each must be at least 1")
    wanted, devices = data * fsdp * tensor, jax.devices()
    if wanted > len(devices):
        raise ValueError(
            f"mesh: data * fsdp * tensor = {wanted}, but only {len(devices)} {devices[0].platform} "
            "device(s) are here: lower mesh.data, mesh.fsdp or mesh.tensor"
        )
    if len({device.process_index for device in devices[:wanted]}) < jax.process_count():
        raise ValueError(
            f"mesh: data * fsdp * tensor = {wanted} leaves some of the {jax.process_count()} "
            f"processes without a device; use all {len(devices)}"
        )
    return mesh_of(shape, devices[:wanted])


def mesh_of(shape: tuple[int, int, int], devices: Sequence) -> Mesh:
    """A mesh of all these devices, neighbours on it near each other in their network."""
    # jax.make_mesh lets an axis of 8 lie on two physical axes of 4 on v5e alone.
    placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(placed, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def spec(*logical_axes: str | None) -> PartitionSpec:
    """The partition of an array whose axes carry these logical names."""
    return PartitionSpec(*(LOGICAL_TO_MESH[axis] for axis in logical_axes))


def platform() -> str:
    """The platform that a program is traced for: cpu, gpu or tpu.

    It is that of the current mesh, whose devices need not be here, or JAX's default without a mesh.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


def constrain(x: jax.Array, *logical_axes: str | None) -> jax.Array:
    """Pins an activation to its place on the current mesh; the identity where none is set."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(*logical_axes))


def gather_as(x: jax.Array, dtype, *logical_axes: str | None) -> jax.Array:
    """A weight in `dtype`, whole over `fsdp`; `logical_axes` name its axes as they are stored.

    What is sent has the narrower of its dtype and `dtype`.
    """
    if jnp.dtype(dtype).itemsize < x.dtype.itemsize:
        x = constrain(x.astype(dtype), *logical_axes)
    whole = [None if axis == "embed" else axis for axis in logical_axes]
    return constrain(x, *whole).astype(dtype)


def row_shards() -> int:
    """How many parts the current mesh cuts rows into; 1 where none is set."""
    return shards("batch")


def padded_rows(rows: int, mesh: Mesh) -> int:
    """The least number that is not below `rows` and that the mesh cuts into equal parts."""
    parts = row_parts(mesh)
    return -(-rows // parts) * parts


def row_parts(mesh: Mesh) -> int:
    """How many parts this mesh cuts rows into."""
    return prod(mesh.shape[axis] for axis in LOGICAL_TO_MESH["batch"])


def shards(logical_axis: str) -> int:
    """How many parts the current mesh cuts an axis of this name into; 1 where none is set."""
    mesh, axes = jax.sharding.get_abstract_mesh(), LOGICAL_TO_MESH[logical_axis] or ()
    axes = (axes,) if isinstance(axes, str) else axes
    return 1 if mesh.empty else prod(mesh.shape[axis] for axis in axes)


def shardings_of(abstract_tree, mesh: Mesh):
    """NamedShardings of a pytree of leaves boxed in `nn.Partitioned`, or plain and replicated."""
    boxed = lambda leaf: isinstance(leaf, nn.Partitioned)  # noqa: E731

    def one(leaf):
        return NamedSharding(mesh, spec(*leaf.names) if boxed(leaf) else PartitionSpec())

    return jax.tree.map(one, abstract_tree, is_leaf=boxed)


def shard_rows(tree, mesh: Mesh):
    """Arrays onto the mesh, their leading axis (rows) spread over `data` and `fsdp`.

    Of several processes, which must hold the same host arrays, each places its own rows.
    """
    return _place(tree, NamedSharding(mesh, spec("batch")))


def shard_packed(tree, mesh: Mesh):
    """As `shard_rows`, for arrays [micro-batches, rows, ...]; scalars are whole on every device."""
    by_row, whole = NamedSharding(mesh, spec(None, "batch")), NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: _place(x, by_row if np.ndim(x) else whole), tree)


def replicate(tree, mesh: Mesh):
    """Host arrays onto the mesh, whole on every device."""
    return _place(tree, NamedSharding(mesh, PartitionSpec()))


def to_host(tree):
    """NumPy arrays of whole arrays, wherever on the mesh their parts lie.

    Where that is in several processes, all must call it, in the same order.
    """

    def one(x):
        if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
            with waiting(together=False):
                return np.asarray(x)
        with waiting():
            return multihost_utils.process_allgather(x, tiled=True)

    return jax.tree.map(one, tree)


def _identity(x):  # one function, so that JAX finds its programs again
    return x


def _place(tree, sharding: NamedSharding):
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def one(x):
        if isinstance(x, jax.Array):  # made under the mesh, so on all of its devices already
            return jax.jit(_identity, out_shardings=sharding)(x)
        return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)

    return jax.tree.map(one, tree)
