"""Hostile answers and how long they take: python benchmarks/verifier_hostile.py

Towers of powers, factorials, determinants, nesting, a megabyte of braces, control characters, code,
and pieces of all that in disorder, each against four gold answers. Prints how many are right, which
none should be, the longest in the verifier's thread, and what the processes say of those that it
leaves to them. Ends with status 1 if one is right.
"""

import argparse
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator

from permix_jax.core.problem import Problem, Undecided
from permix_jax.rewards.grade import grade_answer
from permix_jax.rewards.verifier import UNKNOWN, Verifier

GOLDS = ("72", r"\sqrt{2}+x", "(3,4)", r"\ln 6")
_ATOMS = ("9", "x", "y", "z", "10^{99}", "0", r"\pi", "i", "0.1", "99999999", "e", "-1", r"\infty")
_SHAPES = (
    "({}+{})^{{40}}", "{}^{{{}}}", "{}^{}", r"\frac{{{}}}{{{}}}", "(({})!+{})!", "({},{})", "{}={}",
    r"\sqrt[7]{{{}{}}}", r"\binom{{{}}}{{{}}}", r"\sin({}-{})", r"\{{{},{}\}}", r"{}\cdot {}",
    r"\begin{{vmatrix}}{}&{}\end{{vmatrix}}", r"\sum_{{i=0}}^{{{}}}{}", r"\int {} d{}", "|{}-{}|",
    r"\begin{{pmatrix}}{}\\{}\end{{pmatrix}}", r"\log_{{{}}}{}", r"[{},{})", r"{}\cup{}", "{}<{}",
    r"\tan {}^{{{}}}", r"\lfloor {}/{}\rfloor", "{}**{}", r"{}\pm{}", r"{} \text{{ m}}/{}",
)  # fmt: skip
_PIECES = (
    "{", "}", "\\", "\\frac", "\\sqrt", "^", "_", "(", ")", "[", "]", "|", ",", ";", "=", "<", "!",
    "9", "x", "1,111", "\\text{", "\\left(", "\\right]", "\\begin{pmatrix}", "\\end{matrix}", "&",
    "\\\\", "$", "%", "\x00", "\x1b[31m", "\u202e", "\u200b", "\ud7ff", "\U0001f600", "½", "√", "⁹",
    "\\boxed{", "####", "\\cup", "\\pm", "\\infty", "^\\circ", "\\%", "\\approx", "e", "i", "e+99",
    "__import__('os')", "lambda: 0", "eval(", "().__class__", "\\operatorname{", "\\color{", "~",
)  # fmt: skip


def hostile(count: int) -> Iterator[str]:
    """The same strings each time: monstrous expressions, one piece many times, and disorder."""
    rng = random.Random(0)
    for index in range(count):
        if index % 4 == 0:
            yield "".join(rng.choices(_PIECES, k=rng.randrange(1, 60)))
        elif index % 4 == 1:
            piece = rng.choice((*_PIECES, "9^", "x+", "(x+y)^", "1/", "-", "\\sin", "\\{1,", "5"))
            length = rng.choice((10, 100, 1000, 1_000_000)) // (1 + ("{" in piece))
            inner = piece * (length // len(piece) + 1)
            yield inner + "}" * inner.count("{")
        else:
            yield _expression(rng, rng.randrange(1, 7))[: rng.choice((120, 500, 2000))]


def _expression(rng: random.Random, depth: int) -> str:
    if not depth:
        return rng.choice(_ATOMS)
    return rng.choice(_SHAPES).format(_expression(rng, depth - 1), _expression(rng, depth - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=1000, help="strings")
    count = parser.parse_args().count
    right, undecided, slowest = [], {}, (0.0, "")
    for text in hostile(count):
        for gold in GOLDS:
            start = time.thread_time()
            grade = grade_answer(f"\\boxed{{{text}}}", Problem("", "", gold, ""))
            slowest = max(slowest, (time.thread_time() - start, f"{text[:80]!r} for {gold!r}"))
            if isinstance(grade, Undecided):
                undecided[grade] = text
            elif grade != 0.0:
                right.append((text[:80], gold))
    print(f"{count} strings, each against {len(GOLDS)} gold answers")
    print(f"in the thread: longest {slowest[0]:.2f} s of CPU, {slowest[1]}")

    said, slowest = Counter(), (0.0, "")
    with Verifier(grade_answer, batch_seconds=math.inf) as verifier:
        verifier.decide([Undecided("\\ln 2+\\ln 3", "\\ln 6")])  # the processes are warm then
        for pair in undecided:
            start = time.perf_counter()
            decision = verifier.decide([pair])[pair]
            slowest = max(slowest, (time.perf_counter() - start, f"{pair.answer[:80]!r}"))
            said["wrong" if decision is False else str(decision)] += 1
            if decision is True:
                right.append((pair.answer, pair.gold))
            elif decision in UNKNOWN:
                print(f"    {decision}: {pair.answer[:80]!r} for {pair.gold!r}")
    outcomes = ", ".join(f"{number} {name}" for name, number in sorted(said.items())) or "none"
    print(f"in processes: {len(undecided)} pairs: {outcomes}")
    print(f"    longest {slowest[0]:.2f} s, {slowest[1]}")
    print(f"right: {len(right)}")
    for pair in right:
        print(f"    {pair[0]!r} for {pair[1]!r}")
    sys.exit(bool(right))


if __name__ == "__main__":
    main()
