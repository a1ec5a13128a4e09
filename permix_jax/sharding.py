"""One mesh, one table from logical axis names to mesh axes, and what follows from them.

Every parameter and activation is named in logical axes where it is made (`models/`); nothing
else in the code mentions a device.
"""

from math import prod

import jax
from flax import linen as nn
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

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


def make_mesh(data: int, fsdp: int, tensor: int) -> Mesh:
    """A mesh over the first data * fsdp * tensor devices; raises ValueError if there are fewer."""
    shape = (data, fsdp, tensor)
    if min(shape) < 1:
        raise ValueError(f"mesh: data, fsdp, tensor = {shape}: each must be at least 1")
    wanted, devices = data * fsdp * tensor, jax.devices()
    if wanted > len(devices):
        raise ValueError(
            f"mesh: data * fsdp * tensor = {wanted}, but only {len(devices)} {devices[0].platform} "
            "device(s) are here: lower mesh.data, mesh.fsdp or mesh.tensor"
        )
    return jax.make_mesh(
        shape, MESH_AXES, axis_types=(AxisType.Auto,) * 3, devices=devices[:wanted]
    )


def spec(*logical_axes: str | None) -> PartitionSpec:
    """The partition of an array whose axes carry these logical names."""
    return PartitionSpec(*(LOGICAL_TO_MESH[axis] for axis in logical_axes))


def constrain(x: jax.Array, *logical_axes: str | None) -> jax.Array:
    """Pins an activation to its place on the current mesh; the identity where none is set."""
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return jax.lax.with_sharding_constraint(x, spec(*logical_axes))


def row_shards() -> int:
    """How many parts the current mesh cuts rows into; 1 where none is set."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else prod(mesh.shape[axis] for axis in LOGICAL_TO_MESH["batch"])


def shardings_of(abstract_tree, mesh: Mesh):
    """NamedShardings of a pytree of leaves boxed in `nn.Partitioned`, or plain and replicated."""
    boxed = lambda leaf: isinstance(leaf, nn.Partitioned)  # noqa: E731

    def one(leaf):
        return NamedSharding(mesh, spec(*leaf.names) if boxed(leaf) else PartitionSpec())

    return jax.tree.map(one, abstract_tree, is_leaf=boxed)


def shard_rows(tree, mesh: Mesh):
    """Host arrays onto the mesh, their leading axis (rows) spread over `data` and `fsdp`."""
    return jax.device_put(tree, NamedSharding(mesh, spec("batch")))


def replicate(tree, mesh: Mesh):
    """Host arrays onto the mesh, whole on every device."""
    return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))
