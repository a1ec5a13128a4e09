import re
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.personas.bank import default_bank
from permix_jax.tasks.arithmetic import INSTRUCTION, WORDINGS, arithmetic_task, calculations, value


def make(num_test=200, operations=1, max_operand=20, seed=0):
    return arithmetic_task(default_bank(), num_test, operations, max_operand, seed)


def operands(problem):
    return tuple(sorted(map(int, re.findall("[0-9]+", problem.id))))


def test_there_are_as_many_calculations_as_counted_by_hand():
    """20 x 20 sums, 210 differences of 0 or more, 9 x 9 products."""
    one = list(calculations(1, 20))
    assert len(one) == len(set(one)) == 400 + 210 + 81
    # Of three numbers to 2: 4 sums, 3 differences (1-1, 2-1, 2-2) and 4 products, each plus 1 or 2
    # (22), and less 1 or 2 where something is left: of 2 3 3 4, 0 1 0, 1 2 2 4.
    assert len(list(calculations(2, 2))) == 22 + 8 + 1 + 7
    assert all(value(calculation) >= 0 for calculation in one)


def test_values_by_hand():
    assert [value(c) for c in ((7, "+", 5), (7, "-", 5), (7, "*", 5), (2, "*", 3, "-", 4))] == [
        12, 2, 35, 2,
    ]  # fmt: skip


@settings(max_examples=25)
@given(st.integers(1, 600), st.sampled_from([(1, 20), (1, 12), (2, 4)]), st.integers(0, 1000))
def test_no_operands_are_trained_and_held_out_together(num_test, size, seed):
    total = len(list(calculations(*size)))
    try:
        task = make(num_test, *size, seed)
    except ValueError:
        assert num_test > total / 2
        return
    assert len(task.test) == num_test
    assert not {*map(operands, task.train)} & {*map(operands, task.test)}
    assert len({p.id for p in (*task.train, *task.test)}) == len(task.train) + num_test <= total


def test_the_answer_is_that_of_python():
    for problem in make(operations=2, max_operand=6).train:
        assert int(problem.answer) == eval(problem.id), problem


def test_a_smaller_draw_is_part_of_a_larger_one_and_the_seed_decides():
    assert make(50).test == make(200).test[:50]
    assert (make().train, make().test) == (make().train, make().test)
    assert make().test != make(seed=1).test


def test_wordings_and_signs_vary_and_end_with_the_instruction():
    prompts = [p.prompt for p in make().train]
    assert all(prompt.endswith(f"\n{INSTRUCTION}") for prompt in prompts)
    starts = Counter(
        next(w for w in WORDINGS if re.match(re.escape(w).replace(r"\{\}", ".*"), prompt))
        for prompt in prompts
    )
    assert len(starts) == len(WORDINGS) and min(starts.values()) > len(prompts) / 20
    in_words = sum(any(w in p for w in ("plus", "minus", "times")) for p in prompts)
    assert 0.3 < in_words / len(prompts) < 0.7


def test_a_demonstration_ends_in_the_answer():
    task = make()
    shown = task.demonstrate(np.random.default_rng(0), task.train)
    answers = {p.prompt: p for p in task.train}
    assert task.grade(shown.completion, answers[shown.prompt]) == 1.0


@pytest.mark.parametrize(("num_test", "max_operand"), [(691, 20), (5000, 20), (12, 2)])
def test_nothing_left_to_train_on_is_one_line_with_the_remedy(num_test, max_operand):
    with pytest.raises(ValueError) as error:
        make(num_test, max_operand=max_operand)
    said = str(error.value)
    assert said.startswith(f"task.num_test is {num_test}; there are ") and "\n" not in said
    assert f"task.max_operand = {max_operand}" in said and "hold out fewer" in said
