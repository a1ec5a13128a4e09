"""Meshes of one device that need not be here, to trace and lower programs for."""

from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from permix_jax.core.sharding import MESH_AXES


def abstract_mesh(platform: str) -> AbstractMesh:
    """A mesh of one device of a platform: cpu, gpu or tpu. Its kind and cores are made up."""
    device = AbstractDevice(device_kind=f"a {platform}", num_cores=1, platform=platform)
    return AbstractMesh((1, 1, 1), MESH_AXES, (AxisType.Auto,) * 3, abstract_device=device)
