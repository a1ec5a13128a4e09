import pytest

from permix_jax.rewards.notation import read
from permix_jax.rewards.sets import is_set, real_set, same_sets
from permix_jax.rewards.tree import parse


def tree(text):
    return parse(read(text))


@pytest.mark.parametrize(
    "spellings",
    [
        (r"(-\infty,-2)\cup(2,\infty)", "|x|>2", "x<-2, x>2", r"x<-2 \text{ or } 2<x", "x^2>4",
         r"\mathbb{R}\setminus[-2,2]", r"]-\infty,-2[\cup]2,\infty["),
        (r"x \ne 0", r"\mathbb{R}\setminus\{0\}", r"(-\infty,0)\cup(0,\infty)", "x<0 or x>0"),
        ("[0,2]", r"[0,1]\cup[1,2]", r"\{x \in \mathbb{R} : 0 \le x \le 2\}", "0<=x<=2",
         "|x-1|<=1"),
        ("(1,3)", r"1<x \text{ and } x<3", r"(0,3)\cap(1,4)", r"\{t \mid 1<t<3\}"),
        (r"(\sqrt2,\infty)", r"x>\sqrt{2}", r"x \in (\sqrt2, \infty)"),
    ],
)  # fmt: skip
def test_writings_of_one_set(spellings):
    for one in spellings:
        assert all(same_sets(tree(one), tree(two)) for two in spellings), one


@pytest.mark.parametrize(
    ("one", "two"),
    [
        ("(0,1)", "[0,1]"), ("(0,1)", "(0,1]"), ("x>2", r"x \ge 2"), ("x>2", "x<2"),
        (r"x\ne 1", "x<1"),
        (r"(-\infty,1)\cup(3,\infty)", "(1,3)"), (r"[-2,0)\cup(0,2]", "[-2,2]"),
        ("|x|>2", "|x|>2.1"),
        (r"x>\sqrt2", "x>1.41421356"), (r"\mathbb{R}", r"(0,\infty)"), ("1<x<2", r"\{1,2\}"),
    ],
)  # fmt: skip
def test_unlike_sets(one, two):
    assert same_sets(tree(one), tree(two)) is False


def test_sets_of_integers():
    assert same_sets(tree("2<n<7"), tree(r"\{3,4,5,6\}"), whole=True)
    assert not same_sets(tree("2<n<7"), tree(r"\{3,4,5\}"), whole=True)


def test_what_is_no_set():
    assert is_set(tree("x>1")) and not is_set(tree("(1,2)")) and not is_set(tree("1,2"))
    assert real_set(tree("x")) is None and real_set(tree(r"\text{no}")) is None
