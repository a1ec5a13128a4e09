"""Part 1 of benchmarks/accelerator.py: the device, its memory, what its matmuls and reads reach."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from accelerator_record import Given, Tell
from limits import Machine, best_seconds

from permix_jax.core.tpus import CHIPS, GIB
from permix_jax.models.operations import precision

# bf16 FLOP/s without sparsity and bytes/s, by a part of JAX's name of the GPU; of several the
# first. Source: NVIDIA's data sheets of the A100, H100, H200 and B200, in the form of SXM.
_GPUS = {
    "H200": (989e12, 4.8e12),
    "H100": (989e12, 3.35e12),
    "A100-SXM4-80GB": (312e12, 2.039e12),
    "A100": (312e12, 1.555e12),
    "B200": (2250e12, 8e12),
}
_SQUARE = {"bfloat16": 8192, "float32": 4096}  # of the matmuls
_MOST_READ = 4 * GIB


@dataclass(frozen=True)
class Peak:
    """FLOP/s in bf16 and bytes/s, of the data sheet where it is known, else as measured."""

    flops: float
    bandwidth: float


def measure(given: Given, tell: Tell) -> None:
    """Tells of "device", "matmul <dtype>" and "read"."""
    device, memory = jax.devices()[0], device_memory()
    tell(
        "device",
        {
            "platform": device.platform,
            "kind": device.device_kind,
            "number": jax.device_count(),
            "gib": memory / GIB if memory else None,
            "runtime": " ".join(device.client.platform_version.split())[:80],
            "jax": jax.__version__,
        },
    )
    if device.platform == "cpu" and not given.tiny:
        raise ValueError(
            "JAX finds no accelerator here, only a CPU; install JAX for the device (jax[cuda13], "
            "jax[tpu]), end the process that uses it, or try the parts on this CPU with --tiny"
        )
    sheet = _data_sheet(device.device_kind)
    for dtype, size in _SQUARE.items():
        reached = matmul_flops(dtype, 256 if given.tiny else size)
        peak = sheet.flops if sheet and dtype == "bfloat16" else None
        tell(f"matmul {dtype}", _beside(reached / 1e12, peak and peak / 1e12, "TFLOP/s"))
    size = 2**20 if given.tiny else min(_MOST_READ, (memory or 2 * GIB) // 8)
    peak = sheet.bandwidth / 1e9 if sheet else None
    tell("read", _beside(read_bandwidth(size) / 1e9, peak, "GB/s"))


def _beside(reached: float, peak: float | None, unit: str) -> dict[str, float | str | None]:
    share = reached / peak if peak else None
    return {"reached": reached, "unit": unit, "data_sheet": peak, "share": share}


def matmul_flops(dtype: str, size: int) -> float:
    """FLOP/s of a product of two random matrices; f32 is computed in f32, not in TF32 or bf16."""
    keys = jax.random.split(jax.random.key(0))
    x, y = (jax.random.normal(key, (size, size), dtype) for key in keys)
    return 2 * size**3 / best_seconds(jax.jit(partial(jnp.matmul, precision=precision(x, y))), x, y)


def read_bandwidth(size: int) -> float:
    """bytes/s of summing an array of so many bytes."""
    array = jnp.ones(size // 4, jnp.float32)
    return array.nbytes / best_seconds(jax.jit(jnp.sum), array)


def device_memory() -> int | None:
    """Bytes that JAX may use of the device; None where it does not tell."""
    return (jax.devices()[0].memory_stats() or {}).get("bytes_limit")


def _data_sheet(kind: str) -> Peak | None:
    for chip in CHIPS.values():
        if kind in chip.kinds:
            return Peak(chip.flops, chip.hbm_bandwidth)
    return next((Peak(*peak) for name, peak in _GPUS.items() if name in kind), None)


def known_peak(tiny: bool = False) -> tuple[Peak, Machine]:
    """The device's peak, and what it reaches in bf16: shares are of the first."""
    size = 256 if tiny else _SQUARE["bfloat16"]
    read = 2**20 if tiny else min(_MOST_READ, (device_memory() or 2 * GIB) // 8)
    reached = Machine(matmul_flops("bfloat16", size), read_bandwidth(read))
    return _data_sheet(jax.devices()[0].device_kind) or Peak(*reached), reached
