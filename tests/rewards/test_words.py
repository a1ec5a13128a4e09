from fractions import Fraction

import pytest

from permix_jax.rewards.latex import form, read
from permix_jax.rewards.words import (
    choice,
    clock,
    date,
    everything,
    same_words,
    stated_choice,
    without_words_around,
)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (r"\text{even}", "Even", True),
        (r"\text{an ellipse}", r"\text{ellipse}", True),
        (r"\text{not even}", r"\text{even}", False),
        (r"\text{Lia}", r"\text{Ali}", False),
        (r"\text{no solution}", r"\emptyset", True),
        (r"\text{No solutions.}", r"\text{none}", True),
        (r"\text{5 feet 3 inches}", "5 feet, 3 inches", True),
        (r"\text{5 feet 3 inches}", "5 feet, 4 inches", False),
    ],
)
def test_same_words(one, other, same):
    assert same_words(read(one), read(other)) == same


@pytest.mark.parametrize(
    ("text", "whole", "stated"),
    [
        (r"\text{(C)}", "C", "C"), ("C", "C", "C"), (r"\textbf{(C) } 5", "", "C"),
        ("C. 5", "", "C"), ("(c)", "", "C"), (r"\text{(C) or (D)}", "", ""), ("A, B", "", ""),
        ("5", "", ""), ("x", "", ""),
    ],
)  # fmt: skip
def test_choices(text, whole, stated):
    assert choice(read(text)) == whole
    assert stated_choice(read(text)) == stated


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("March 5", (3, 5, 0)), (r"\text{March 5th, 1912}.", (3, 5, 1912)), ("5 Mar", (3, 5, 0)),
        ("the 5th of March 1912", (3, 5, 1912)), ("1912-03-05", (3, 5, 1912)), ("March", None),
        ("5", None), ("Marching 5", None),
    ],
)  # fmt: skip
def test_date(text, parts):
    assert date(text) == parts


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("3:30", (Fraction(7, 2), "")), (r"3{:}30 \text{ p.m.}", (Fraction(7, 2), "p")),
        (r"\text{3:30 AM}.", (Fraction(7, 2), "a")), ("9 am", (9, "a")), ("9", None),
        (r"4\!:\!51\!:\!06", (4 + Fraction(51 * 60 + 6, 3600), "")), ("3:75", None),
        ("25:10", None), ("3:4", None),
    ],
)  # fmt: skip
def test_clock(text, parts):
    assert clock(text) == parts


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"7 \text{ apples}", "7"), ("The answer is 5.", "5"),
        (r"\text{The answer is } x+1", "x+1"),
        (r"5 \text{ million}", None), (r"\text{less than } 5", None), (r"\text{not } 5", None),
        ("March 5", None), ("even", None), (r"5 \text{ and a half}", None), ("5", "5"),
    ],
)  # fmt: skip
def test_words_around_a_value(text, value):
    tokens = read(text)
    assert without_words_around(tokens) == (tokens if value is None else read(value))


def test_everything():
    assert everything(read(r"\text{all real numbers}")) and everything(read(r"\mathbb{R}"))
    assert not everything(read(r"\text{all}")) and form(read(r"\mathbb{R}")) == r"\mathbb R"
