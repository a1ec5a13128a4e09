import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.rewards.numeric import (
    MAX_ANSWER_CHARS,
    extract_answer,
    numeric_reward,
    parse_number,
)
from permix_jax.tasks.problem import Problem

PIECES = ["\\boxed{", "\\frac{", "}", "{", "####", *"\\$%,./-+ 019\n*"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("so 3 and\n#### 72", "72"),
        ("#### 5\nno, wait\n####  6 clips \nmore", "6 clips"),
        ("##### 7", "7"),
        ("####", ""),
        (r"\boxed{5}", "5"),
        (r"\boxed{1} then \boxed{\frac{1}{2}} end", r"\frac{1}{2}"),
        (r"\boxed{1} then \boxed{2", "1"),
        (r"{ \boxed{4}", "4"),
        (r"} \boxed{4}", "4"),
        (r"\boxed{\boxed{3}}", "3"),
        (r"\boxed{a\}b}", r"a\}b"),
        ("\\boxed{8}\n#### 9", "8"),
        ("\\boxed{8\n#### 9", "9"),
        ("the answer is 9", None),
        ("", None),
    ],
)
def test_extract_answer(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("43.0", "43"), ("43", "43"), ("43.", "43"), ("007", "7"), (".5", "0.5"), ("+3", "3"),
        ("1,234.50", "1234.5"), ("1,000,000", "1000000"), ("1{,}000", "1000"),
        ("-12", "-12"), ("- 12", "-12"), ("\u221212", "-12"), ("-$5", "-5"), ("$-5", "-5"),
        ("$ 12", "12"), (r"\$18", "18"), ("$18$", "18"), (r"\(18\)", "18"), ("€3", "3"),
        ("50%", "50"), (r"50\%", "50"), ("10 dollars.", "10"), ("$5/hour", "5"), ("72!", "72"),
        (r"5\text{ cups}", "5"), ("**72**", "72"), ("0.5.", "0.5"), ("6 m²", "6"),
        ("3/4", "3/4"), ("-3 / 4 cups", "-3/4"), (r"\frac{1}{2}", "1/2"), (r"\frac{-6}{4}", "-3/2"),
        (r"-\dfrac{1,000}{3}", "-1000/3"), ("1.5/2", "3/4"),
    ],
)  # fmt: skip
def test_parse_number(text, value):
    assert parse_number(text) == Fraction(value)


@pytest.mark.parametrize(
    "text",
    ["", "x", "-", "$", "five", "x = 5", "5 or 6", "5-6", "5 + x", "12:30", "1,5", "1,0000",
     "12 000", "3.5.2", "1e5", "1/2/3", "1/0", r"\frac{1}{0}", "٣", "5٣", "__import__('os')",
     "2**9", "1_000", "nan", "inf", "0x10"],
)  # fmt: skip
def test_what_states_no_number_is_not_read(text):
    assert parse_number(text) is None


@settings(deadline=None)
@given(st.fractions(max_denominator=10**6))
def test_every_written_fraction_is_read_back(value):
    assert parse_number(str(value)) == value
    sign = "-" if value < 0 else ""
    latex = rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    assert parse_number(latex) == value


@settings(deadline=None)
@given(st.decimals(-(10**12), 10**12, places=3))
def test_every_written_decimal_is_read_back(value):
    assert parse_number(f"{value:,}") == parse_number(f"${value:f} a piece.") == Fraction(value)


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.characters()))
def test_any_text_is_judged(pieces):
    assert numeric_reward("".join(pieces), Problem("p", "", "19", "test")) in (0.0, 1.0)


@pytest.mark.parametrize(
    ("completion", "gold", "reward"),
    [
        ("48 + 24 = 72\n#### 72", "72", 1.0),
        ("#### $72.00", "72", 1.0),
        (r"so \boxed{1/3}", "1/3", 1.0),
        ("#### 109200000", "109,200,000", 1.0),
        ("#### 71", "72", 0.0),
        ("#### 0.33", "1/3", 0.0),
        ("72", "72", 0.0),
        ("#### ", "72", 0.0),
    ],
)
def test_numeric_reward(completion, gold, reward):
    assert numeric_reward(completion, Problem("p", "", gold, "test")) == reward


def test_an_unreadable_gold_answer_scores_nan():
    assert math.isnan(numeric_reward("#### 72", Problem("p", "", "many", "test")))


@pytest.mark.parametrize(
    "text",
    ["\\boxed{" * 50_000, "\\boxed{" + "{" * 200_000, "####" * 100_000, "#### " + " " * 500_000,
     "#### " + "9" * 500_000, "\\boxed{" + "9" * 500_000 + "}", "#### " + "1,111" * 100_000],
)  # fmt: skip
def test_hostile_text_is_wrong_and_no_burden(text):
    """Were a scan quadratic, this would not end within the suite's patience."""
    assert numeric_reward(text, Problem("p", "", "72", "test")) == 0.0


def test_the_length_of_an_answer_is_bounded():
    assert parse_number("9" * MAX_ANSWER_CHARS) == 10**MAX_ANSWER_CHARS - 1
    assert parse_number("9" * (MAX_ANSWER_CHARS + 1)) is None
