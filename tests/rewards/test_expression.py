from fractions import Fraction

import pytest

from permix_jax.rewards.expression import MAX_DEPTH, call_name, parse_expression
from permix_jax.rewards.nodes import names, negated, number
from permix_jax.rewards.notation import read
from permix_jax.rewards.values import rational


def tree(text):
    return parse_expression(read(text))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1/2", "1/2"), (r"\frac12", "1/2"), (r"2\frac{3}{4}", "11/4"),
        ("2 1/3", "7/3"), (r"0.\overline{12}", "4/33"), (r"0.1\overline{6}", "1/6"), (".5", "1/2"),
        ("-2^2", "-4"), ("2^{2^3}", "256"), ("2^10", "1024"), ("10^-3", "1/1000"), ("5!", "120"),
        ("5e-1", "1/2"), (r"{10 \choose 3}", "120"), ("C(10,3)", "120"), (r"|{-3}|", "3"),
        ("2*-3", "-6"),
        (r"\lfloor -2.5 \rfloor", "-3"), (r"\sqrt{36}", "6"), ("4^{1/2}", "2"),
        (r"{1 \over 2}", "1/2"),
        ("Fraction(1,3)", "1/3"), ("1/2/2", "1/4"), ("- - 3", "3"), (r"\max(2,3)", "3"),
        ("8 : 2"[:1], "8"),
    ],
)  # fmt: skip
def test_values_of_expressions(text, value):
    assert rational(tree(text)) == Fraction(value)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (r"\sin 2x", r"\sin(2x)"), (r"\sin^2 x", r"(\sin x)^2"), (r"\tan^{-1} x", r"\arctan x"),
        (r"\log_2 8", "log(8, 2)"), ("exp(x)", "e^x"), ("abs(x)", "|x|"),
        (r"\sqrt[3]{x}", "cbrt(x)"),
        (r"x_{12}", "x_12"), (r"\mathrm{e}^x", "e^x"),
    ],
)  # fmt: skip
def test_two_writings_of_one_tree(one, two):
    assert tree(one) == tree(two) is not None


@pytest.mark.parametrize(
    "text",
    ["", "+", "1 2", "(1", "1)", "5!!", r"\frac{1}", "x^", "1_2", r"1\frac{9}{8}", "x=1", "1,2",
     r"\foo", "|x", "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), "9" * 501],
)  # fmt: skip
def test_what_is_no_expression_is_none(text):
    assert parse_expression(read(text) or ()) is None


def test_sin_x_times_a_bracket_is_no_sine_of_a_product():
    assert tree(r"\sin x(1+x)") != tree(r"\sin(x(1+x))")


def test_names():
    assert names(tree(r"x_1 + \pi e^{iy}")) == {"x_1", "y"}
    assert (
        call_name(read("f(x)")) == "f(x)"
        and call_name(read(r"f^{-1}(x)"))
        and not call_name(read("2(x)"))
    )
    assert negated(number(3)) == number(-3)
