"""Gradings a second: python benchmarks/grading.py --folder=DIR

DIR holds gsm8k/train.jsonl.gz and math/train.jsonl.gz. Each problem gets one completion, its own
worked solution with another end: of ten, four state the gold answer, three a rewritten form of it,
two the answer of another problem, and one ends within its box. The verifier (two processes beside
the calling one, nothing remembered) is timed on all of them, math-verify called directly, in this
one process, on some; and then the processes alone, on pairs that take algebra.
"""

import argparse
import random
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from math_verify import parse, verify
from verifier_math import REWRITERS

from permix_jax.core.json_lines import read_rows
from permix_jax.core.problem import Problem, Undecided
from permix_jax.rewards.grade import grade_answer
from permix_jax.rewards.pool import Pool
from permix_jax.rewards.verifier import Verifier

_KINDS = ["gold"] * 4 + ["rewritten"] * 3 + ["of another problem"] * 2 + ["unfinished"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="where gsm8k/ and math/ are")
    parser.add_argument("--direct", type=int, default=1000, help="completions for math-verify")
    args = parser.parse_args()
    for name, read in (("GSM8K", read_gsm8k), ("MATH", read_math)):
        problems, solutions = read(args.folder)
        texts, kinds = completions(problems, solutions, random.Random(0))
        seconds, grades = time_verifier(texts, problems)
        share = grades.metrics["verifier/symbolic_share"]
        print(
            f"{name}: {len(texts)} completions, {sum(map(len, texts)) / len(texts):.0f} characters "
            f"each\n  verifier, 2 processes   {len(texts) / seconds:8.0f} /s, "
            f"{share:.3%} reached sympy"
        )
        for kind in dict.fromkeys(kinds):
            right = [c for c, k in zip(grades.correct, kinds, strict=True) if k == kind]
            print(f"    {kind:<20} {len(right):>5}, {sum(right) / len(right):8.2%} right")
        few = slice(0, args.direct)
        print(f"  math-verify, 1 process  {time_direct(texts[few], problems[few]):8.0f} /s")
    pairs = hard_pairs()
    with closing(Pool(2, item_seconds=10)) as pool:
        pool.grade(pairs[:4], batch_seconds=60)
        start = time.perf_counter()
        pool.grade(pairs, batch_seconds=600)
        rate = len(pairs) / (time.perf_counter() - start)
    print(f"pairs that take algebra: 2 processes {rate:.0f} /s")


def read_gsm8k(folder: Path) -> tuple[list[Problem], list[str]]:
    problems, solutions = [], []
    for line, _, row in read_rows(folder / "gsm8k/train.jsonl.gz"):
        solution, _, answer = row["answer"].rpartition("####")
        problems.append(Problem(f"gsm8k-{line}", row["question"], answer.strip(), "gsm8k"))
        solutions.append(solution.strip())
    return problems, solutions


def read_math(folder: Path) -> tuple[list[Problem], list[str]]:
    problems, solutions = [], []
    for _, _, row in read_rows(folder / "math/train.jsonl.gz"):
        problems.append(Problem(row["unique_id"], row["problem"], row["answer"], "math"))
        solution = row["solution"]
        solutions.append(solution.replace("\\boxed", "").replace("\\fbox", ""))
    return problems, solutions


def completions(
    problems: Sequence[Problem], solutions: Sequence[str], rng: random.Random
) -> tuple[list[str], list[str]]:
    texts, kinds = [], []
    for problem, solution in zip(problems, solutions, strict=True):
        kind, answer = rng.choice(_KINDS), problem.answer
        if kind == "rewritten":
            forms = {rewrite(answer, problem) for rewrite in REWRITERS.values()} - {answer}
            answer = rng.choice(sorted(forms))
        elif kind == "of another problem":
            answer = rng.choice(problems).answer
        end = "" if kind == "unfinished" else "}$."
        texts.append(f"{solution}\nThe answer is $\\boxed{{{answer}{end}")
        kinds.append(kind)
    return texts, kinds


def time_verifier(texts: Sequence[str], problems: Sequence[Problem]):
    with Verifier(grade_answer, workers=2, batch_seconds=600) as verifier:
        warm = Undecided("\\ln 2+\\ln 3", "\\ln 6")
        verifier.submit([f"\\boxed{{{warm.answer}}}"], [Problem("", "", warm.gold, "")]).result()
        start = time.perf_counter()
        grades = verifier.submit(texts, problems).result()
        return time.perf_counter() - start, grades


def time_direct(texts: Sequence[str], problems: Sequence[Problem]) -> float:
    start = time.perf_counter()
    for text, problem in zip(texts, problems, strict=True):
        gold = parse(f"\\boxed{{{problem.answer}}}", parsing_timeout=None)
        verify(gold, parse(text, parsing_timeout=None), timeout_seconds=None)
    return len(texts) / (time.perf_counter() - start)


def hard_pairs() -> list[Undecided]:
    """Identities with other numbers in each, right and wrong."""
    return [
        pair
        for n in range(2, 42)
        for pair in (
            Undecided(f"\\ln {n}+\\ln {n + 1}", f"\\ln {n * n + n}"),
            Undecided(f"\\sin {2 * n}x", f"2\\sin {n}x\\cos {n}x"),
            Undecided(f"\\sqrt {{{n + 1}+2\\sqrt {{{n}}}}}", f"1+\\sqrt {{{n}}}"),
            Undecided(f"|{n}-x|", f"|x-{n}|"),
            Undecided(f"\\log _{{{n}}}{n * n * n}", "3"),
        )
    ]


if __name__ == "__main__":
    main()
