"""Compares finished runs: `python launch/compare.py runs/permix-* runs/rlvr-*`.

Prints a row for each method (mean over its seeds) and the paired difference permix - rlvr.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from permix_jax.evaluation.compare import compare


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="DIR", help="workdir of a run")
    try:
        print(compare(parser.parse_args(argv).workdirs))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"compare.py: {error}")


if __name__ == "__main__":
    main()
