from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.rewards.expression import children, parse
from permix_jax.rewards.latex import form, read

PIECES = [
    "\\frac{", "\\sqrt{", "\\sqrt[3]{", "\\sin", "\\log_", "\\binom{", "\\overline{", "\\lfloor",
    "\\rfloor", "\\cdot", "\\infty", "\\pi", "^{", "}{", *"{}()[]|+-/!^_ 0129.,xe",
]  # fmt: skip
TWO, THREE, X = ("number", Fraction(2)), ("number", Fraction(3)), ("symbol", "x")
MINUS_ONE = ("number", Fraction(-1))
HALF = ("product", (("number", Fraction(1)), ("power", TWO, MINUS_ONE)))


def tree(text):
    return parse(read(text))


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("2", TWO),
        ("1,234.50", ("number", Fraction("1234.5"))),
        (".5", ("number", Fraction(1, 2))),
        ("1.5e3", ("number", Fraction(1500))),
        ("2e", ("product", (TWO, ("symbol", "e")))),
        (r"0.1\overline{6}", ("number", Fraction(1, 6))),
        ("1 1/2", ("number", Fraction(3, 2))),
        ("1/2", HALF),
        (r"\frac12", HALF),
        ("-2", ("number", Fraction(-2))),
        ("-x", ("product", (MINUS_ONE, X))),
        ("2x", ("product", (TWO, X))),
        ("2^x", ("power", TWO, X)),
        ("x-2", ("sum", (X, ("number", Fraction(-2))))),
        (r"\sqrt[3]{x}", ("root", THREE, X)),
        (r"2\frac12", ("sum", (TWO, HALF))),
        (r"2|x|", ("product", (TWO, ("call", "abs", (X,))))),
        (r"\sin 2x", ("call", "sin", (("product", (TWO, X)),))),
        (r"\sin^2 x", ("power", ("call", "sin", (X,)), TWO)),
        (r"\tan^{-1} x", ("call", "arctan", (X,))),
        (r"\log_2 x", ("call", "log", (X, TWO))),
        (r"3!", ("call", "factorial", (THREE,))),
        (r"\binom{3}{2}", ("call", "binomial", (THREE, TWO))),
        (r"\lceil x \rceil", ("call", "ceil", (X,))),
        ("101_2", ("symbol", "101_{2}")),
        ("x_1", ("symbol", "x_{1}")),
        (r"\infty", ("infinity",)),
    ],
)
def test_parse(text, node):
    assert tree(text) == node


@pytest.mark.parametrize(
    "text",
    ["", "1 2", "1,23", "(1", "2+", "x y z 1 2", "5=5", "(1,2)", r"\foo", "even", "3!!", "1/2/",
     r"50\%", "()", "__import__('os')", "1.2.3", r"\frac{1}{}", "|x", "x'", "٥"],
)  # fmt: skip
def test_what_is_no_expression_is_not_read(text):
    assert tree(text) is None


def test_nesting_is_bounded():
    assert tree("(" * 20 + "x" + ")" * 20) == X
    assert tree("(" * 200 + "x" + ")" * 200) is None
    assert tree(r"\sin" * 100 + "x") is None
    assert tree("^2" * 100) is None


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=40))
def test_the_written_form_of_an_expression_is_the_same_expression(pieces):
    tokens = read("".join(pieces))
    node = parse(tokens) if tokens else None
    if node:
        assert parse(read(form(tokens), max_chars=10_000)) == node
        assert all(isinstance(child, tuple) for child in children(node))


@given(st.fractions(max_denominator=10**6))
def test_every_written_fraction_is_read_back(value):
    from permix_jax.rewards.algebra import rational

    sign = "-" if value < 0 else ""
    latex = rf"{sign}\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
    assert rational(tree(latex)) == rational(tree(str(value))) == value


@given(st.decimals(-(10**12), 10**12, places=3))
def test_every_written_decimal_is_read_back(value):
    from permix_jax.rewards.algebra import rational

    assert rational(tree(f"{value:f}")) == rational(tree(f"{value:,}")) == Fraction(value)
