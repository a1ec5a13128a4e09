"""Makes the folder that benchmarks/accelerator.py takes as --weights: its --prepare runs this.

The model in bf16, in files of less than 60 MB that can be carried one by one, with its tokenizer
and config; and in parity.npz what this machine's CPU computes with it.
"""

import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
from accelerator_values import (
    FILE,
    arithmetic_config,
    compute,
    distances,
    logprobs_of,
    make_texts,
    save,
    with_old_logprobs,
)

from permix_jax.app.export import write_model
from permix_jax.app.policies import build_policy
from permix_jax.app.workdir import cache_folder
from permix_jax.core.sharding import make_mesh

_FILE_BYTES = 59_000_000


def main() -> None:
    source, folder = sys.argv[1:]
    try:
        prepare(source, Path(folder))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"accelerator.py: {error}")


def prepare(source: str, folder: Path) -> None:
    """Writes the folder. Raises ValueError if it holds weights already, and as `open_pretrained`
    for the model."""
    mesh = make_mesh(1, 1, 1)
    with jax.set_mesh(mesh):
        policy, initial = build_policy(arithmetic_config(source, False), cache_folder(), mesh)
        write_model(policy, initial.load_params(), "bfloat16", folder, _FILE_BYTES)
        print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}", flush=True)
        save_values(folder)


def save_values(folder: Path) -> None:
    """Writes parity.npz: the texts, what a CPU computes of them in f32, and how far bf16 is off."""
    mesh, found, texts = make_mesh(1, 1, 1), {}, None
    for dtype in ("float32", "bfloat16"):
        config = arithmetic_config(folder, False, model__dtype=dtype)
        policy, initial = build_policy(config, cache_folder(), mesh)
        params = initial.load_params()
        if texts is None:
            texts = make_texts(config, policy)
            logprobs = logprobs_of(config, policy.model, params, texts, mesh)
            texts = with_old_logprobs(texts, logprobs)
        found[dtype] = compute(config, policy.model, params, texts, mesh)
        print(f"computed in {dtype}", flush=True)
    rounding = distances(found["bfloat16"], found["float32"])
    save(folder / FILE, texts, found["float32"] | {f"bfloat16/{n}": x for n, x in rounding.items()})
    print(f"bf16 is off by {rounding}", flush=True)


if __name__ == "__main__":
    main()
