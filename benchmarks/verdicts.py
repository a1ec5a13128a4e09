"""Verdicts of the verifier and of math-verify alone: python benchmarks/verdicts.py TABLE ...

A row of a table is {"kind", "problem", "gold", "answer" or "completion", "right" (or "correct"):
true or false}. Prints, by kind, how many right answers each of the two refuses and how many wrong
ones it accepts; then every row on which the verifier errs. An answer that gets no verdict is not
accepted.
"""

import argparse
import logging
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from math_verify import parse, verify

from permix_jax.app.grading import Answer, graded, read_answers
from permix_jax.core.json_lines import read_rows

_HEAD = ("kind", "rows", *["right accepted", "right refused", "wrong accepted"] * 2)


class Judged(NamedTuple):
    """A row with the verdict that it should get, ours (None: unknown) and math-verify's."""

    where: str
    kind: str
    row: Answer
    right: bool
    ours: bool | None
    theirs: bool
    why: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("tables", nargs="+", type=Path, metavar="TABLE", help="JSON Lines")
    tables = parser.parse_args().tables
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    try:
        judged = [row for table in tables for row in judge(table)]
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    print(by_kind(judged))
    misses = [row for row in judged if row.ours is not row.right]
    theirs = sum(row.theirs is not row.right for row in judged)
    print(f"\nof {len(judged)} the verifier misses {len(misses)}, math-verify {theirs}")
    for miss in misses:
        said = {True: "accepted", False: "refused", None: "unknown"}[miss.ours]
        also = "" if miss.theirs is miss.right else "; so does math-verify"
        pair = f"{miss.row.gold!r} | {miss.row.answer!r}"
        print(f"{miss.where} {miss.kind}: {pair} {said}: {miss.why}{also}")


def judge(table: Path) -> list[Judged]:
    """The rows of a table with all verdicts. Raises ValueError for a row without one of its own."""
    answers, judged = read_answers(table), []
    verdicts = [each for some in graded(answers) for each in some]
    rows = read_rows(table)
    for answer, verdict, (_, where, row) in zip(answers, verdicts, rows, strict=True):
        right = row.get("right", row.get("correct"))
        if not isinstance(right, bool):
            raise ValueError(f"{where}: 'right' is {right!r}; write true or false")
        completion = row.get("completion", f"\\boxed{{{answer.answer}}}")
        theirs = math_verify_alone(answer.gold, completion)
        ours, why = verdict["right"], verdict["why"]
        judged.append(Judged(where, row.get("kind", "-"), answer, right, ours, theirs, why))
    return judged


def math_verify_alone(gold: str, completion: str) -> bool:
    """As its README calls it, with its own timeouts, which need the main thread."""
    try:
        return bool(verify(parse(f"\\boxed{{{gold}}}"), parse(completion)))
    except Exception:  # it lets some of sympy's through
        return False


def by_kind(judged: Sequence[Judged]) -> str:
    """A table in Markdown: a row for each kind, and one for all."""
    kinds = list(dict.fromkeys(row.kind for row in judged))
    lines = [
        "| | | the verifier | | | math-verify alone | | |",
        "| --- " * len(_HEAD) + "|",
        "| " + " | ".join(_HEAD) + " |",
    ]
    groups = [(kind, [row for row in judged if row.kind == kind]) for kind in kinds]
    for kind, rows in [*groups, ("all", judged)]:
        cells = [kind, len(rows)]
        for accepted in ([row.ours is True for row in rows], [row.theirs for row in rows]):
            counts = Counter(zip([row.right for row in rows], accepted, strict=True))
            cells += [counts[True, True], counts[True, False], counts[False, True]]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
