"""Errors of the verifier on MATH: python benchmarks/verifier_math.py --folder=DIR

DIR holds math/train.jsonl.gz, math/test_minus_math500.jsonl.gz and math/math500_test.jsonl. Every
gold answer is graded against itself, against rewritten forms of itself (which are right), and
against the answers of other problems: pairs drawn at random, and all pairs with the same letters
and digits. Lists every right one that was refused and every foreign one that was accepted.
"""

import argparse
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

from permix_jax.core.json_lines import read_rows
from permix_jax.core.problem import Problem
from permix_jax.rewards.grade import grade_answer
from permix_jax.rewards.verifier import Verifier

_FILES = (
    "math/train.jsonl.gz", "math/test_minus_math500.jsonl.gz", "math/math500_test.jsonl",
)  # fmt: skip
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?")
_FRACTION = re.compile(r"(-?)\\d?frac\{([0-9]+)\}\{([0-9]+)\}")
_UNIT = re.compile(r"\\?(?:text|mbox)\s*\{\s*[a-z ]+\}(?:\^[23])?$")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where math/ is")
    parser.add_argument("--pairs", type=int, default=40_000, help="random pairs of answers")
    args = parser.parse_args()
    problems = read_math(args.folder)
    print(f"{len(problems)} problems")
    with Verifier(grade_answer) as verifier:
        refused = 0
        cases = {"itself": [(p.answer, p) for p in problems]}
        cases |= {name: rewritten(rewrite, problems) for name, rewrite in REWRITERS.items()}
        for name, rows in cases.items():
            wrong = [row for row, score in grade(verifier, rows) if score != 1.0]
            refused += len(wrong)
            print(f"{name:<24} {len(rows):>6} graded, {len(wrong):>4} refused")
            for answer, problem in wrong:
                print(f"    {problem.id}: {answer!r} for {problem.answer!r}")
        total = sum(map(len, cases.values()))
        print(f"{'false negatives':<24} {refused / total:.3%} of {total}")
        for name, rows in foreign(problems, args.pairs).items():
            accepted = [row for row, score in grade(verifier, rows) if score == 1.0]
            print(f"{name:<24} {len(rows):>6} graded, {len(accepted):>4} accepted")
            for pair, count in sorted(Counter((a, p.answer) for a, p in accepted).items()):
                print(f"    {pair[0]!r} for {pair[1]!r} ({count})")


def read_math(folder: Path) -> list[Problem]:
    problems = []
    for file in _FILES:
        for _, _, row in read_rows(folder / file):
            problems.append(Problem(row["unique_id"], row["problem"], row["answer"], "math"))
    return problems


def grade(verifier: Verifier, rows: Sequence[tuple[str, Problem]]):
    """((answer, problem), score) of each row."""
    texts = [rf"The answer is $\boxed{{{answer}}}$." for answer, _ in rows]
    grades = verifier.submit(texts, [problem for _, problem in rows]).result()
    return zip(rows, grades.correct, strict=True)


def rewritten(rewrite: Callable[[str, Problem], str], problems) -> list[tuple[str, Problem]]:
    rows = [(rewrite(problem.answer, problem), problem) for problem in problems]
    return [(answer, problem) for answer, problem in rows if answer != problem.answer]


def foreign(problems: Sequence[Problem], count: int) -> dict[str, list[tuple[str, Problem]]]:
    """Answers of other problems that are not, as texts without spacing, the gold answer."""
    rng = random.Random(0)
    unlike = [p for p in problems if not _NUMBER.fullmatch(p.answer)]
    alike = defaultdict(dict)
    for problem in problems:
        alike[re.sub(r"\\[a-z]+|[\W_]", "", problem.answer)][_squeezed(problem.answer)] = problem
    return {
        "random answers": _pairs(rng.choices(problems, k=count), rng.choices(problems, k=count)),
        "random, no numbers": _pairs(rng.choices(unlike, k=count), rng.choices(unlike, k=count)),
        "same letters and digits": [
            (one.answer, two)
            for group in alike.values()
            for one in group.values()
            for two in group.values()
            if one is not two
        ],
    }


def _pairs(ones: Sequence[Problem], twos: Sequence[Problem]) -> list[tuple[str, Problem]]:
    pairs = zip(ones, twos, strict=True)
    return [(o.answer, t) for o, t in pairs if _squeezed(o.answer) != _squeezed(t.answer)]


def _squeezed(answer: str) -> str:
    return re.sub(r"\s|\\left|\\right|\\[,!; ]", "", answer).replace("dfrac", "frac")


def _spaced(answer: str, _: Problem) -> str:
    return re.sub(r"([=+,<>]|\\frac)", r" \1 ", answer) if "," not in answer.strip() else answer


def _unspaced(answer: str, _: Problem) -> str:
    if "\\text" in answer or "\\mbox" in answer or re.search(r"[a-zA-Z] +[a-zA-Z0-9]", answer):
        return answer
    return answer.replace(" ", "")


def _sized(answer: str, _: Problem) -> str:
    if "\\left" in answer:
        return answer.replace("\\left", "").replace("\\right", "")
    if answer.startswith("(") and answer.endswith(")") and answer.count("(") == 1:
        return f"\\left{answer[:-1]}\\right)"
    return answer


def _fraction(answer: str, _: Problem) -> str:
    """0.25 as a fraction, and a fraction that has a short decimal as that."""
    if re.fullmatch(r"-?[0-9]*\.[0-9]+", answer):
        value = Fraction(answer)
        return f"{'-' if value < 0 else ''}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    if match := _FRACTION.fullmatch(answer):
        value = Fraction(int(match[2]), int(match[3]))
        if 10**4 % value.denominator == 0:
            return f"{match[1]}{float(value):g}"
    return answer


def _slashed(answer: str, _: Problem) -> str:
    return _FRACTION.sub(r"\1\2/\3", answer) if _FRACTION.fullmatch(answer) else answer


def _multiplied(answer: str, _: Problem) -> str:
    """6/10 for 3/5."""
    return _FRACTION.sub(lambda m: f"{m[1]}\\frac{{{2 * int(m[2])}}}{{{2 * int(m[3])}}}", answer)


def _reordered(answer: str, problem: Problem) -> str:
    """The elements of a list of plain numbers the other way round."""
    parts = answer.split(",")
    listed = len(parts) > 1 and all(re.fullmatch(r"\s*-?[0-9]{1,2}\s*", part) for part in parts)
    return ", ".join(part.strip() for part in reversed(parts)) if listed else answer


def _swapped(answer: str, _: Problem) -> str:
    """1 + sqrt 2 for sqrt 2 + 1, where the answer is one sum of two."""
    match = re.fullmatch(
        r"([0-9a-z]+|[0-9]*\\sqrt\{[0-9]+\}) *\+ *([0-9a-z]*\\?[a-z{}0-9]+)", answer
    )
    return f"{match[2]} + {match[1]}" if match else answer


def _named(answer: str, problem: Problem) -> str:
    asked = re.search(r"(?:Find|Compute|What is) \$([a-z])\$", problem.prompt)
    number = re.fullmatch(r"-?[0-9]+|-?\\d?frac\{[0-9]+\}\{[0-9]+\}", answer)
    return f"{asked[1]} = {answer}" if asked and number else answer


def _without_unit(answer: str, _: Problem) -> str:
    if match := re.fullmatch(r"([0-9./]+) *(?:\^\\circ|\\%)", answer):
        return match[1]
    return _UNIT.sub("", answer).strip() if re.match(r"[0-9]", answer) else answer


REWRITERS: dict[str, Callable[[str, Problem], str]] = {
    "dfrac": lambda a, _: a.replace("\\frac", "\\dfrac"),
    "frac": lambda a, _: a.replace("dfrac", "frac").replace("tfrac", "frac"),
    "spaces": _spaced,
    "no spaces": _unspaced,
    "left and right": _sized,
    "decimals and fractions": _fraction,
    "a/b": _slashed,
    "fractions not reduced": _multiplied,
    "lists reordered": _reordered,
    "sums reordered": _swapped,
    "x =": _named,
    "no unit": _without_unit,
    "full stop": lambda a, _: a if a.endswith(".") else a + ".",
    "dollar signs": lambda a, _: f"${a}$" if "$" not in a else a,
    "explicit products": lambda a, _: re.sub(r"(?<=[0-9])(?=\\sqrt|\\pi)", r" \\cdot ", a),
    "bmatrix": lambda a, _: a.replace("pmatrix", "bmatrix"),
    "fbox": lambda a, _: f"\\fbox{{{a}}}",
    "displaystyle": lambda a, _: "\\displaystyle " + a,
    ".0": lambda a, _: a + ".0" if re.fullmatch(r"-?[0-9]+", a) else a,
    "thousands": lambda a, _: f"{int(a):,}" if re.fullmatch(r"-?[0-9]{4,}", a) else a,
}


if __name__ == "__main__":
    main()
