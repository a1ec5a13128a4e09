"""Meshes of TPU chips that programs are compiled for without having them."""

import importlib.util
from collections.abc import Sequence

import jax
from jax.experimental import topologies
from jax.sharding import Mesh

from permix_jax.core.sharding import mesh_of
from permix_jax.core.tpus import CHIPS, Chip

# JAX sees the two cores of a v4 chip as one device.
_OPTIONS = {"v4": {"chip_config_name": "megacore"}}


def chip_of(topology: str) -> Chip:
    """The chip of a topology such as "v5e:4x4"; ValueError for an unknown one."""
    name, _, shape = topology.partition(":")
    if name not in CHIPS or not shape:
        raise ValueError(
            f"--topology is {topology!r}; use CHIP:SHAPE, such as v5e:4x4 or v5p:2x2x2, "
            f"with a chip of {', '.join(CHIPS)}"
        )
    return CHIPS[name]


def topology_devices(topology: str) -> Sequence:
    """The devices of a topology, to compile for.

    Raises ValueError where there is no such topology, ImportError without the `libtpu` package.
    """
    chip_of(topology)
    if importlib.util.find_spec("libtpu") is None:
        raise ImportError(
            "planning for a TPU needs its compiler, the `libtpu` package: pip install -e '.[plan]'"
        )
    options = _OPTIONS.get(topology.partition(":")[0], {})
    try:
        return topologies.get_topology_desc(topology, "tpu", **options).devices
    except jax.errors.JaxRuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"--topology is {topology!r}, which libtpu refuses: {reason}") from None


def topology_mesh(topology: str, data: int, fsdp: int, tensor: int) -> Mesh:
    """The mesh of all chips of a topology.

    Raises as `topology_devices`; ValueError too if there are not data * fsdp * tensor chips.
    """
    devices = topology_devices(topology)
    if len(devices) != data * fsdp * tensor:
        raise ValueError(
            f"--topology={topology} has {len(devices)} chips, but mesh.data * mesh.fsdp * "
            f"mesh.tensor = {data} * {fsdp} * {tensor} = {data * fsdp * tensor}; make them equal"
        )
    return mesh_of((data, fsdp, tensor), devices)
