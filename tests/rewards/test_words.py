from fractions import Fraction

import pytest

from permix_jax.rewards import words
from permix_jax.rewards.notation import read


@pytest.mark.parametrize(
    ("answer", "gold", "prompt", "same"),
    [
        ("Even", r"\text{even}", "", True), (r"\text{an ellipse}", r"\text{ellipse}", "", True),
        (r"\text{not even}", r"\text{even}", "", False), (r"\text{Lia}", r"\text{Ali}", "", False),
        (r"\text{an odd function}", r"\text{odd}", "Is the function odd or even?", True),
        (r"\text{odd even}", r"\text{odd}", "Is it odd or even?", False),
        ("Wed", r"\text{Wednesday}", "", True),
        (r"\text{No, it diverges}", r"\text{No}", "", True),
        (r"\text{yes and no}", r"\text{yes}", "", False),
        (r"\text{does not exist}", r"\text{DNE}", "", True), ("5'", "5", "", False),
        ("Ja", r"\text{ja}", "", True),
    ],
)  # fmt: skip
def test_same(answer, gold, prompt, same):
    assert words.same(answer, gold, prompt) == same


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("March 5", (3, 5, 0)), (r"\text{March 5th, 1912}.", (3, 5, 1912)), ("5 Mar", (3, 5, 0)),
        ("the 5th of March 1912", (3, 5, 1912)), ("1912-03-05", (3, 5, 1912)), ("March", None),
        ("5", None),
    ],
)  # fmt: skip
def test_date(text, parts):
    assert words.date(text) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("3:30", (Fraction(7, 2), "")), (r"3{:}30 \text{ p.m.}", (Fraction(7, 2), "p")),
        ("9 am", (9, "a")),
        ("15:30", (Fraction(7, 2), "p")), ("noon", (12, "p")), ("9", None), ("3:75", None),
        ("25:10", None),
        (r"4\!:\!51\!:\!06", (4 + Fraction(51 * 60 + 6, 3600), "")), ("3:4", None), ("3.5", None),
    ],
)  # fmt: skip
def test_clock(text, parts):
    assert words.clock(text) == parts


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("The answer is 5.", "5"), (r"\text{The answer is } x+1", "x+1"), ("5 is the answer", "5"),
        ("five (5)", "(5)"), (r"\text{less than } 5", None), (r"\text{not } 5", None),
        ("March 5", None),
        ("about 12", None), ("5", "5"),
    ],
)  # fmt: skip
def test_value(text, value):
    tokens = read(text)
    assert words.value(tokens) == (tokens if value is None else read(value))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("twelve", 12),
        ("forty eight", 48),
        ("three quarters", Fraction(3, 4)),
        ("two million", 2000000),
        ("x", None),
    ],
)
def test_numeral(text, number):
    assert words.numeral(text) == number
