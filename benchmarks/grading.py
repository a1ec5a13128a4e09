"""Gradings a second: python benchmarks/grading.py --folder=DIR

DIR holds gsm8k/train.jsonl.gz and math/train.jsonl.gz. Each problem gets one completion, its own
worked solution with another end: of ten, four state the gold answer, three a rewritten form of it,
two the answer of another problem, and one ends within its box. The verifier is timed on all of
them, math-verify called directly on some; both in seconds of CPU. At the end the verifier grades
what a step of 256 problems and 8 rollouts each would bring: eight such completions of each.
"""

import argparse
import random
import time
from collections.abc import Sequence
from pathlib import Path

from math_verify import parse, verify
from verifier_math import REWRITERS

from permix_jax.core.json_lines import read_rows
from permix_jax.core.problem import Problem
from permix_jax.rewards.grade import grade_answer
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
        print(
            f"{name}: {len(texts)} completions, {sum(map(len, texts)) / len(texts):.0f} characters "
            f"each\n  verifier     {len(texts) / seconds:8.0f} /s of CPU"
        )
        for kind in dict.fromkeys(kinds):
            right = [c for c, k in zip(grades.correct, kinds, strict=True) if k == kind]
            print(f"    {kind:<20} {len(right):>5}, {sum(right) / len(right):8.2%} right")
        few = slice(0, args.direct)
        print(f"  math-verify  {time_direct(texts[few], problems[few]):8.0f} /s of CPU")
    step = random.Random(1).sample(range(len(problems)), 256)
    eight = [[each[i] for i in step for _ in range(8)] for each in (problems, solutions)]
    texts, _ = completions(*eight, random.Random(2))
    seconds, _ = time_verifier(texts, eight[0])
    print(f"a step of 256 problems of MATH and 8 rollouts: {seconds:.2f} s of CPU")


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
    """(seconds of CPU, grades)."""
    with Verifier(grade_answer) as verifier:
        verifier.submit(["\\boxed{5 m}"], [Problem("", "", "6 m", "")]).result()  # reads the units
        start = time.process_time()
        grades = verifier.submit(texts, problems).result()
        return time.process_time() - start, grades


def time_direct(texts: Sequence[str], problems: Sequence[Problem]) -> float:
    start = time.process_time()
    for text, problem in zip(texts, problems, strict=True):
        gold = parse(f"\\boxed{{{problem.answer}}}", parsing_timeout=None)
        verify(gold, parse(text, parsing_timeout=None), timeout_seconds=None)
    return len(texts) / (time.process_time() - start)


if __name__ == "__main__":
    main()
