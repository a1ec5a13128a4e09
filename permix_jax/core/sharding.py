"""The mesh, and the table from logical axis names to mesh axes.

`models/` names the logical axes of every parameter and activation; no other code mentions a device.
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

# Rows are sharded over `data` and `fsdp`. Weights are sharded along `embed` over `fsdp` (a layer
# gathers them when it uses them), and along the output of the first matmul of each block over
# `tensor`, so that a block needs one all-reduce, after its second matmul.
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

# By default, a scatter on a GPU adds to one place in any order, and XLA picks the kernels that were
# fastest when it compiled. The expander makes ordered scatters fast, but gives wrong values for
# some (github.com/openxla/xla/issues/47330).
_DETERMINISTIC = (
    "--xla_gpu_deterministic_ops=true",
    "--xla_gpu_enable_scatter_determinism_expander=false",
)


def ask_for_determinism() -> None:
    """Makes a program give the same bits on a GPU each time. Call it before JAX finds its devices.

    Raises ValueError if JAX has already found GPUs.
    """
    before = os.environ.get("XLA_FLAGS", "").split()
    if set(_DETERMINISTIC) <= set(before):
        return
    if not backends_are_initialized():
        os.environ["XLA_FLAGS"] = " ".join([*before, *_DETERMINISTIC])
    elif jax.default_backend() == "gpu":
        raise ValueError(
            "mesh.deterministic is True, but JAX has found its GPUs already; set it to False, or "
            f"start Python with XLA_FLAGS='{' '.join(_DETERMINISTIC)}'"
        )


def make_mesh(data: int, fsdp: int, tensor: int, deterministic: bool = False) -> Mesh:
    """A mesh over the first data * fsdp * tensor devices; ValueError if there are fewer.

    `deterministic` calls `ask_for_determinism`, which may raise too.
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
    """A mesh of all these devices; neighbours on the mesh are near each other in the network."""
    # jax.make_mesh lets an axis of 8 use two physical axes of 4 on v5e only.
    placed = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(placed, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def spec(*logical_axes: str | None) -> PartitionSpec:
    """The PartitionSpec of an array whose axes have these logical names."""
    return PartitionSpec(*(LOGICAL_TO_MESH[axis] for axis in logical_axes))


def spec_of(
    shape: Sequence[int], logical_axes: Sequence[str | None], mesh: Mesh | None = None
) -> PartitionSpec:
    """As `spec`, of an array of this shape on a mesh, by default the current one.

    Key/value heads that the devices of `tensor` do not share equally are whole on each of them.
    """
    whole = [
        axis == "kv_heads" and size % shards(axis, mesh)
        for size, axis in zip(shape, logical_axes, strict=False)  # a scalar may have no names
    ]
    return spec(*(None if x else axis for x, axis in zip(whole, logical_axes, strict=True)))


def platform() -> str:
    """The platform that a program is traced for: cpu, gpu or tpu.

    It is that of the current mesh, whose devices need not be here, or JAX's default without a mesh.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return device.platform if device else jax.default_backend()


def constrain(x: jax.Array, *logical_axes: str | None) -> jax.Array:
    """Shards an activation by its logical axes on the current mesh; no change without a mesh."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec_of(x.shape, logical_axes))


def gather_as(x: jax.Array, dtype, *logical_axes: str | None) -> jax.Array:
    """A weight in `dtype`, gathered over `fsdp`; `logical_axes` are those of the stored weight.

    It is sent in the narrower of its own dtype and `dtype`.
    """
    if jnp.dtype(dtype).itemsize < x.dtype.itemsize:
        x = constrain(x.astype(dtype), *logical_axes)
    whole = [None if axis == "embed" else axis for axis in logical_axes]
    return constrain(x, *whole).astype(dtype)


def shards(logical_axis: str, mesh: Mesh | None = None) -> int:
    """The number of shards of an axis on a mesh, by default the current one; 1 without a mesh."""
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    axes = LOGICAL_TO_MESH[logical_axis] or ()
    axes = (axes,) if isinstance(axes, str) else axes
    return 1 if mesh.empty else prod(mesh.shape[axis] for axis in axes)


def row_shards(mesh: Mesh | None = None) -> int:
    return shards("batch", mesh)


def padded_rows(rows: int, mesh: Mesh) -> int:
    """`rows`, rounded up to a number that the mesh shards equally."""
    return rows + -rows % row_shards(mesh)


def shardings_of(abstract_tree, mesh: Mesh):
    """NamedShardings of a pytree; a leaf that is no `nn.Partitioned` box is replicated."""

    def placed(axes: PartitionSpec, x) -> NamedSharding:
        return NamedSharding(mesh, spec_of(x.shape, axes, mesh))

    return jax.tree.map(placed, nn.get_partition_spec(abstract_tree), nn.unbox(abstract_tree))


def shard_rows(tree, mesh: Mesh):
    """Puts arrays onto the mesh, with the leading axis (rows) sharded over `data` and `fsdp`.

    Several processes must hold the same host arrays; each places its own rows.
    """
    return _place(tree, NamedSharding(mesh, spec("batch")))


def shard_packed(tree, mesh: Mesh):
    """As `shard_rows`, for arrays [micro-batches, rows, ...]; scalars are replicated."""
    by_row, whole = NamedSharding(mesh, spec(None, "batch")), NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda x: _place(x, by_row if np.ndim(x) else whole), tree)


def replicate(tree, mesh: Mesh):
    """Puts host arrays onto the mesh, replicated."""
    return _place(tree, NamedSharding(mesh, PartitionSpec()))


def to_host(tree):
    """Gathers arrays from the mesh as NumPy arrays. Processes that hold shards call it together."""

    def gathered(x):
        if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
            with waiting(together=False):
                return np.asarray(x)
        with waiting():
            return multihost_utils.process_allgather(x, tiled=True)

    return jax.tree.map(gathered, tree)


def _identity(x):  # a named function, so that JAX reuses its compiled programs
    return x


def _place(tree, sharding: NamedSharding):
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def placed(x):
        if isinstance(x, jax.Array):  # made under the mesh, so it is on all of its devices already
            return jax.jit(_identity, out_shardings=sharding)(x)
        return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)

    return jax.tree.map(placed, tree)
