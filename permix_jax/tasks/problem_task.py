"""The task of the data sets: problems to train on and to test on, graded by one rule."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ml_collections import ConfigDict

from permix_jax.core.fields import names_in
from permix_jax.core.persona import Persona
from permix_jax.core.problem import Problem, Task
from permix_jax.core.randomness import generator
from permix_jax.rewards.grade import grade_answer
from permix_jax.tasks.datasets.load import load_problems, place
from permix_jax.tasks.demonstrations import INSTRUCTIONS, demonstrator, statement
from permix_jax.tasks.filters import filter_problems
from permix_jax.tasks.overlap import without_doubles, without_overlap

logger = logging.getLogger(__name__)


def problem_task(
    data: ConfigDict,
    personas: Sequence[Persona],
    num_test: int,
    seed: int,
    cache: Path,
    testing_only: bool = False,
) -> Task:
    """A task that trains on the sets `data.train` and tests on `num_test` problems of `data.test`.

    A question that the training sets repeat is kept once, or dropped if its answers differ. The
    test problems are a pure function of `seed`, and a smaller draw is a subset of a larger one.
    Training problems must not overlap with the whole test set, drawn or not. Built sets are kept in
    `cache`. `testing_only` skips the training sets if `data.test` names a set.

    Raises:
      ValueError, FileNotFoundError: as `load_problems` and `filter_problems`; no training problem
        is left, or there are fewer than `num_test` test problems.
    """
    names = names_in(data.train)
    _require_sound(data, names)
    testing_only = testing_only and bool(data.test)
    train = [] if testing_only else _training_problems(names, data, cache)
    test = load_problems(data.test, data.folder, cache) if data.test else train
    spare = len(test) if data.test else len(test) - 1
    if not 1 <= num_test <= spare:
        raise ValueError(
            f"task.num_test is {num_test}; {data.test or data.train} has {len(test)} problems "
            f"{'left ' if not data.test else ''}to test on, use 1 to {spare}"
        )
    _say_unreadable([*train, *test] if data.test else test, data.answer_format)
    order = generator(seed, "problems/test").permutation(len(test))
    drawn = [test[index] for index in order[:num_test]]
    if not data.test:
        train, test = [train[index] for index in sorted(order[num_test:])], drawn

    if not testing_only:
        train = _without_overlap(train, test, names, data)
    train, drawn = (
        [replace(p, prompt=f"{p.prompt}\n{INSTRUCTIONS[data.answer_format]}") for p in problems]
        for problems in (train, drawn)
    )
    return Task(
        name="problems",
        train=train,
        test=drawn,
        personas=personas,
        grade=grade_answer,
        demonstrate=demonstrator(personas, data.answer_format),
        symbolic=True,
    )


def _say_unreadable(problems: Sequence[Problem], answer_format: str) -> None:
    """Warns of gold answers that are graded as wrong when a completion states them as asked."""
    unreadable = [
        problem
        for problem in problems
        if not problem.answer.isdecimal()  # most are; this skips them quickly
        and grade_answer(statement(problem.answer, answer_format), problem) != 1.0
    ]
    if unreadable:
        first = unreadable[0]
        logger.warning(
            "%d of %d gold answers (%.2g %%) are graded as wrong themselves where a completion "
            "states them as data.answer_format=%s; correct them or drop their rows, first %s: %r",
            len(unreadable), len(problems), 100 * len(unreadable) / len(problems), answer_format,
            place(first), first.answer[:40],
        )  # fmt: skip


def _training_problems(names: Sequence[str], data: ConfigDict, cache: Path) -> list[Problem]:
    problems = [p for name in names for p in load_problems(name, data.folder, cache)]
    train = without_doubles(problems)
    logger.info("data.train: left out %d doubled questions", len(problems) - len(train))
    return filter_problems(train, data.max_steps, data.levels, data.subjects)


def _require_sound(data: ConfigDict, names: Sequence[str]) -> None:
    if not names:
        raise ValueError("data.train is empty; name a data set, such as gsm8k, or a JSONL file")
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"data.train names {repeated[0]} more than once; name it once")
    if data.test in names:
        raise ValueError(
            f"data.test is {data.test!r}, which data.train has too; name another set, or leave it "
            "empty to hold problems of data.train out"
        )


def _without_overlap(
    train: Sequence[Problem], test: Sequence[Problem], names: Sequence[str], data: ConfigDict
) -> list[Problem]:
    """Applies `data.overlap` to the training problems; logs a line for each set."""
    kept = []
    for name in names:
        overlap = without_overlap([p for p in train if p.source == name], test)
        logger.info(
            "%s: %s %d problems of the test set, word for word, and %d in other words",
            name, "left out" if data.overlap == "drop" else "kept", overlap.exact, overlap.reworded,
        )  # fmt: skip
        kept += overlap.kept
    if data.overlap == "keep":
        return list(train)
    if not kept:
        raise ValueError(
            f"data.train is {data.train!r}: every problem of it is in the test set as well; name "
            "other sets, or set data.overlap to keep"
        )
    return kept
