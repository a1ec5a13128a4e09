"""Equations of one-step word problems, against what a reader sees."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permix_jax.tasks.datasets.equations import only_equation


@pytest.mark.parametrize(
    ("question", "answer", "equation"),
    [
        ("Joan found 70 seashells and has 27 left. How many did she give?", "43", "70 - 27 = 43"),
        ("6 roses were in the vase, now there are 16. How many more?", "10", "16 - 6 = 10"),
        ("He has 9 balloons and she has 8. How many in all?", "17", "9 + 8 = 17"),
        ("12 boxes of 1,000 pens each.", "12000", "12 * 1,000 = 12000"),
        ("A pen costs $2.50 and a pad $1.25. How much together?", "3.75", "2.50 + 1.25 = 3.75"),
        ("A third: 1 of 3 parts.", "1/3", "1 / 3 = 1/3"),
        ("She shares 8 sweets among 2 friends, 4 each.", "4", None),  # 8 / 2 and 8 - 4
        ("2 bags of 2 apples.", "4", None),  # 2 + 2 and 2 * 2
        ("3 cats and 5 dogs.", "7", None),
        ("There are 0 cats and 5 dogs; 5 per 0.", "9", None),
        ("No numbers here.", "7", None),
    ],
)
def test_the_one_equation(question, answer, equation):
    assert only_equation(question, answer) == equation


@given(st.lists(st.integers(0, 50), max_size=4), st.integers(-20, 60))
def test_an_equation_is_true_and_of_the_questions_numbers(numbers, answer):
    equation = only_equation(f"Of {' and '.join(map(str, numbers))}.", str(answer))
    if equation is not None:
        a, operation, b, _, result = equation.split()
        value = {"+": "__add__", "-": "__sub__", "*": "__mul__", "/": "__truediv__"}[operation]
        assert getattr(Fraction(a), value)(Fraction(b)) == Fraction(result) == answer
        remaining = [str(n) for n in numbers]
        remaining.remove(a)
        assert b in remaining
