import re

import pytest
from sympy.parsing import sympy_parser

from permix_jax.rewards.symbolic import UnreadableGold, equivalent


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
def test_a_gold_answer_that_cannot_be_read(gold):
    with pytest.raises(UnreadableGold):
        equivalent(r"\ln 2", gold)


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
