from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.rewards.algebra import is_undefined, proportional, rational, same_value
from permix_jax.rewards.estimate import certainly_unequal, estimates
from permix_jax.rewards.expression import parse
from permix_jax.rewards.latex import read


def tree(text):
    node = parse(read(text))
    assert node is not None, text
    return node


def same(one, other):
    return same_value(tree(one), tree(other))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("12^2", "144"), (r"\sqrt{8}", r"2\sqrt{2}"), (r"\frac{1}{\sqrt 3}", r"\frac{\sqrt3}{3}"),
        (r"\frac{1}{\sqrt3-\sqrt2}", r"\sqrt3+\sqrt2"), (r"\sqrt[3]{16}", r"2\sqrt[3]2"),
        (r"\sqrt2\sqrt[4]2", r"2^{3/4}"), (r"(1+i)^4", "-4"), (r"\frac1i", "-i"),
        (r"e^{i\pi/3}", r"\frac{1+i\sqrt3}{2}"), ("(x+1)(x-1)", "x^2-1"),
        (r"\frac{x^2-1}{x-1}", "x+1"), (r"\frac1x+\frac1y", r"\frac{x+y}{xy}"),
        (r"\cos\frac{\pi}{12}", r"\frac{\sqrt6+\sqrt2}{4}"), (r"\tan 60^\circ", r"\sqrt3"),
        (r"\sin(-\pi/6)", "-0.5"), ("5!", "120"), (r"\binom{10}{3}", "120"), (r"|-3|", "3"),
        (r"\lfloor-2.5\rfloor", "-3"), (r"\sqrt{-4}", "2i"), (r"\sqrt[3]{-8}", "-2"),
        (r"\sqrt{x^3}", r"x\sqrt x"), (r"2\sin 1+\sin 1", r"3\sin 1"), (r"e^{-1}", r"\frac1e"),
        (r"\sqrt{4x+8}", r"2\sqrt{x+2}"), ("0.5^{-2}", "4"), (r"\exp(2)", "e^2"), ("x^0", "1"),
    ],
)  # fmt: skip
def test_equal(one, other):
    assert same(one, other) is True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0.333", r"\frac13"), (r"\sqrt2", "1.41421356237"), (r"\pi", r"\frac{22}{7}"),
        (r"\sqrt2+\sqrt3", r"\sqrt5"), ("x", "X"), ("(x+1)^2", "x^2+1"), ("i", "-i"),
        (r"\sqrt[3]2", r"\sqrt2"), ("1010_2", "1010"), (r"\infty", "10^{100}"),
        ("2^{10}", "2^{11}"), ("10^{3000}", "10^{3001}"),
    ],
)  # fmt: skip
def test_unequal(one, other):
    assert same(one, other) is False


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (r"\sin 1", "0.8"), (r"\sqrt{3+2\sqrt2}", r"1+\sqrt2"), (r"\ln 6", r"\ln2+\ln3"),
        (r"\sqrt{x^2}", "x"), ("2^{x+1}", r"2\cdot 2^x"), ("9^{9^9}", "9"), ("(10^9)!", "9"),
        (r"\frac10", "0"), ("(x+y+z+1)^{40}", "x"), ("(-8)^{1/3}", "-2"), ("1000003^{999983}", "1"),
        (r"\sqrt{" + "9" * 300 + "7}", "1"),
    ],
)  # fmt: skip
def test_undecided(one, other):
    assert same(one, other) is None


def test_undefined_and_rational():
    assert is_undefined(tree(r"\frac{1}{2-2}")) and is_undefined(tree(r"\tan 90^\circ"))
    assert not is_undefined(tree("9^{9^9}")) and not is_undefined(tree("1"))
    assert rational(tree(r"\sqrt{0.25}")) == Fraction(1, 2)
    assert rational(tree("x")) is None and rational(tree(r"\frac10")) is None


@pytest.mark.parametrize(
    ("one", "other", "equation", "factor"),
    [
        ("2x-4", "x-2", False, 2), ("2-x", "x-2", False, -1), ("x-2", "x-3", True, 0),
        ("y-\\frac1x", "xy-1", True, 1), ("y-\\frac1x", "xy-1", False, 0),
        ("x^2-x", "x-1", True, 0), ("\\frac{1}{x+1}-y", "1-xy-y", False, None),
        ("\\sin x", "x", True, None), ("0", "x", True, 0),
    ],
)  # fmt: skip
def test_proportional(one, other, equation, factor):
    assert proportional(tree(one), tree(other), equation) == factor


numbers = st.sampled_from(
    ["0", "1", "2", "3", "6", "0.5", r"\frac{3}{4}", r"\pi", "e", "i", "x", "y"]
)
expressions = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(st.sampled_from(["({}+{})", "({}-{})", r"({}) \cdot ({})", r"\frac{{{}}}{{{}}}"]),
                  inner, inner),
        st.tuples(st.sampled_from(["({})^{{2}}", "({})^{{-1}}", "({})^{{1/2}}", r"\sqrt{{{}}}",
                                   r"\sqrt[3]{{{}}}", r"\sin({})", "|{}|", "({})^{{x}}"]), inner),
    ).map(lambda drawn: drawn[0].format(*drawn[1:])),
    max_leaves=8,
)  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(expressions, expressions)
def test_exact_arithmetic_and_floating_point_agree(one, other):
    """A sum less one of its terms is an equal pair, and most other pairs are unequal."""
    value, rewritten = tree(one), tree(f"({one}+{other})-({other})")
    if same_value(value, rewritten) is not None:
        assert same_value(value, rewritten)
    assert not certainly_unequal(value, rewritten)
    if same_value(value, tree(other)):
        assert not certainly_unequal(value, tree(other))
    elif certainly_unequal(value, tree(other)):
        assert same_value(value, tree(other)) is not True


def test_estimates():
    assert certainly_unequal(tree(r"\ln 2"), tree("0.693"))
    assert not certainly_unequal(tree(r"\ln 2"), tree("0.69314718056"))
    assert not certainly_unequal(tree(r"\sqrt{3+2\sqrt2}"), tree(r"1+\sqrt2"))
    assert certainly_unequal(tree(r"\sin x"), tree(r"\cos x"))
    assert not certainly_unequal(tree(r"\sin^2 x"), tree(r"1-\cos^2 x"))
    assert certainly_unequal(tree(r"e^{2i}"), tree("i"))
    assert certainly_unequal(tree("10^{400}"), tree(r"\ln x"))
    assert not certainly_unequal(tree("10^{400}"), tree("10^{401}"))
    for undefined in (r"\frac10", r"\ln(-1)", "9^{9^9}", r"\log(-3)", "1010_2", r"\sin(10^{20})"):
        assert estimates(tree(undefined)) == (None, None, None)


def test_cancellation_gives_no_estimate():
    """What is left of 3 - 2 sqrt 2 - (sqrt 2 - 1)^2 = 0 is rounding; its root would be 1e-8."""
    zero = r"\sqrt{3-2\sqrt2-(\sqrt2-1)(\sqrt2-1)}"
    assert not certainly_unequal(tree(zero), tree("0"))
