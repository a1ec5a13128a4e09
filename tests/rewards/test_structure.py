import pytest

from permix_jax.rewards import structure
from permix_jax.rewards.exact import same_leaf, same_relation
from permix_jax.rewards.latex import read
from permix_jax.rewards.structure import Leaf, Many, Pair, Relation


def tree(text):
    return structure.parse(read(text))


def same(one, other):
    return structure.same(tree(one), tree(other), same_leaf, same_relation)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("5", Leaf), ("1,234", Leaf), ("12,345.6", Leaf), ("f(1,2)", Leaf), ("(x+1)(x-1)", Leaf),
        (r"\{x : x > 1\}", Pair), ("1,23", Many), ("0,123", Many), ("1, 234", Many),
        (r"1 \text{ and } 2", Many), (r"\{1,2\}", Many), (r"\pm 2", Many), ("(1,2)", Pair),
        ("[1,2)", Pair), ("3:4:5", Pair), ("3:4", Leaf), ("x=5", Relation), ("1<x<2", Relation),
        (r"(1,2)\cup(3,4)", Many), (r"\begin{pmatrix}1\\2\end{pmatrix}", Many),
        (r"2\begin{pmatrix}1\\2\end{pmatrix}", Many), ("(5)", Leaf), ("((1,2))", Pair),
    ],
)  # fmt: skip
def test_parse(text, kind):
    assert isinstance(tree(text), kind)


def test_greater_signs_are_turned_round():
    assert tree("2 > x > 1") == tree("1 < x < 2") == Relation(("<", "<"), (*map(tree, "1x2"),))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1, 2", "2, 1"), (r"\{1, 2\}", "2,1"), (r"\{1,2,2\}", r"\{2,1\}"), (r"\pm 2", "2,-2"),
        (r"1\pm\sqrt2", r"1-\sqrt2, 1+\sqrt2"), ("(1,2)", "(1.0, 4/2)"), ("[0, 1/2)", "[0,0.5)"),
        (r"(0,1)\cup(2,3)", r"(2,3)\cup(0,1)"), ("x>5", "5<x"), ("x>5", r"(5,\infty)"),
        (r"x\in[1,2]", r"1\le x\le 2"), (r"x<1 \text{ or } x>2", r"(-\infty,1)\cup(2,\infty)"),
        ("y=2x+1", "2x-y+1=0"), ("2y=4x+2", "y=2x+1"), ("xy=1", r"y=\frac1x"), ("x=5", "5=x"),
        (r"\{x \mid x>2\}", r"(2,\infty)"), (r"\{t : t>2\}", "x>2"),
        (r"\{x\in\mathbb{R} : 1\le x<a\}", "[1,a)"),
        (r"\{x \mid x<1\text{ or }x>2\}", r"(-\infty,1)\cup(2,\infty)"),
        (r"\{n : n\text{ is odd}\}", r"\{ n\mid\text{n is Odd}\}"),
        ("2x<4", "x<2"), (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}",
         r"\begin{bmatrix}1&2\\3&4\\\end{bmatrix}"),
        (r"2\begin{pmatrix}1\\x\end{pmatrix}", r"\begin{pmatrix}2\\2x\end{pmatrix}"),
        (r"\{(1,2),(3,4)\}", r"\{(3,4),(1,2)\}"), ("3:4", r"\frac{6}{8}"), ("1:2:3", "2:4:6"),
        ("a,b,c", r"c \text{ and } b, a"), (r"\left(\begin{array}{cc}1&0\end{array}\right)",
         r"\begin{matrix}1&0\end{matrix}"),
    ],
)  # fmt: skip
def test_same(one, other):
    assert same(one, other) is True
    assert same(other, one) is True


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("1,2", "1,2,3"), ("1,1", "1,2"), ("1,2", "(1,2)"), (r"\{5\}", "5"), ("(1,2)", "(2,1)"),
        ("(1,2)", "[1,2]"), ("[1,2)", "(1,2]"), ("(1,2)", r"\{1,2\}"), ("x<5", "x>5"),
        ("x<5", r"x\le 5"), ("x=5", "x=6"), ("x=5", "y=5"), ("x=5", "5"), ("y=x^2", "y=x"),
        ("x^2=x", "x=1"), (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"\begin{pmatrix}1\\2\end{pmatrix}", "(1,2)"), (r"\{(1,2)\}", r"\{(2,1)\}"),
        (r"\{1,\{2\}\}", r"\{1,2\}"), ("1:2", "2:1"), (r"(0,1)\cup(2,3)", "(0,3)"), ("1,2", "1.2"),
        (r"(0,1)\cup(2,3)", "(0,1),(2,3)"), (r"x\ne 2", "x=2"), ("-x<1", "x<-1"),
        (r"\{x \mid x>2\}", "5"), (r"\{x \mid x>2\}", r"\{x \mid x\ge 2\}"),
        (r"\{x\in\mathbb{Z} : 1<x<5\}", "(1,5)"), (r"\{a \mid a<x<b\}", "(a,b)"),
    ],
)  # fmt: skip
def test_unlike(one, other):
    assert same(one, other) is False
    assert same(other, one) is False


def test_a_leaf_that_is_undecided_leaves_the_whole_so_unless_another_differs():
    assert same(r"(\ln 6, 1)", r"(\ln 2+\ln 3, 1)") is None
    assert same(r"(\ln 6, 1)", r"(\ln 2+\ln 3, 2)") is False
    assert same(r"\{1, \ln 6\}", r"\{\ln 2+\ln 3, 1\}") is None
    assert same(r"x=\ln 6", r"x=\ln 2+\ln 3") is None


def test_structure_is_taken_apart_only_so_deeply():
    deep = "(" * 12 + "1,2" + ",3)" * 12
    assert same(deep, deep) is True
    assert isinstance(tree(",".join("1" * 100)), Leaf)
