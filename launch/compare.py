"""Compares finished runs: `python launch/compare.py runs/permix-* runs/rlvr-*`.

Prints a row for each method (mean over its seeds) and the paired difference permix - rlvr, and with
--out=DIR writes DIR/report.html.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from permix_jax.evaluation.report.comparison import compare


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("workdirs", nargs="+", type=Path, metavar="DIR", help="workdir of a run")
    parser.add_argument("--out", type=Path, help="folder for a report of it; default: none")
    a = parser.parse_args(argv)
    try:
        print(compare(a.workdirs, a.out))
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"compare.py: {error}")


if __name__ == "__main__":
    main()
