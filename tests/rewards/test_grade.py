import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.core.json_lines import read_rows
from permix_jax.core.problem import Problem
from permix_jax.rewards import grade as grade_module
from permix_jax.rewards.grade import explain, grade_answer, readable
from permix_jax.rewards.notation import MAX_CHARS

MATH = Path(__file__).resolve().parents[3] / "shared" / "data" / "math"
real_data = pytest.mark.skipif(not MATH.is_dir(), reason="needs ../shared/data beside the checkout")

PIECES = [
    "\\boxed{", "\\fbox ", "\\text{", "\\frac", "\\sqrt[", "\\left(", "^\\circ", "\\%", "\\$", "^",
    " feet", "x=", "\\\\", "\\begin{pmatrix}", "\\end{pmatrix}", "\\pm", "\\cup", "\\sin", "####",
    "3:30", " or ", *"{}[]()$%,./-+!|<& 019ABx\n",
]  # fmt: skip
GOLDS = ["5", r"\frac{x}{2}", "(1,2)", r"\{1,2\}", r"\text{even}", "x=5", r"50\%", r"\sqrt2+1"]


def problem(answer, question=""):
    return Problem("p", question, answer, "test")


def equal(answer, gold, question=""):
    """Whether the box with `answer` earns the reward, exactly."""
    grade = grade_answer(rf"so \boxed{{{answer}}}.", problem(gold, question))
    assert grade in (0.0, 1.0), grade
    return grade == 1.0


@pytest.mark.parametrize(
    "spellings",
    [
        (r"\frac{1}{2}", r"\dfrac12", r"\frac1{2}", "0.5", ".50", "1/2", "+1/2", r"\frac{2}{4}",
         r"\frac{-1}{-2}", "5e-1", r"\frac{1}{4}+\frac14"),
        (r"-\frac{3}{2}", r"\frac{-3}{2}", "-1.5", "\u22121.5", r"-1\frac{1}{2}", "-3/2"),
        ("12345", "12,345", r"12,\!345", "12{,}345", "12345.", "$12345$", r"\(12345\)", "012345.0",
         r"\boxed{12345}", r"\text{12345}", r"\mathbf{12345}", "12 345", r"1.2345\times10^4"),
        (r"2\sqrt{3}", r"2 \sqrt 3", r"\sqrt{12}", r"\displaystyle 2\sqrt{3}", "2√3"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})", r"(3,\,\pi/2)",
         r"\big(3, \tfrac\pi 2\big)"),
        (r"\text{(A)}", "A", "(A)", r"\text{A}", r"\textbf{(A)}", r"\mathrm{A}"),
        (r"\text{even}", "even", "Even", r"\text{Even}", r"\mbox{even}."),
        (r"\text{two lines}", r"\text{two  lines}", "two lines"),
        (r"2 \text{ or } 3", r"2\text{ or }3", "3, 2", r"\{2,3\}"),
        ("60^\\circ", "60^{\\circ}", "60°", r"60\text{ degrees}", "60 degrees", r"60 ^\circ."),
        (r"\$18.90", r"\$18.9", r"18.90\text{ dollars}", r"$\$18.90$", "18.9 dollars"),
        (r"864 \mbox{ inches}^2", r"864\text{ square inches}", "864 square inches",
         r"864\text{ sq. in}"),
        (r"\text{March 5}", "March 5th", "5 March", r"\text{Mar. 5}"),
        ("81, 256", "81,256"),
    ],
)  # fmt: skip
def test_spellings_of_one_answer_are_equal(spellings):
    for answer in spellings:
        for gold in spellings:
            assert equal(answer, gold), (answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("1 2", "12"), ("1,2", "12"), ("1,23", "123"), ("0,123", "123"), ("-5", "5"),
        ("0.33", r"\frac13"), (r"\frac{1}{0}", "0"), (r"2\frac{4}{3}", r"\frac{10}{3}"),
        (r"x^{12}", r"x^1 2"), ("(0,1)", "[0,1]"), ("(1,2)", "(2,1)"), ("1,2", "(1,2)"),
        ("1010_2", "1010"), ("x", "X"), ("AB", "BA"), (r"\text{(A)}", "B"),
        (r"\sin 30", r"\sin 30^\circ"), (r"\text{odd}", r"\text{even}"),
        (r"4\text{ million}", "4"), (r"4\text{ p.m.}", "4"), ("5 or 6", "5"), ("", "5"),
        (r"\text{ feet}", "5"), ("5 = 6", "6"), ("__import__('os')", "5"), ("9**9", "9"),
        (r"5\text{ m}", r"5\text{ km}"), (r"12\text{ in}", r"12\text{ inches}^2"),
        (r"\text{not even}", r"\text{even}"), ("y=5", "x=5"), ("x=1,y=2", "1,y=2"),
        (r"\sqrt[3]{2}", r"\sqrt{2}"), ("5!", "5"), ("٥", "5"), ("3.14...", "3.14"), ("5i", "5"),
        ("2x+1 = 7", "7"), (r"\{5\}", "5"), ("5, 6", "5"), ("Apple", "5"), ("May 6", "May 5"),
        ("3:30 a.m.", "3:30 p.m."), (r"\sqrt2", "1.41421356"), ("\u202e72\u202c", "27"),
    ],
)  # fmt: skip
def test_unlike_answers_are_unlike(answer, gold):
    assert not equal(answer, gold)


@pytest.mark.parametrize(
    ("answer", "gold", "question", "same"),
    [
        ("4", r"4\text{ feet}", "How tall?", True),
        (r"4\text{ feet}", "4", "How many feet tall?", True),
        (r"48\text{ inches}", "4", "How many feet tall?", True),
        (r"4\text{ feet}", "4", "How many inches, if 1 inch is 3 feet?", False),
        (r"4\text{ miles}", "4", "How many miles per hour?", False),
        (r"4\text{ feet}", "4", "Its area in square feet?", False),
        (r"7\text{ apples}", "7", "How many apples?", True),
        ("60^\\circ", "60", "What is the degree measure of $A$?", True),
        ("60^\\circ", "60", "What is $x$?", True),
        ("50", r"50\%", "What percent is it?", True),
        ("0.5", r"50\%", "What percent is it?", True),
        ("0.5", "50", "What percent is it?", False),
        ("50", r"50\%", "What is the probability?", False),
        ("0.5", r"50\%", "What is the probability?", True),
        (r"50\%", "0.5", "What is the probability?", True),
        (r"50\%", "50", "What percent is it?", True),
        (r"50\%", "50", "How many hours?", False),
        ("18", r"\$18", "What does it cost?", True),
        (r"\$18", "18", "How many dollars are left?", True),
        (r"\$18", "18", "How many cents are left?", False),
        (r"\$18", "1800", "How many cents are left?", True),
        ("5", "x=5", "Solve for $x$: $x+1=6$.", True),
        ("x = 5", "5", "Find $x$.", True),
        ("x = 5", "5", "What is the value of\n$x$?", True),
        ("x = 5", "5", "Find $x + y$.", False),
        ("x + y = 5", "5", "Find $x + y$.", True),
        ("x = 5", "5", "For what values of $x$ and $y$ is it so? Give $x+y$.", False),
        ("y = 5", "5", "Find $x$.", False),
        ("f(2) = 5", "5", "Find $f(2)$.", True),
        ("-1", "y = -1", "What is the equation of the line?", False),
        ("y = -2x+1", "y=-2x + 1", "What is the equation of the line?", True),
        ("4x + 2y = 2", "y=-2x + 1", "What is the equation of the line?", True),
        (r"x = 50\%", r"50\%", "What percent is it? Find $x$.", True),
        ("x=2, y=3", "(2,3)", "Find the pair $(x, y)$.", True),
        ("x=2, x=3", "2,3", "Find all $x$.", True),
        ("1010", "1010_2", "Write ten in base 2.", True),
        ("1010", "1010_2", "Write ten.", False),
        ("3:30", "3:30 p.m.", "When in the afternoon?", True),
        ("3:30", "3:30 p.m.", "When?", False),
        ("(C)", "C", "Is it (A) 1, (B) 2 or (C) 3?", True),
        (r"\textbf{(C)}\ 3", "C", "Is it (A) 1, (B) 2 or (C) 3?", True),
    ],
)
def test_what_is_said_beside_the_value_is_held_against_the_problem(answer, gold, question, same):
    assert equal(answer, gold, question) == same


@pytest.mark.parametrize(
    ("answer", "gold", "question", "right"),
    [
        ("2^{10}", "1024", "Evaluate $2^{10}$.", False),
        ("2^{10}", "1024", "How many subsets has a set of 10?", True),
        ("(x+1)^2", "x^2+2x+1", r"Expand \[(x + 1)^2.\]", False),
        (r"\frac{6}{8}", r"\frac34", r"Simplify $\dfrac{6}{8}$.", False),
        ("7/25", r"\frac{7}{25}", "If $\\cos A = 7/25$ and $b = 7/25$, find $c$.", True),
        ("1+x", "x+1", "Which of $1+x$ and $2+x$ divides it?", True),
    ],
)
def test_repeating_the_problem_is_no_answer(answer, gold, question, right):
    assert equal(answer, gold, question) == right


@pytest.mark.parametrize(
    ("line", "gold"),
    [
        ("43.0", "43"), ("43.", "43"), ("007", "7"), (".5", "0.5"), ("+3", "3"), ("- 12", "-12"),
        ("1,234.50", "1234.5"), ("1,000,000", "1000000"), ("1{,}000", "1000"), ("-$5", "-5"),
        ("$-5", "-5"), ("$ 12", "12"), (r"\$18", "18"), ("$18$", "18"), (r"\(18\)", "18"),
        ("€3", "3"), ("50%", "50"), (r"50\%", "50"), ("10 dollars.", "10"), ("$5/hour", "5"),
        (r"5\text{ cups}", "5"), ("**72**", "72"), ("0.5.", "0.5"), ("6 m²", "6"), ("5 km", "5"),
        ("3/4", "3/4"), ("-3 / 4 cups", "-3/4"), (r"\frac{-6}{4}", "-3/2"), ("1.5/2", "3/4"),
        (r"-\dfrac{1,000}{3}", "-1000/3"), ("12 000", "12000"), ("The answer is 5.", "5"),
        ("5 + 7 = 12", "12"), ("109200000", "109,200,000"),
    ],
)  # fmt: skip
def test_the_line_behind_hashes_is_read_as_people_write_it(line, gold):
    assert grade_answer(f"so it is\n#### {line}", problem(gold)) == 1.0


def test_only_a_stated_answer_counts():
    assert grade_answer("the answer is 5", problem("5")) == 0.0
    assert grade_answer("the answer is 5", problem("5"), last_number=True) == 1.0
    assert grade_answer(r"\boxed{5} no, \boxed{6}", problem("5")) == 0.0
    assert grade_answer(r"\boxed{5", problem("5")) == 0.0
    assert grade_answer("#### ", problem("5")) == 0.0


@pytest.mark.parametrize("gold", ["", "  ", "$", r"\text{ }", "\u200b"])
def test_a_gold_answer_that_states_nothing_scores_nan(gold):
    assert not readable(gold)
    assert math.isnan(grade_answer(r"\boxed{5}", problem(gold)))
    assert math.isnan(grade_answer(rf"\boxed{{{gold}}}", problem(gold)))


@pytest.mark.parametrize(
    ("gold", "right", "wrong"),
    [
        ("да", ["Да", r"\text{да}", "д\u200bа", "да."], ["нет", "5", "", r"\ln 2"]),
        ("第一象限", [r"\text{第一象限}", " 第一象限。"[:5]], ["第二象限", "第一", r"\frac12"]),
        (r"\text{Évariste}", ["évariste", "E\u0301VARISTE"], ["Evariste", "5", "x"]),
        ("Straße", ["STRASSE", "strasse"], ["Strase"]),
        ("نعم", ["نعم"], ["لا", "1"]),
        ("हाँ", ["हाँ"], ["नहीं", "2x"]),
        ("是", ["是"], ["否", "x"]),
        ("５", ["5", "5.0", "５"], ["6", "5万"]),
        ("5万", ["5 万", "５万"], ["5", "50000"]),
        ("5\u200b", ["5", "5\u200b", "10/2"], ["6", r"\ln 2"]),
        ("5\x00", ["5\x00"], ["5", "6"]),
        (r"\foo{3}", [r"\foo 3"], ["3", r"\ln 2", r"\foo{4}"]),
        (r"\sum_{i=1}^n i", [r"\sum_{ i = 1 }^{n} i"], ["5", r"\frac{n(n+1)}{2}"]),
        (r"1<x<\foo", [r"\foo > x > 1"], ["(1,5)", "x", "1<x<2", "x>1"]),
        ("a long answer, " * 50, ["A  long answer, " * 50], ["a long answer", "5"]),
        ("9" * (MAX_CHARS + 1), ["9" * (MAX_CHARS + 1)], ["9", "9" * 1200]),
        ("{" * 30 + "5" + "}" * 30, ["{" * 30 + "5" + "}" * 30], ["5", "6"]),
    ],
)  # fmt: skip
def test_every_gold_answer_that_states_anything_tells_right_from_wrong(gold, right, wrong):
    assert readable(gold)
    for answer in [gold, *right]:
        assert equal(answer, gold), answer
    for answer in wrong:
        assert not equal(answer, gold), answer


@pytest.mark.parametrize(
    "answer", [r"{10 \choose 3}", r"10 \choose 3", r"\binom{10}{3}", r"{10 \choose 7}", "120"]
)
def test_choose_is_a_binomial_coefficient(answer):
    assert equal(answer, r"{10 \choose 3}") and equal(r"{10 \choose 3}", answer)
    assert equal(r"2{n+1 \choose 2}", r"2\binom{n+1}{2}") and not equal("121", r"{10 \choose 3}")
    assert equal(r"{1 \over 2}", "0.5")


def test_identities_are_compared_without_units_and_names():
    assert equal(r"x = \ln 2 + \ln 3\text{ feet}", r"\ln 6", "Find $x$.")
    assert equal(r"(\ln 6, 1)", r"(\ln 2+\ln 3, 1)") and not equal(r"(\ln 6, 1)", r"(\ln 2, 1)")


def test_what_nests_too_deeply_for_python_is_wrong_and_ends_nothing(monkeypatch):
    def deep(*_):
        raise RecursionError

    monkeypatch.setattr(grade_module, "unnamed", deep)
    assert explain("5", "7", "Why?") == (0.0, "", "too large to be compared")
    assert explain("7", "7", "Why?").right == 1.0


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.characters(), max_size=80), st.sampled_from(GOLDS))
def test_any_text_is_judged(pieces, gold):
    text = "".join(pieces)
    for completion in (text, rf"\boxed{{{text}}}", f"#### {text}"):
        grade = grade_answer(completion, problem(gold, f"Find $x$ in percent: ${text}$."))
        assert grade in (0.0, 1.0)
    grade = grade_answer(r"\boxed{5}", problem(text))
    assert grade in (0.0, 1.0) or math.isnan(grade)


@settings(deadline=None)
@given(st.text(st.sampled_from("012,.-/{} \\x=%:|") | st.characters(), max_size=20))
def test_any_answer_that_states_something_equals_itself(text):
    grade = grade_answer(rf"\boxed{{{text}}}", problem(text))
    # A lone brace ends the box early, and what is left of the text need not equal all of it.
    assert "{" in text or "}" in text or "\\" in text or grade == 1.0 or math.isnan(grade)


@settings(deadline=None)
@given(st.fractions(max_denominator=10**6), st.fractions(max_denominator=10**6))
def test_fractions_are_equal_where_their_values_are(value, other):
    def latex(x):
        return rf"{'-' if x < 0 else ''}\frac{{{abs(x.numerator)}}}{{{x.denominator}}}"

    assert equal(latex(value), str(value)) and equal(str(value), latex(value))
    assert equal(latex(value), latex(other)) == (value == other)


@pytest.mark.parametrize(
    "piece",
    ["{", "\\text{", "\\frac", "5", "1,111", "aaaa ", " ", "$", "\\$", "1/", "^\\circ ", "(", "|",
     "x^", "\\sqrt", "\\sin", "1,", "\\pm", "x+", "(x+y)^", "9^{", "\\{1,", "-", "\\cup(1,2)", "!"],
)  # fmt: skip
def test_a_box_full_of_one_thing_is_wrong(piece):
    for count in (MAX_CHARS // len(piece) // 2, 10_000):
        opened = piece * count
        text = rf"\boxed{{{opened}{'}' * opened.count('{')}}}"
        grade = grade_answer(text, problem("72"))
        assert grade == 0.0


def hostile(count):
    """The same strings each time: pieces in disorder, and valid but monstrous expressions."""
    rng = random.Random(0)

    def expression(depth):
        if not depth:
            return rng.choice(["9", "x", "y", "z", "10^{99}", "0", r"\pi", "i", "0.1", "99999999"])
        inner = [expression(depth - 1) for _ in range(2)]
        shape = rng.choice(
            ["({}+{})^{{40}}", "{}^{{{}}}", r"\frac{{{}}}{{{}}}", "(({})!+{})!", "({},{})",
             r"\sqrt[7]{{{}{}}}", r"\binom{{{}}}{{{}}}", r"\sin({}-{})", r"\{{{},{}\}}", "{}={}",
             r"{}\cdot {}", r"\begin{{vmatrix}}{}&{}\end{{vmatrix}}", r"\sum_{{i=0}}^{{{}}}{}",
             r"\int {} d{}"]
        )  # fmt: skip
        return shape.format(*inner)

    for index in range(count):
        if index % 2:
            yield "".join(rng.choices(PIECES, k=rng.randrange(60)))
        else:
            yield expression(rng.randrange(1, 7))[:MAX_CHARS]


def test_a_thousand_hostile_answers_are_wrong():
    for text in hostile(1000):
        for gold in ("72", r"\sqrt{2}+x", "(3,4)"):
            grade = grade_answer(rf"\boxed{{{text}}}", problem(gold))
            assert grade == 0.0, text


@real_data
def test_every_real_gold_answer_equals_itself():
    rows = [
        row for file in ("train.jsonl.gz", "math500_test.jsonl") for row in read_rows(MATH / file)
    ]
    assert len(rows) == 7498 + 500
    for _, where, row in rows:
        gold = problem(row["answer"], row["problem"])
        assert grade_answer(rf"\boxed{{{row['answer']}}}", gold) == 1.0, where


@pytest.mark.parametrize(
    ("gold", "kind"),
    [
        ("5", "number"), (r"\frac{1}{2}", "number"), (r"1.5\text{ m}", "quantity"),
        (r"x^2+1", "expression"), (r"\text{Monday}", "text"), ("y = 2x", "equation"),
        (r"x \le 5", "set of reals"), ("3:4:5", "ratio"), ("(1, 2)", "tuple"),
        ("[0, 1)", "set of reals"),
        (r"(2, \infty)", "set of reals"),
        (r"[2, \sqrt5]", "set of reals"), ("2, 3", "list"), (r"\{2, 3\}", "set"),
        (r"(0, 1) \cup (2, 3)", "set of reals"), (r"\begin{pmatrix} 1 & 2 \end{pmatrix}", "matrix"),
        ("", ""),
    ],
)  # fmt: skip
def test_a_verdict_names_the_kind_of_the_gold_answer(gold, kind):
    assert explain(gold, gold, "").kind == kind
