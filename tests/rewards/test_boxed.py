import gzip
import json
import math
import re
from collections import defaultdict
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.rewards.boxed import (
    MAX_ANSWER_CHARS,
    boxed_reward,
    last_box,
    parse_number,
    read_answer,
    same_answer,
)
from permix_jax.tasks.problem import Problem

MATH = Path(__file__).resolve().parents[3] / "shared" / "data" / "math"
real_data = pytest.mark.skipif(not MATH.is_dir(), reason="needs ../shared/data beside the checkout")

PIECES = [
    "\\boxed{", "\\fbox ", "\\text{", "\\frac", "\\sqrt[", "\\left(", "^\\circ", "\\%", "\\$",
    " feet", "x=", "\\\\", *"{}[]()$%,./-+ 019ABx\n",
]  # fmt: skip


def problem(answer, question=""):
    return Problem("p", question, answer, "test")


def equal(answer, gold, question=""):
    """Whether the box with `answer` earns the reward."""
    reward = boxed_reward(rf"so \boxed{{{answer}}}.", problem(gold, question))
    assert reward in (0.0, 1.0)
    return reward == 1.0


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"\boxed{5}", "5"),
        (r"\fbox{5} apples", "5"),
        (r"\boxed {5}", "5"),
        (r"\boxed{1} then \boxed{\frac{1}{2}} end", r"\frac{1}{2}"),
        (r"\boxed{1} then \boxed{2", "1"),
        (r"\boxed{1 \boxed{3}", "3"),
        (r"\boxed{1 + \boxed{3}}", r"1 + \boxed{3}"),
        (r"{ \boxed{4}", "4"),
        (r"} \boxed{4}", "4"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{1 \\{2}}", r"1 \\{2}"),
        (r"\\boxed{4}", None),
        (r"so $\boxed 9$.", " 9"),
        (r"so $\boxed9.$", "9"),
        (r"\(\boxed x\)", " x"),
        (r"$\boxed 12$", None),
        (r"$\boxedx$", None),
        ("the answer is 9", None),
        ("", None),
    ],
)
def test_last_box(text, box):
    assert last_box(text) == box


@pytest.mark.parametrize(
    "spellings",
    [
        (r"\frac{1}{2}", r"\dfrac12", r"\tfrac 12", r"\frac1{2}", r"\frac{ 1 } {2}", "0.5", ".50",
         "1/2", "+1/2", r"\frac{2}{4}"),
        (r"-\frac{3}{2}", r"\frac{-3}{2}", "-1.5", "\u22121.5", r"-1\frac{1}{2}", "-3/2"),
        ("12345", "12,345", r"12,\!345", "12{,}345", "12345.", "$12345$", r"\(12345\)", "012345.0",
         r"\boxed{12345}", r"\text{12345}", r"\mathbf{12345}"),
        (r"2\sqrt{3}", r"2 \sqrt 3", r"2\sqrt3", r"2\,\sqrt{ 3 }", r"\displaystyle 2\sqrt{3}"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})", r"(3,\,\dfrac{\pi}2)",
         r"\big(3, \tfrac\pi 2\big)"),
        (r"\text{(A)}", "A", "(A)", r"\text{A}", r"\textbf{(A)}", r"\mathrm{A}"),
        (r"\text{even}", "even", "Even", r"\text{Even}", r"\mbox{even}."),
        (r"x \leq 3", r"x\le3"),
        ("x^{2} + 1", "x^2+1"),
        (r"\text{two lines}", r"\text{two  lines}", "two lines"),
        (r"2 \text{ or } 3", r"2\text{ or }3"),
        ("60^\\circ", "60^{\\circ}", "60°", r"60\text{ degrees}", "60 degrees", r"60 ^\circ."),
        (r"\$18.90", r"\$18.9", r"18.90\text{ dollars}", r"$\$18.90$"),
        (r"864 \mbox{ inches}^2", r"864\text{ square inches}", "864 square inches",
         r"864\text{ sq. in}"),
    ],
)  # fmt: skip
def test_spellings_of_one_answer_are_equal(spellings):
    for answer in spellings:
        for gold in spellings:
            assert equal(answer, gold), (answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("1 2", "12"), ("1,2", "12"), ("1,23", "123"), ("0,123", "123"), (r"5\text{ }6", "56"),
        ("1+1", "2"), ("-5", "5"), ("0.33", r"\frac13"), (r"\frac{1}{0}", "0"),
        (r"2\frac{4}{3}", r"\frac{10}{3}"), (r"2\frac43", r"\frac{8}{3}"), ("2^10", "2^{10}"),
        (r"x^{12}", r"x^1 2"), ("(0,1)", "[0,1]"), ("(1,2)", "(2,1)"), ("1,2", "(1,2)"),
        ("1010_2", "1010"), ("x", "X"), ("abc", "Abc"), ("AB", "BA"), (r"\text{(A)}", "B"),
        (r"\sin 30", r"\sin 30^\circ"), (r"\pi r", r"\pir"), (r"\text{odd}", r"\text{even}"),
        (r"4\text{ million}", "4"), (r"4\text{ p.m.}", "4"), ("5 or 6", "5"), ("", "5"),
        (r"\text{ feet}", "5"), ("5 = 6", "6"), ("__import__('os')", "5"), ("9**9", "9"),
        (r"5\text{ m}", r"5\text{ km}"), (r"12\text{ in}", r"12\text{ inches}^2"),
        (r"50\%", "0.5"), (r"\text{not even}", r"\text{even}"), ("y=5", "x=5"),
        ("x=1,y=2", "1,y=2"), (r"2^\text{10}", "2^10"), (r"\sqrt[3]{2}", r"\sqrt{2}"), ("5!", "5"),
        ("٥", "5"), ("3.14...", "3.14"), (r"x \quad y", "xy"),
    ],
)  # fmt: skip
def test_unlike_answers_are_unlike(answer, gold):
    assert not equal(answer, gold)
    if answer:
        assert not equal(gold, answer)


@pytest.mark.parametrize(
    ("answer", "gold", "question", "same"),
    [
        ("4", r"4\text{ feet}", "How tall?", True),
        (r"4\text{ feet}", "4", "How many feet tall?", True),
        (r"4\text{ feet}", "4", "How many inches, if 1 inch is 3 feet?", False),
        (r"4\text{ miles}", "4", "How many miles per hour?", False),
        (r"4\text{ feet}", "4", "Its area in square feet?", False),
        ("60^\\circ", "60", "What is the degree measure of $A$?", True),
        ("60^\\circ", "60", "What is $x$?", False),
        ("50", r"50\%", "What percent is it?", True),
        ("50", r"50\%", "What is the probability?", False),
        (r"50\%", "50", "What percent is it?", True),
        (r"50\%", "50", "It rains with a 75 percent chance.", False),
        ("18", r"\$18", "What does it cost?", True),
        (r"\$18", "18", "How many dollars are left?", True),
        (r"\$18", "18", "How many cents are left?", False),
        ("5", "x=5", "Solve for $x$: $x+1=6$.", True),
        ("x = 5", "5", "Find $x$.", True),
        ("x = 5", "5", "What is the value of\n$x$?", True),
        ("x = 5", "5", "Find $x + y$.", False),
        ("x = 5", "5", "For what values of $x$ and $y$ is it so? Give $x+y$.", False),
        ("y = 5", "5", "Find $x$.", False),
        ("-1", "y = -1", "What is the equation of the line?", False),
        ("y = -2x+1", "y=-2x + 1", "What is the equation of the line?", True),
        (r"x = 50\%", r"50\%", "What percent is it? Find $x$.", True),
    ],
)
def test_what_is_said_beside_the_value_is_held_against_the_problem(answer, gold, question, same):
    assert equal(answer, gold, question) == same


@pytest.mark.parametrize("gold", ["", "  ", "$", r"\text{ }", "9" * (MAX_ANSWER_CHARS + 1)])
def test_a_gold_answer_that_states_nothing_scores_nan(gold):
    assert math.isnan(boxed_reward(r"\boxed{5}", problem(gold)))


def test_no_box_earns_nothing():
    assert boxed_reward("5", problem("5")) == 0.0
    assert boxed_reward("#### 5", problem("5")) == 0.0
    assert boxed_reward(r"\boxed{5} no, \boxed{6}", problem("5")) == 0.0


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.characters()), st.sampled_from(["5", r"\frac{x}{2}"]))
def test_any_text_is_judged(pieces, gold):
    text = "".join(pieces)
    assert boxed_reward(text, problem(gold)) in (0.0, 1.0)
    assert boxed_reward(rf"\boxed{{{text}}}", problem(gold)) in (0.0, 1.0)


@settings(deadline=None)
@given(st.text(st.sampled_from("012,.-/{} \\x=") | st.characters(), max_size=20))
def test_any_answer_that_states_something_equals_itself(text):
    answer = read_answer(text)
    assert answer is None or same_answer(answer, answer, "")


@settings(deadline=None)
@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
def test_fractions_are_equal_where_their_values_are(value, other):
    def latex(x):
        return rf"{'-' if x < 0 else ''}\frac{{{abs(x.numerator)}}}{{{x.denominator}}}"

    assert equal(latex(value), str(value)) and equal(str(value), latex(value))
    assert equal(latex(value), latex(other)) == (value == other)


@settings(deadline=None)
@given(st.decimals(-(10**12), 10**12, places=3))
def test_every_written_decimal_is_read_back(value):
    assert parse_number(f"{value:f}") == parse_number(f"{value:,}") == Fraction(value)


@pytest.mark.parametrize(
    "text",
    ["\\boxed{" * 200_000, "{" * 2_000_000, "\\boxed{" + "{" * 500_000 + "}" * 500_000 + "}",
     "\\boxed{" * 200_000 + "}" * 200_000, "\\boxed" + " " * 2_000_000, "\\boxed " * 200_000,
     "\\" * 2_000_001, "\\boxed 1." * 200_000, "\\boxed{" + "5" * 1_000_000 + "}"],
)  # fmt: skip
def test_hostile_text_is_wrong_and_no_burden(text):
    """Were a scan quadratic, this would not end within the suite's patience."""
    assert boxed_reward(text, problem("72")) == 0.0


@pytest.mark.parametrize(
    "piece", ["{", "\\text{", "\\frac", "5", "1,111", "aaaa ", " ", "$", "\\$", "1/", "^\\circ "]
)
def test_a_box_full_of_one_thing_is_wrong(piece):
    for count in (MAX_ANSWER_CHARS // len(piece), 10_000):
        opened = piece * count
        assert boxed_reward(rf"\boxed{{{opened}{'}' * opened.count('{')}}}", problem("72")) == 0.0


def test_the_length_of_an_answer_is_bounded():
    assert equal("9" * MAX_ANSWER_CHARS, "9" * MAX_ANSWER_CHARS)
    assert not equal("9" * (MAX_ANSWER_CHARS + 1), "9")


@pytest.fixture(scope="module")
def real_problems():
    lines = gzip.decompress((MATH / "train.jsonl.gz").read_bytes()).splitlines()
    lines += (MATH / "math500_test.jsonl").read_bytes().splitlines()
    rows = [json.loads(line) for line in lines]
    return [Problem(r["unique_id"], r["problem"], r["answer"], "math") for r in rows]


@real_data
def test_every_real_gold_answer_equals_itself(real_problems):
    assert len(real_problems) == 7498 + 500
    for gold in real_problems:
        assert boxed_reward(rf"\boxed{{{gold.answer}}}", gold) == 1.0, gold.id


@real_data
def test_real_gold_answers_earn_the_reward_of_another_only_where_they_are_equal(real_problems):
    """All pairs of spellings with one value, judged by cruder rules of this test's own."""
    spellings = defaultdict(set)
    for gold in real_problems:
        form = read_answer(gold.answer).form
        number = parse_number(form)
        spellings[form if number is None else number].add(gold.answer)
    merged = {value: texts for value, texts in spellings.items() if len(texts) > 1}
    assert len(merged) > 200
    for value, texts in merged.items():
        crude = crude_number if isinstance(value, Fraction) else crude_text
        assert len(set(map(crude, texts))) == 1, texts


def crude_number(text):
    text = re.sub(r"\\!|,| |cm.2|inches.2|\^.*", "", text)
    text = re.sub(r"frac(\d)(\d)$", r"frac{\1}{\2}", text)
    numbers = [float(number) for number in re.findall(r"\d*\.?\d+", text)]
    sign = -1 if "-" in text else 1
    if "frac" not in text and "/" not in text:
        assert len(numbers) == 1, text
        return sign * numbers[0]
    *whole, top, bottom = numbers
    return sign * round(sum(whole) + top / bottom, 12)


def crude_text(text):
    text = re.sub(r"\\left|\\right|\\[!,]|\\textbf|\\text|\\mbox|dollars", "", text)
    text = text.replace("dfrac", "frac").replace("tfrac", "frac")
    return "".join(c for c in text if c not in " \n{}().$[]")
