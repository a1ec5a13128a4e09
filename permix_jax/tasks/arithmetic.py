"""Arithmetic by a rule: problems of one or two operations, with nothing to download.

Sums and differences have operands from 1 to `max_operand`, products have factors to 9. No result
is negative. A second operation adds or subtracts, and stands last, so that reading from left to
right is right.
"""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from permix_jax.core.persona import Persona
from permix_jax.core.problem import Grade, Problem, Task
from permix_jax.core.randomness import generator
from permix_jax.rewards.answer import extract_answer, stated_answer
from permix_jax.rewards.grade import grade_answer
from permix_jax.tasks.problem_task import demonstrator

WORDINGS = (
    "What is {}?", "Compute {}.", "Calculate {}.", "How much is {}?", "Work out {}.",
    "Find the value of {}.", "Tell me the result of {}.", "{} equals what?",
)  # fmt: skip
INSTRUCTION = "Answer with the number."
_SIGNS = {"+": ("+", "plus"), "-": ("-", "minus"), "*": ("*", "times")}
_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": int.__add__, "-": int.__sub__, "*": int.__mul__,
}  # fmt: skip
_MAX_FACTOR = 9
_NUMBER = re.compile(r"[0-9][0-9,]*(?:\.[0-9]+)?")

Calculation = tuple[int | str, ...]  # such as (7, "+", 5, "-", 3)


def arithmetic_task(
    personas: Sequence[Persona], num_test: int, operations: int, max_operand: int, seed: int
) -> Task:
    """All problems of so many `operations` (1 or 2), `num_test` of them held out by `seed`.

    The split is by operands: those of a held-out problem occur together in no training problem,
    in any order and under any operation. A smaller draw is a subset of a larger one.

    Raises:
      ValueError: no problem is left to train on.
    """
    by_operands: dict[tuple[int, ...], list[Calculation]] = {}
    for calculation in calculations(operations, max_operand):
        by_operands.setdefault(tuple(sorted(calculation[::2])), []).append(calculation)
    groups = list(by_operands.values())
    order = generator(seed, "arithmetic/split").permutation(len(groups))
    held_out = int(np.searchsorted(np.cumsum([len(groups[i]) for i in order]), num_test)) + 1
    test, train = (
        [calculation for index in part for calculation in groups[index]]
        for part in (order[:held_out], sorted(order[held_out:]))
    )
    if not train:
        total = sum(map(len, groups))
        raise ValueError(
            f"task.num_test is {num_test}; there are {total} problems with task.operations = "
            f"{operations} and task.max_operand = {max_operand}, and some must be left for "
            "training: hold out fewer, or raise one of the two"
        )
    sides = [[_problem(c, seed) for c in side] for side in (train, test[:num_test])]
    shown = demonstrator(personas, "hashes")
    return Task("arithmetic", *sides, personas, grade_result, shown, stated=stated_answer)


def grade_result(completion: str, problem: Problem, last_number: bool = False) -> Grade:
    """As `grade_answer`, but a calculation that is left undone is no answer.

    The verifier takes 7 + 5 for 12, as it should for algebra. Here a policy would be paid for the
    question. So one side of an equation, such as 7 + 5 = 12, has to have one number alone.
    """
    stated = extract_answer(completion, last_number) or ""
    if all(len(_NUMBER.findall(side)) > 1 for side in stated.split("=") if side.strip()):
        return 0.0
    return grade_answer(completion, problem, last_number)


def calculations(operations: int, max_operand: int) -> Iterator[Calculation]:
    """All calculations of one or two operations whose results are 0 or more."""
    numbers = range(1, max_operand + 1)
    for x, sign, y in itertools.product(numbers, _OPERATIONS, numbers):
        if value(one := (x, sign, y)) < 0 or (sign == "*" and max(x, y) > _MAX_FACTOR):
            continue
        if operations == 1:
            yield one
            continue
        for second, z in itertools.product("+-", numbers):
            if value(two := (*one, second, z)) >= 0:
                yield two


def value(calculation: Calculation) -> int:
    """The result, read from left to right."""
    result = calculation[0]
    for sign, operand in zip(calculation[1::2], calculation[2::2], strict=True):
        result = _OPERATIONS[sign](result, operand)
    return result


def _problem(calculation: Calculation, seed: int) -> Problem:
    """The calculation in one of the WORDINGS, with signs or in words."""
    written = "".join(map(str, calculation))
    rng = generator(seed, f"arithmetic/wording/{written}")
    words, wording = rng.integers(2), WORDINGS[rng.integers(len(WORDINGS))]
    said = " ".join(_SIGNS[part][words] if part in _SIGNS else str(part) for part in calculation)
    answer = str(value(calculation))
    solution = f"{written} = {answer}"
    prompt = f"{wording.format(said)}\n{INSTRUCTION}"
    return Problem(written, prompt, answer, "arithmetic", {"solution": solution})
