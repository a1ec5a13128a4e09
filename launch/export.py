"""Writes the policy of a run as a Hugging Face folder.

    python launch/export.py --workdir=runs/permix --out=DIR

`transformers` loads DIR; with --adapter, `peft` does, on the base that its config names.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"  # weights go through host memory; no accelerator is needed
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from permix_jax.export import export


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--workdir", type=Path, required=True, help="workdir of a run")
    add("--out", type=Path, required=True, help="folder to write; must not exist")
    add("--step", type=int, help="checkpoint to take; default: the newest")
    add("--dtype", choices=("float32", "bfloat16"), default="", help="default: the run's own")
    add("--adapter", action="store_true", help="LoRA adapters alone, as a PEFT folder")
    a = parser.parse_args(argv)
    try:
        export(a.workdir, a.out, a.step, a.dtype, a.adapter)
    except (FileNotFoundError, ValueError, ImportError) as error:
        sys.exit(f"export.py: {error}")
    print(f"wrote {a.out}")


if __name__ == "__main__":
    main()
