"""Compares finished runs of one seed or several.

  python launch/compare.py runs/permix runs/rlvr --out=runs/comparison
  python launch/compare.py runs/reproduce/permix-s* runs/reproduce/rlvr-s*

Prints a row for each method (mean over its seeds) and the paired difference permix - rlvr.
Below stands more than PSS: the worst persona minus none, who is hurt, whether answers agree.
With --out=DIR it also writes DIR/report.html and its plots. --pss=NAME reads all scores again by
another formula, from what the runs left; no model is asked.
"""

from collections.abc import Sequence

from permix_jax.app.cli import Parser, fail
from permix_jax.app.next_steps import after_comparison
from permix_jax.core.config_fields import FIELDS
from permix_jax.core.places import place_of


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    parser.add_argument(
        "workdirs", nargs="+", type=place_of, metavar="DIR", help="workdir of a run"
    )
    parser.add_argument("--out", type=place_of, metavar="DIR", help="for a report; default: none")
    parser.add_argument(
        "--competence", action="store_true", help="also how fidelity moved with the base's accuracy"
    )
    choices = FIELDS["eval.pss"].rule.choices
    parser.add_argument("--pss", choices=choices, metavar="NAME", help=" or ".join(choices))
    a = parser.parse_args(argv)

    from permix_jax.report.comparison_page import compare

    try:
        print(compare(a.workdirs, a.out, a.competence, a.pss))
    except (OSError, ValueError) as error:
        fail(str(error))
    print(after_comparison(a.out))


if __name__ == "__main__":
    main()
