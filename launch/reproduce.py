"""Makes the paper's comparison:

    python launch/reproduce.py --config=configs/reproduce.py [--out=DIR]

Trains and evaluates every method over seeds, several runs side by side, and prints one table. DIR
(default: runs/reproduce) gets a workdir for each run, comparison.txt, comparison.json, plots and
report.html. The same command again goes on where the last one stopped, and keeps finished runs.
"""

from pathlib import Path

from absl import flags

from permix_jax.cli import launch
from permix_jax.reproduction.reproduce import reproduce
from permix_jax.training.stop import Stopped

_OUT = flags.DEFINE_string("out", None, "default: runs/<config>-<preset>")


def main(config, workdir, name, preset) -> None:
    out = Path(_OUT.value) if _OUT.value else workdir
    try:
        print(reproduce(config, out, preset))
    except Stopped:
        print(f"stopped; {out} is saved, and the same command goes on from there")


if __name__ == "__main__":
    launch(main)
