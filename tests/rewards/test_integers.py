r"""Families of integers, {3, ..., 6}, and indices with a range."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permix_jax.rewards.grade import explain
from permix_jax.rewards.integers import filled, indexed, spoken, with_one_modulus
from permix_jax.rewards.nodes import number
from permix_jax.rewards.notation import read
from permix_jax.rewards.tree import parse

DOTS = ("text", "\\ldots")


@pytest.mark.parametrize(
    ("text", "same"),
    [
        (r"4k+1, k \in \mathbb{Z}", r"4k+1, k \in \mathbb{Z}"),
        (r"4k+1 \text{ where } k \text{ is an integer}", r"4k+1, k \in \mathbb{Z}"),
        (r"4k+1 \text{ for all integers } k", r"4k+1, k \in \mathbb{Z}"),
        (r"4k+1 \quad (k = 0, \pm 1, \pm 2, \ldots)", r"4k+1, k \in \mathbb{Z}"),
        (r"2n-1, n \ge 1", r"2n-1, n \in \mathbb{N}"),
        (r"2n-1 (n = 1, 2, \ldots)", r"2n-1, n \in \mathbb{N}"),
        (r"2n-1 \text{ for a positive integer } n", r"2n-1, n \in \mathbb{N}"),
        (r"x > 2, n \ge 1", r"x > 2, n \ge 1"),  # the letter is not in it
        (r"n > 2, n \ge 1", r"n > 2, n \ge 1"),  # two conditions
        (r"2n-1, n \ge 5", r"2n-1, n \ge 5"),  # another range
    ],
)  # fmt: skip
def test_a_range_in_one_writing(text, same):
    assert indexed(read(text)) == read(same)


@given(st.integers(-50, 50), st.integers(1, 9), st.integers(2, 40), st.integers(1, 3))
def test_a_progression_is_filled(first, step, count, shown):
    every = tuple(number(first + step * n) for n in range(count + 1))
    shown = max(shown, 2) if step > 1 else shown
    assert filled((*every[:shown], DOTS, every[-1])) == (
        every if count >= shown else (*every[:shown], DOTS, every[-1])
    )


def test_what_is_no_finite_progression_stays():
    for row in ("1 .", ". 4", "1 3 . 6", "1 2 4 . 8", "1 . 1000000000", "5 . 1"):
        parts = tuple(DOTS if part == "." else number(int(part)) for part in row.split())
        assert filled(parts) == parts


def test_sets_in_words():
    assert spoken(read(r"\text{all integers from 3 to 5}")) == (
        "set",
        tuple(map(number, (3, 4, 5))),
    )
    assert spoken(read(r"\text{even integers from -2 to 2}")) == (
        "set",
        tuple(map(number, (-2, 0, 2))),
    )
    assert spoken(read(r"\text{odd numbers}"))[0] == "builder"
    assert spoken(read(r"\text{integers from 5 to 3}")) is None
    assert spoken(read(r"\text{an even function}")) is None


def test_one_modulus_for_all():
    one, three = parse(read(r"x \equiv 1 \pmod 8")), parse(read(r"x \equiv 3 \pmod 8"))
    one, three = (part[2][1] for part in (one, three))
    assert [
        part[2][1] if part[0] == "rel" else part
        for part in parse(read(r"x \equiv 1, 3 \pmod 8"))[1]
    ] == [one, three]
    assert with_one_modulus((number(Fraction(1)), number(2))) == (number(1), number(2))


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        (r"x = 15k + 8, k \in \mathbb{Z}", r"x \equiv 8 \pmod{15}", 1),
        ("15n - 7", r"x \equiv 8 \pmod{15}", 1),
        ("15n + 7", r"x \equiv 8 \pmod{15}", 0), ("5n + 8", r"x \equiv 8 \pmod{15}", 0),
        (r"\text{all even integers}", r"\{2k : k \in \mathbb{Z}\}", 1),
        (r"\text{odd integers}", r"n \equiv 1 \pmod 2", 1),
        (r"\text{odd integers}", r"\{2k : k \in \mathbb{Z}\}", 0),
        (r"3k, k \in \mathbb{Z}", r"\text{multiples of 3}", 1),
        ("2n - 1, n \\ge 1", "a_n = 2n - 1", 1), ("2n + 1, n \\ge 1", "a_n = 2n - 1", 0),
        (r"n = 2^m \text{ for } m = 0, 1, 2, \ldots", r"n = 2^k, k \ge 0", 1),
        (r"\text{powers of 2}", r"n = 2^k, k \ge 0", 1),
        (r"n = 2^k, k \in \mathbb{Z}", r"n = 2^k, k \ge 0", 0),
        (r"\pi/2 + k\pi, k \in \mathbb{Z}", r"x = \pi/2 + n\pi, n \in \mathbb{Z}", 1),
        # as k at 0, 1 and 2
        (r"k(k-1)(k-2) + k, k \in \mathbb{Z}", r"x = k, k \in \mathbb{Z}", 0),
        (r"k^2, k \in \mathbb{Z}", r"x = k, k \in \mathbb{Z}", 0),
        (r"\{3, \dots, 6\}", "3, 4, 5, 6", 1), (r"3, 4, \ldots, 7", "3, 4, 5, 6", 0),
    ],
)  # fmt: skip
def test_verdicts(answer, gold, right):
    assert explain(answer, gold, "").right == right
