"""Grades a file of answers, as a run would, and says why each is right or wrong.

  python launch/grade.py --file=rows.jsonl
  python launch/grade.py --file=rows.jsonl --out=verdicts.jsonl

A row is {"problem", "gold", "completion"}, or with "answer", what would stand in the box, for
"completion". Its verdict is {"right", "kind", "why", "row"}; right is null where the gold answer
states nothing. Repeat the command to continue where it stopped. docs/rewards.md says which answers
are right.
"""

import sys
from collections.abc import Sequence

from permix_jax.app.cli import STOPPED, Parser, fail
from permix_jax.core.places import place_of, require_local


def main(argv: Sequence[str] | None = None) -> None:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--file", type=place_of, required=True, metavar="FILE", help="JSON Lines, plain or gzipped")
    add("--out", type=place_of, metavar="FILE", help="for the verdicts; default: they are printed")
    add("--last_number", action="store_true", help="without a box or ####, the last number counts")
    add("--thinking_end", metavar="TEXT", help="as rewards.thinking_end; default: </think>")
    add("--thinking_begun", action="store_true", help="prompts began the thought (R1)")
    a = parser.parse_args(argv)

    from permix_jax.app.grading import grade_file

    try:
        require_local(a.file, "--file")
        require_local(a.out, "--out")
        end = {} if a.thinking_end is None else {"thinking_end": a.thinking_end}
        said = grade_file(a.file, a.out, a.last_number, thinking_begun=a.thinking_begun, **end)
    except (OSError, ValueError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        kept = "what was done is saved, and the same command goes on from there"
        print(f"stopped; {kept}" if a.out else "stopped", file=sys.stdout if a.out else sys.stderr)
        sys.exit(STOPPED)
    print(said, file=sys.stdout if a.out else sys.stderr)


if __name__ == "__main__":
    main()
