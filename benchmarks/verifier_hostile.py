"""Hostile answers and how long they take: python benchmarks/verifier_hostile.py

Towers of powers, factorials, determinants, nesting, a megabyte of braces, control characters, code,
and pieces of all that in disorder, each against some gold answers and against itself. Prints how
many are right for another gold answer, which none should be, and the longest. Ends with status 1 if
one is right.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator

from permix_jax.core.problem import Problem
from permix_jax.rewards.grade import grade_answer

_SINES = ",".join(rf"\sin {n}" for n in range(1, 41))
GOLDS = ("72", r"\sqrt{2}+x", "(3,4)", r"\ln 6", "x>2", "y=1/x", r"5\text{ m}", _SINES)
_WORDING = "Find the general solution in integers, in increasing order. How many feet is $x$?"
# Written by hand, to take as long as they can.
WORST = (
    "9" + "^{9" * 20 + "}" * 20, "(" * 20 + "x+y" + ")^{40}" * 20, r"(1000!)^{1000!}",
    "+".join(f"{n}!" for n in range(900, 970)), r"\binom{1000}{500}^{100}",
    r"\sqrt{2+" * 20 + "2" + "}" * 20, r"\sqrt{" + "9" * 480 + "}", "9" * 10**6,
    "0." + "3" * 10**6, "(" * 10**5 + ")" * 10**5, "1," * 300_000, ",".join(map(str, range(60))),
    ",".join(rf"\sin {n}" for n in range(60)), "+".join(rf"\sin {n}x" for n in range(40)),
    "+".join(chr(97 + n % 26) for n in range(249)), r"\tan(" * 20 + "10^{14}" + ")" * 20,
    "1/(x+" * 20 + "1" + ")" * 20, "1/(x+" * 18 + "1" + ")" * 18 + "=y",
    "+".join(rf"1/(\sin x+{n})" for n in range(2, 35)) + "=0", "+".join("x" * 249),
    r"\cup".join(f"({n},{n + 1})" for n in range(40)), r"\zeta(\zeta(\zeta(x)))<1",
    r"\{x \mid x^{x^x} < \zeta(x)\}", r"\{x \mid \sin(1/x) > 0\}", r"\binom{x}{x/2}<\zeta(x)",
    "x^{40}-x^{39}+\\sin x<\\cos(x^3)", "A\\sin x+B\\cos x+C+D", "5 " + "m/s" * 100,
    "+".join(f"1/{n}^{{90}}" for n in range(2, 60)), "|" * 200, "-" * 400 + "1", "5" + "!" * 100,
)  # fmt: skip
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
    right, slowest = [], (0.0, "")
    strings = [*WORST, *hostile(count)]
    for text in strings:
        for gold, prompt in (*((gold, "") for gold in GOLDS), (text, ""), ("(3,4)", _WORDING)):
            start = time.thread_time()
            grade = grade_answer(f"\\boxed{{{text}}}", Problem("", prompt, gold, ""))
            slowest = max(slowest, (time.thread_time() - start, f"{text[:80]!r} for {gold[:20]!r}"))
            if grade != 0.0 and gold != text:
                right.append((text[:80], gold))
    print(f"{len(strings)} strings, each against {len(GOLDS)} gold answers, itself and a wording")
    print(f"longest {slowest[0]:.2f} s of CPU, {slowest[1]}")
    print(f"right: {len(right)}")
    for pair in right:
        print(f"    {pair[0]!r} for {pair[1]!r}")
    sys.exit(bool(right))


if __name__ == "__main__":
    main()
