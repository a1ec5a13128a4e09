"""Host memory while a checkpoint is loaded: python benchmarks/load_memory.py [--folder=DIR]

Without a folder it makes a Llama checkpoint up: bf16, five files. A fresh process loads it and
reports its resident memory (Linux only). Ends with status 1 if the peak, beyond what was resident
before and what CPU devices hold, is over the largest tensor.
"""

import argparse
import ctypes
import gc
import json
import os
import sys
import tempfile
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import ml_dtypes
import numpy as np

from permix_jax.core.sharding import make_mesh
from permix_jax.formats.huggingface import config_from_hf, config_to_hf, weights
from permix_jax.formats.weights import load_weights, stored_tensors, write_weights
from permix_jax.models.config import ModelConfig
from permix_jax.models.transformer import Decoder

_LAYERS, _FILES = 16, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, help="a Hugging Face folder to load")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of the made-up checkpoint")
    parser.add_argument("--param_dtype", default="bfloat16", help="of the loaded parameters")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or make_checkpoint(Path(temporary), args.gigabytes)
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:
            measured = fresh.submit(measure, folder, args.param_dtype).result()
    for name, size in measured.items():
        print(f"{name:<42} {size / 1e6:10.1f} MB")
    within = measured["excess"] <= measured["largest tensor"]
    print(f"excess {'within' if within else 'OVER'} the largest tensor")
    sys.exit(not within)


def make_checkpoint(folder: Path, gigabytes: float) -> Path:
    """A random checkpoint of about that size, its embedding a fifth of it as in Llama 3.2 1B."""
    # With a vocabulary of 64 E, twice, and _LAYERS of 11 E^2 weights, of two bytes each.
    heads = max(2, 2 * round((gigabytes * 1e9 / 2 / (128 + 11 * _LAYERS)) ** 0.5 / 128))
    embed = 64 * heads
    config = ModelConfig(
        vocab_size=64 * embed,
        embed_dim=embed,
        num_layers=_LAYERS,
        num_heads=heads,
        num_kv_heads=heads // 2,
        head_dim=64,
        mlp_dim=8 * embed // 3,
        tie_embeddings=False,
    )
    rng = np.random.default_rng(0)
    tensors = (
        (weight.name, rng.standard_normal(weight.hf_shape, np.float32).astype(ml_dtypes.bfloat16))
        for weight in weights(config)
    )
    write_weights(folder, tensors, int(gigabytes * 1e9 / (_FILES - 0.5)))
    (folder / "config.json").write_text(json.dumps(config_to_hf(config)))
    return folder


def measure(folder: Path, param_dtype: str) -> dict[str, int]:
    """Loads the folder; bytes of what it takes, and of what was resident meanwhile."""

    def model_of(folder: Path) -> Decoder:
        config = config_from_hf(json.loads((folder / "config.json").read_text()))
        return Decoder(replace(config, param_dtype=param_dtype))

    model, mesh = model_of(folder), make_mesh(1, 1, 1)
    with tempfile.TemporaryDirectory() as small:  # so that all code is in memory before
        tiny = make_checkpoint(Path(small), 0.001)
        load_weights(tiny, model_of(tiny), mesh)
    itemsize = np.dtype(param_dtype).itemsize
    largest = max(
        int(np.prod(tensor.shape)) * max(itemsize, int(tensor.dtype[-2:]) // 8)
        for tensor in stored_tensors(folder).values()
    )
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # memory that is free but resident would hide an excess
    with Sampler() as sampler:
        before, anonymous = resident(), resident("RssAnon")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        params = load_weights(folder, model, mesh)
        peak = resident("VmHWM")
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    on_host = held if jax.default_backend() == "cpu" else 0
    return {
        "held by the devices": held,
        "largest tensor": largest,
        "resident before": before,
        "peak resident": peak,
        "excess": peak - before - on_host,
        "excess without pages of files": sampler.peak - anonymous - on_host,
    }


def resident(field: str = "VmRSS") -> int:
    """Bytes: a field of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field + ":")).split()[1]) * 1024


class Sampler(threading.Thread):
    """The peak of anonymous memory, looked at every few milliseconds. A context manager."""

    def __enter__(self) -> "Sampler":
        self.peak, self._ended = 0, threading.Event()
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self._ended.set()
        self.join()
        self._look()

    def run(self) -> None:
        while not self._ended.wait(0.002):
            self._look()

    def _look(self) -> None:
        self.peak = max(self.peak, resident("RssAnon"))


if __name__ == "__main__":
    main()
