"""How a step's least time falls with more chips, as planned:

    python benchmarks/scaling.py --preset=llama31_8b --chip=v6e --tensor=8

Traces the programs of a GRPO step for TPU slices of 8 to 256 chips; nothing is compiled or run.
Prints a Markdown table. Strong scaling keeps the preset's problems a step; weak scaling keeps them
a chip. Needs: pip install -e '.[plan]'
"""

import argparse
import logging
import runpy
import sys
from pathlib import Path

from permix_jax.planning.environment import compile_for_tpu

compile_for_tpu()  # before JAX is imported

from permix_jax.evaluation.tables import markdown_table  # noqa: E402
from permix_jax.planning.plan import least_seconds  # noqa: E402
from permix_jax.workdir import cache_folder  # noqa: E402

ROOT = Path(__file__).parent.parent
SLICES = {8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--preset", default="llama31_8b", help="of configs/permix.py")
    add("--chip", default="v6e", help="whose slices have two dimensions: v5e or v6e")
    add("--tensor", type=int, default=8, help="mesh.tensor; mesh.fsdp is the rest of the chips")
    args = parser.parse_args()
    logging.disable(logging.WARNING)

    first, rows = next(iter(SLICES)), []
    problems = _config(args, first).train.problems_per_step
    for chips, shape in SLICES.items():
        strong = _seconds(args, chips, problems)
        weak = _seconds(args, chips, problems * chips // first)
        print(f"{chips} chips", file=sys.stderr)
        rows.append((chips, shape, strong, problems * chips // first, sum(weak.values())))
    print(_table(rows))


def _config(args: argparse.Namespace, chips: int, problems: int = 0):
    get_config = runpy.run_path(str(ROOT / "configs/permix.py"))["get_config"]
    config = get_config(args.preset)
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 1, chips // args.tensor, args.tensor
    config.train.problems_per_step = problems or config.train.problems_per_step
    return config


def _seconds(args: argparse.Namespace, chips: int, problems: int) -> dict[str, float]:
    topology = f"{args.chip}:{SLICES[chips]}"
    return least_seconds(_config(args, chips, problems), topology, cache_folder())


def _table(rows) -> str:
    first, _, strong, _, weak = rows[0]
    one, each = sum(strong.values()), weak
    header = ["chips", "slice", *strong, "step, s", "of ideal", "weak: problems", "step, s",
              "of ideal"]  # fmt: skip
    cells = []
    for chips, shape, seconds, problems, weak in rows:
        step = sum(seconds.values())
        cells.append([
            str(chips), shape, *(f"{x:.2f}" for x in seconds.values()), f"{step:.2f}",
            f"{one * first / chips / step:.2f}", str(problems), f"{weak:.2f}", f"{each / weak:.2f}",
        ])  # fmt: skip
    return markdown_table(header, cells)


if __name__ == "__main__":
    main()
