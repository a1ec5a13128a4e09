"""Real word problems from local files: GSM8K and MAWPS to train on, SVAMP to test on.

One folder holds all three as JSON Lines, in the fields of their publishers (for MAWPS and SVAMP
those of the Qwen2.5-Math evaluation sets):

    gsm8k/train.jsonl.gz    question, answer (a worked solution that ends with "#### N")
    mawps/mawps.jsonl       input, target
    svamp/svamp.jsonl       Body, Question, Answer

A problem's id is its source and the number of its line. A question that a file has twice (compared
on letters and digits) is kept once, or not at all where its answers differ.
"""

import logging
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from permix_jax.personas.persona import Persona
from permix_jax.randomness import generator
from permix_jax.rewards.numeric import numeric_reward, parse_number
from permix_jax.tasks.json_lines import read_rows, text_field
from permix_jax.tasks.problem import Demonstration, Problem, Task

logger = logging.getLogger(__name__)

GSM8K = "gsm8k/train.jsonl.gz"
MAWPS = "mawps/mawps.jsonl"
SVAMP = "svamp/svamp.jsonl"
FILES = f"{GSM8K}, {MAWPS} and {SVAMP}"

INSTRUCTION = "Work it out step by step. End with '#### ' and the number."

_CALCULATION = re.compile(r"<<[^<>]*>>")
_NOT_LETTER_OR_DIGIT = re.compile(r"[\W_]")


def read_gsm8k(folder: str | Path, max_steps: int) -> list[Problem]:
    """GSM8K training problems of 1 to `max_steps` steps, a step being one <<...>> calculation.

    Solutions without any <<...>> are left out: they are mostly algebra, their steps unknown.
    `meta` has "steps" and "solution", the worked solution less its <<...>>, which ends with the
    line "#### N".

    Raises:
      FileNotFoundError: the folder does not hold the file.
      ValueError: no problem is left, or a row is malformed (the message names file:line).
    """
    problems = []
    for line, where, row in read_rows(folder, GSM8K, FILES):
        solution, _, answer = text_field(row, "answer", where).rpartition("####")
        answer, steps = answer.strip(), len(_CALCULATION.findall(solution))
        worked = f"{_CALCULATION.sub('', solution).strip()}\n#### {answer}"
        meta = {"steps": steps, "solution": worked}
        question = text_field(row, "question", where)
        problems.append(_problem(f"gsm8k-{line}", question, answer, where, meta))
    few_steps = [p for p in problems if 1 <= p.meta["steps"] <= max_steps]
    if not few_steps:
        raise ValueError(
            f"data.max_steps is {max_steps}: {GSM8K} has no problem of 1 to so many steps"
        )
    return _without_doubles(few_steps)


def read_mawps(folder: str | Path) -> list[Problem]:
    """All of MAWPS; raises as `read_gsm8k` does."""
    problems = []
    for line, where, row in read_rows(folder, MAWPS, FILES):
        question = text_field(row, "input", where)
        problems.append(_problem(f"mawps-{line}", question, _number(row, "target", where), where))
    return _without_doubles(problems)


def read_svamp(folder: str | Path) -> list[Problem]:
    """All of SVAMP; raises as `read_gsm8k` does."""
    problems = []
    for line, where, row in read_rows(folder, SVAMP, FILES):
        body = text_field(row, "Body", where).strip()
        # A body without a full stop is an open "If ..." clause, which the question completes.
        stop = "" if body.endswith((".", "?", "!")) else ","
        question = f"{body}{stop} {text_field(row, 'Question', where)}"
        problems.append(_problem(f"svamp-{line}", question, _number(row, "Answer", where), where))
    return _without_doubles(problems)


def word_problem_task(
    folder: str | Path, personas: Sequence[Persona], max_steps: int, num_test: int, seed: int
) -> Task:
    """Trains on GSM8K (at most `max_steps` steps) and MAWPS, tests on `num_test` SVAMP problems.

    The test set is a pure function of `seed`, and a smaller one is part of a larger one. A
    training problem whose question occurs anywhere in SVAMP is left out. A demonstration is a
    GSM8K worked solution, under a random training persona with probability 1/2.
    """
    svamp = read_svamp(folder)
    if not 1 <= num_test <= len(svamp):
        raise ValueError(
            f"task.num_test is {num_test}; SVAMP has {len(svamp)} problems, use 1 or more"
        )
    order = generator(seed, "word_problems/test").permutation(len(svamp))
    gsm8k = _without_questions_of(svamp, read_gsm8k(folder, max_steps))
    mawps = _without_questions_of(svamp, read_mawps(folder))
    train_personas = [persona for persona in personas if persona.split == "train"]

    def demonstrate(rng: np.random.Generator, train: Sequence[Problem]) -> Demonstration:
        problem = _draw_worked(rng, train)
        persona = None
        if train_personas and rng.random() < 0.5:
            persona = train_personas[rng.integers(len(train_personas))]
        return Demonstration(persona, problem.prompt, problem.meta["solution"])

    return Task(
        name="word_problems",
        train=[*gsm8k, *mawps],
        test=[svamp[index] for index in order[:num_test]],
        personas=personas,
        reward=numeric_reward,
        demonstrate=demonstrate,
    )


def _draw_worked(rng: np.random.Generator, problems: Sequence[Problem]) -> Problem:
    """One of the problems that have a worked solution: about half do, GSM8K's."""
    for _ in range(1000):
        problem = problems[rng.integers(len(problems))]
        if "solution" in problem.meta:
            return problem
    raise ValueError(
        "no training problem with a worked solution is left for SFT; raise "
        "rollout.max_prompt_tokens, or set sft.steps to 0"
    )


def _problem(
    id: str, question: str, answer: str, where: str, meta: Mapping[str, Any] | None = None
) -> Problem:
    if parse_number(answer) is None:
        raise ValueError(f"{where}: the answer ends in {answer[:40]!r}, which is not a number")
    source = id.partition("-")[0]
    return Problem(id, f"{question.strip()}\n{INSTRUCTION}", answer, source, meta or {})


def _without_doubles(problems: Sequence[Problem]) -> list[Problem]:
    first: dict[str, Problem] = {}
    answers = defaultdict(set)
    for problem in problems:
        first.setdefault(_question_key(problem), problem)
        answers[_question_key(problem)].add(parse_number(problem.answer))
    kept = [problem for key, problem in first.items() if len(answers[key]) == 1]
    if dropped := len(problems) - len(kept):
        logger.info("%s: left out %d doubled questions", problems[0].source, dropped)
    return kept


def _without_questions_of(test: Sequence[Problem], train: Sequence[Problem]) -> list[Problem]:
    tested = set(map(_question_key, test))
    kept = [problem for problem in train if _question_key(problem) not in tested]
    logger.info(
        "%s: left out %d questions of the test set", train[0].source, len(train) - len(kept)
    )
    if not kept:
        raise ValueError(f"every question of {train[0].source} is in the test set as well")
    return kept


def _question_key(problem: Problem) -> str:
    return _NOT_LETTER_OR_DIGIT.sub("", problem.prompt.lower())


def _number(row: Mapping[str, Any], name: str, where: str) -> str:
    """43.0 -> "43", 1.84 -> "1.84", and 0.3333333333, which MAWPS writes for a third, -> "1/3"."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{where}: field {name!r} is {value!r}; it must be a number")
    exact = Fraction(repr(value))
    if exact.denominator > 10_000:
        return str(exact.limit_denominator(100))
    return str(exact.numerator) if exact.denominator == 1 else repr(value)
