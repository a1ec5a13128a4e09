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
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path

from permix_jax.planning.environment import compile_for_tpu

compile_for_tpu()  # before JAX is imported

from permix_jax.app.workdir import cache_folder  # noqa: E402
from permix_jax.planning.plan import least_seconds  # noqa: E402
from permix_jax.report.tables import markdown_table, table  # noqa: E402

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
    seconds = cache(partial(_seconds, args))  # the smallest slice is the start of both
    problems = _config(args, first).train.problems_per_step
    for chips in SLICES:
        strong, more = seconds(chips, problems), problems * chips // first
        rows.append((chips, strong, more, sum(seconds(chips, more).values())))
        print(f"{chips} chips", file=sys.stderr)
    print(markdown_table(scaling_table(rows)))


def _config(args: argparse.Namespace, chips: int, problems: int = 0):
    get_config = runpy.run_path(str(ROOT / "configs/permix.py"))["get_config"]
    config = get_config(args.preset)
    config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 1, chips // args.tensor, args.tensor
    config.train.problems_per_step = problems or config.train.problems_per_step
    return config


def _seconds(args: argparse.Namespace, chips: int, problems: int) -> dict[str, float]:
    topology = f"{args.chip}:{SLICES[chips]}"
    return least_seconds(_config(args, chips, problems), topology, cache_folder())


def scaling_table(rows: Sequence[tuple[int, Mapping[str, float], int, float]]) -> dict:
    """A table (`tables.table`) of rows of chips, the seconds of each program at the first problems
    a step, the problems of weak scaling, and the seconds of its step."""
    fewest, programs, _, weakest = rows[0]
    columns = {
        "chips": "d",
        "slice": "",
        **dict.fromkeys(programs, ".2f"),
        "strong: step, s": ".2f",
        "of ideal": ".2f",
        "weak: problems": "d",
        "step, s": ".2f",
        "of ideal, weak": ".2f",
    }
    ideal = sum(programs.values()) * fewest
    return table(columns, [
        [chips, SLICES[chips], *strong.values(), sum(strong.values()),
         ideal / chips / sum(strong.values()), problems, weak, weakest / weak]
        for chips, strong, problems, weak in rows
    ])  # fmt: skip


if __name__ == "__main__":
    main()
