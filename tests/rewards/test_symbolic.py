import math
import re

import pytest
from sympy.parsing import sympy_parser

from permix_jax.rewards import steps, symbolic
from permix_jax.rewards.symbolic import equivalent


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        (r"\ln 2+\ln 3", r"\ln 6"), (r"2\sin x\cos x", r"\sin 2x"), (r"1-\cos^2 x", r"\sin^2 x"),
        (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2"), (r"|2-x|", r"|x-2|"), (r"\log_2 8", "3"),
        (r"(e^x)^2", "e^{2x}"), (r"\arctan 1", r"\frac\pi4"), (r"2\cdot2^x", "2^{x+1}"),
        (r"(\ln 4,1)", r"(2\ln 2,1)"), (r"\{1,\ln 4\}", r"\{2\ln 2,1\}"), (r"x=\ln 4", r"2\ln 2=x"),
        (r"x<\ln 4", r"x<2\ln 2"), (r"\binom{n}{1}", "n"),
        ("(n+1)!", r"(n+1)\cdot n!"), (r"\frac{1}{\log_5 2}", r"\log_2 5"),
        (r"\cos 20^\circ", r"\sin 70^\circ"),
    ],
)  # fmt: skip
def test_equivalent(answer, gold):
    assert equivalent(answer, gold) is True


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("0.693147", r"\ln 2"), (r"\ln 2", "0.6931471805599453"), (r"\sin X", r"\sin x"),
        (r"\sin 30", r"\sin 30^\circ"), (r"\{\ln 4\}", r"2\ln 2"), (r"x=\ln 4", r"2\ln 2"),
        (r"(1,\ln 4)", r"(2\ln 2,1)"), (r"\ln 4, 1", r"(2\ln 2,1)"), (r"\ln 4, 5", r"2\ln 2"),
        (r"x\le\ln 4", r"x<2\ln 2"), (r"x>\ln 4", r"x<2\ln 2"), (r"\ln 4\text{ or }7", r"2\ln 2"),
        (r"\frac{\ln 1}{0}", r"\ln 1"), (r"9^{9^{9^{x}}}", r"\ln 2"), ("(10^9)!", r"\ln 2"),
        (r"\ln 4 m", r"2\ln 2"), (r"\ln 2+10^{-25}", r"\ln 2"), (r"\binom{10^9}{5}x", r"\ln x"),
        ("((9)!+x)!", r"\ln x"), (r"\binom{x}{0.1}", r"\ln x"),
    ],
)  # fmt: skip
def test_not_equivalent(answer, gold):
    assert equivalent(answer, gold) is False


@pytest.mark.parametrize("gold", ["", r"\foo", "9^{9^{9^9}}", r"\frac{x}{0}", "3.14...", "x\x00"])
def test_what_cannot_be_shown_to_equal_a_gold_answer_beyond_sympy_is_wrong(gold):
    assert equivalent(r"\ln 2", gold) is False


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("0.693147181", r"\ln 2"), ("0.30103", r"\log 2"), (r"\ln 2+10^{-29}", r"\ln 2"),
        (r"\sin^2 x+10^{-9}\sin y", r"1-\cos^2 x"), (r"0.1^{i^{(\pi+0.1)^{40}}}", "72"),
        (r"(i\cdot 10^{99}+(y+\pi)^{40})^{40}", "72"),
    ],
)  # fmt: skip
def test_unequal_values_are_told_by_their_digits_before_any_algebra(answer, gold, monkeypatch):
    monkeypatch.setattr(symbolic, "verify", None)  # not to be called
    assert equivalent(answer, gold) is False


def test_algebra_takes_the_same_steps_whatever_ran_before_and_stops_after_so_many():
    pair, taken = (r"2\sin x\cos x", r"\sin 2x"), []
    equivalent(*pair)  # late imports are steps, too
    try:
        for before in (r"1-\cos^2 x", r"|2x|"):
            equivalent(before, r"\sin^2 x")
            steps.allow(10**6)
            assert equivalent(*pair) is True
            taken.append(10**6 - steps.allow(math.inf))
        assert taken[0] == pytest.approx(taken[1], rel=0.01) and taken[0] > 10_000
        steps.allow(taken[0] // 2)
        with pytest.raises(steps.OutOfSteps):
            equivalent(*pair)
    finally:
        steps.allow(math.inf)


@pytest.mark.parametrize(
    "text",
    ["__import__('os').system('true')", r"\ln(__import__('os'))", "().__class__", "x.is_real",
     r"\variable{open('f','w')}", r"\operatorname{zeros}(9,9)", r"\text{exec}(1)", "eval(1)+x",
     r"x_{__import__}+\ln 2", "lambda: 1", r"f'{1}'", "0x10+x", "1j+x", "x if x else y",
     r"\det\begin{pmatrix}x\end{pmatrix}", r"\int_0^1 x dx", r"\sum_{i=0}^{9} i"],
)  # fmt: skip
def test_only_numbers_that_this_package_wrote_reach_an_evaluator(text, monkeypatch):
    """sympy turns strings of digits into numbers by `eval`; record all that it is given."""
    evaluated = []
    original = sympy_parser.eval_expr

    def record(code, *args):
        evaluated.append(code)
        return original(code, *args)

    monkeypatch.setattr(sympy_parser, "eval_expr", record)
    assert equivalent(text, r"\ln 3+x") is False
    assert equivalent(rf"\ln 6+({text})", r"\ln 3+x") is False
    assert equivalent(r"\ln 2+\ln 3", r"\ln 6") is True
    assert all(re.fullmatch(r"Integer \([0-9]+ *\)", code) for code in evaluated), evaluated
