r"""Competition problems from local files: MATH to train on, MATH500 to test on.

The folder holds them as JSON Lines, in MATH's fields and two that MATH500 has too:

    math/train.jsonl.gz                 problem, solution, answer, unique_id, level, type
    math/math500_test.jsonl             problem, solution, answer, unique_id, level, subject
    math/rewordings_of_math500.jsonl    unique_id (this file may be absent)

`unique_id` is the problem's path in MATH ("train/algebra/1.json"), `answer` the content of the last
\boxed{} of `solution`. The third file names training problems that are problems of MATH500 in other
words. Questions are compared without spacing and the punctuation of sentences; letters and digits
alone would take k > 0 and k < 0 for the same.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from permix_jax.personas.persona import Persona
from permix_jax.randomness import generator
from permix_jax.rewards.boxed import boxed_reward, read_answer
from permix_jax.tasks.json_lines import read_rows, text_field
from permix_jax.tasks.problem import Demonstration, Problem, Task

logger = logging.getLogger(__name__)

TRAIN = "math/train.jsonl.gz"
TEST = "math/math500_test.jsonl"
REWORDINGS = "math/rewordings_of_math500.jsonl"
FILES = f"{TRAIN} and {TEST}"

INSTRUCTION = r"Reason step by step. End with the final answer in \boxed{}."

_SPACING = re.compile(r"[\s$.,?]|\\[,;:! ]|\\left\b|\\right\b")


def read_math(folder: str | Path) -> list[Problem]:
    """The training problems, less those that are MATH500's in other words and doubles.

    A question that the file has twice is kept once, or not at all where its answers differ. `meta`
    has "solution" (the worked solution, which ends in its box), "subject" and "level" (1 to 5, or
    0 where the file has "Level ?").

    Raises:
      FileNotFoundError: the folder does not hold the file.
      ValueError: a row is malformed (the message names file:line).
    """
    problems = _read(folder, TRAIN, "math", "type")
    reworded = _read_rewordings(folder)
    kept = [problem for problem in problems if problem.id not in reworded]
    if reworded:
        logger.info("math: left out %d problems of MATH500 reworded", len(problems) - len(kept))
    return _without_doubles(kept)


def read_math500(folder: str | Path) -> list[Problem]:
    """All of MATH500; `meta` and what it raises are as `read_math`'s."""
    return _read(folder, TEST, "math500", "subject")


def math_task(folder: str | Path, personas: Sequence[Persona], num_test: int, seed: int) -> Task:
    """Trains on MATH, tests on `num_test` problems of MATH500.

    The test set is a pure function of `seed`, and a smaller one is part of a larger one. A training
    problem whose question occurs anywhere in MATH500 is left out. A demonstration is a problem's
    own worked solution, under a random training persona with probability 1/2.
    """
    math500 = read_math500(folder)
    if not 1 <= num_test <= len(math500):
        raise ValueError(
            f"task.num_test is {num_test}; {TEST} has {len(math500)} problems, use 1 or more"
        )
    order = generator(seed, "math/test").permutation(len(math500))
    train_personas = [persona for persona in personas if persona.split == "train"]

    def demonstrate(rng: np.random.Generator, train: Sequence[Problem]) -> Demonstration:
        problem = train[rng.integers(len(train))]
        persona = None
        if train_personas and rng.random() < 0.5:
            persona = train_personas[rng.integers(len(train_personas))]
        return Demonstration(persona, problem.prompt, problem.meta["solution"])

    return Task(
        name="math",
        train=_without_questions_of(math500, read_math(folder)),
        test=[math500[index] for index in order[:num_test]],
        personas=personas,
        reward=boxed_reward,
        demonstrate=demonstrate,
    )


def _read(folder: str | Path, file: str, source: str, subject: str) -> list[Problem]:
    problems: dict[str, Problem] = {}
    for _, where, row in read_rows(folder, file, FILES):
        id, answer = text_field(row, "unique_id", where), text_field(row, "answer", where)
        if id in problems:
            raise ValueError(f"{where}: field 'unique_id' is {id!r} a second time")
        if read_answer(answer) is None:
            raise ValueError(f"{where}: field 'answer' is {answer[:40]!r}, which states nothing")
        meta = {
            "solution": text_field(row, "solution", where).strip(),
            "subject": text_field(row, subject, where),
            "level": _level(row.get("level"), where),
        }
        prompt = f"{text_field(row, 'problem', where).strip()}\n{INSTRUCTION}"
        problems[id] = Problem(id, prompt, answer, source, meta)
    return list(problems.values())


def _level(value: object, where: str) -> int:
    """5 for 5 and for "Level 5"; 0 for "Level ?"."""
    match = re.fullmatch(r"(?:Level )?([1-5?])", str(value))
    if match is None:
        raise ValueError(f"{where}: field 'level' is {value!r}; it must be 'Level 1' to 'Level 5'")
    return 0 if match[1] == "?" else int(match[1])


def _read_rewordings(folder: str | Path) -> set[str]:
    if not (Path(folder) / REWORDINGS).is_file():
        return set()
    rows = read_rows(folder, REWORDINGS, FILES)
    return {text_field(row, "unique_id", where) for _, where, row in rows}


def _without_doubles(problems: Sequence[Problem]) -> list[Problem]:
    first: dict[str, Problem] = {}
    answers = defaultdict(set)
    for problem in problems:
        first.setdefault(_question_key(problem), problem)
        answers[_question_key(problem)].add(read_answer(problem.answer))
    kept = [problem for key, problem in first.items() if len(answers[key]) == 1]
    logger.info("math: left out %d doubled questions", len(problems) - len(kept))
    return kept


def _without_questions_of(test: Sequence[Problem], train: Sequence[Problem]) -> list[Problem]:
    tested = set(map(_question_key, test))
    kept = [problem for problem in train if _question_key(problem) not in tested]
    logger.info("math: left out %d questions of the test set", len(train) - len(kept))
    if not kept:
        raise ValueError(f"{TRAIN}: every problem is in {TEST} as well, or contradicts itself")
    return kept


def _question_key(problem: Problem) -> str:
    return _SPACING.sub("", problem.prompt)
