"""What a step took of the machine: its share of the peak, memory, time to compile; its profile."""

from contextlib import ExitStack
from pathlib import Path

import jax
import numpy as np

from permix_jax.core.compile_counts import compile_counts
from permix_jax.core.places import staged
from permix_jax.core.tpus import CHIPS, GIB
from permix_jax.models.config import ModelConfig
from permix_jax.models.packing import PackedRows


class Meter:
    """Measures the steps of a loop, within `with`.

    Args:
      profiled: first and last step whose trace `jax.profiler` writes to `folder`; None: no step.
    """

    def __init__(self, folder: Path, profiled: tuple[int, int] | None = None):
        self._folder, self._profiled = folder, profiled
        self._within, self._staged, self._traces = ExitStack(), ExitStack(), False

    def __enter__(self) -> "Meter":
        self._compiled = self._within.enter_context(compile_counts())
        return self

    def __exit__(self, *_) -> None:
        self._within.close()
        self._end_trace()

    def _end_trace(self) -> None:
        if self._traces:
            jax.profiler.stop_trace()
            self._staged.close()
        self._traces = False

    def begin(self, step: int) -> None:
        """Call it before a step."""
        self._compiled["seconds"] = 0.0
        first, last = self._profiled or (0, 0)
        if first <= step <= last and not self._traces:
            jax.profiler.start_trace(str(self._staged.enter_context(staged(self._folder))))
            self._traces = True

    def end(self, step: int) -> dict[str, float]:
        """Call it after a step. Metrics: `time/compile`, in s, and `perf/peak_memory_gib`, the most
        that one of this process's devices held since the process began, where they tell it."""
        if self._profiled and step >= self._profiled[1]:
            self._end_trace()
        stats = [device.memory_stats() or {} for device in jax.local_devices()]
        peaks = [x["peak_bytes_in_use"] for x in stats if "peak_bytes_in_use" in x]
        memory = {"perf/peak_memory_gib": max(peaks) / GIB} if peaks else {}
        return {"time/compile": self._compiled["seconds"], **memory}


def model_flops(model: ModelConfig, rows: PackedRows) -> float:
    """FLOPs of all products of a forward pass on packed rows: of real tokens, and nothing twice.

    A token takes part in each weight's matmul, 2 FLOPs a weight; the head is for targets alone. Its
    attention costs 4 FLOPs for each key that it sees, query head and entry of a head (PaLM: arXiv
    2204.02311, appendix B).
    """
    real = np.asarray(rows.layout.sequence) >= 0
    seen = (np.asarray(rows.layout.positions) + 1)[real]
    local = np.minimum(seen, model.window) if model.window else seen
    heads = model.num_heads * model.head_dim
    kept = model.num_kv_heads * model.head_dim
    weights = model.embed_dim * (2 * heads + 2 * kept + 3 * model.mlp_dim)
    windowed = len(model.local_layers)
    keys = (model.num_layers - windowed) * seen.sum(dtype=float) + windowed * local.sum(dtype=float)
    linear = 2 * model.num_layers * weights * real.sum(dtype=float)
    head = 2 * model.embed_dim * model.vocab_size * np.sum(rows.scored, dtype=float)
    return float(linear + head + 4 * heads * keys)


def trained_passes(model: ModelConfig) -> int:
    """How many forward passes' products a forward and a backward pass have.

    The backward pass has twice those of the forward pass, by activations and by weights; under
    adapters hardly any by weights.
    """
    return 2 if model.lora else 3


def share_of_peak(
    flops: float, seconds: float, devices: int, peak_tflops: float
) -> dict[str, float]:
    """The metric `perf/mfu`: FLOPs of the model over those at peak of all devices in that time.

    peak_tflops: of a device; 0: that of its data sheet. {} where neither is known.
    """
    known = [chip.flops for chip in CHIPS.values() if jax.devices()[0].device_kind in chip.kinds]
    peak = peak_tflops * 1e12 if peak_tflops else sum(known)
    return {"perf/mfu": flops / seconds / devices / peak} if peak else {}
