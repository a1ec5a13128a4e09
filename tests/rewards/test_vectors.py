"""Sums of multiples of tuples and of matrices."""

import pytest

from permix_jax.rewards.grade import explain
from permix_jax.rewards.notation import read
from permix_jax.rewards.tree import parse
from permix_jax.rewards.vectors import added

COLUMN = r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}"


@pytest.mark.parametrize(
    ("answer", "gold", "right"),
    [
        ("(1,3,0) + t(2,-1,1)", "(1+2t, 3-t, t)", 1), ("(1,3,0) - t(2,-1,1)", "(1+2t, 3-t, t)", 0),
        ("-(1,2)", "(-1,-2)", 1), ("2(1,2) - (1,1)", "(1,3)", 1), ("(1,2) + (1,1,1)", "(2,3)", 0),
        (COLUMN + " e^{2t}", r"\begin{pmatrix} e^{2t} \\ 2e^{2t} \end{pmatrix}", 1),
        (r"e^{2t} \cdot (1,2)^T", r"\begin{pmatrix} e^{2t} \\ 2e^{2t} \end{pmatrix}", 1),
        (COLUMN + " e^{t}", r"\begin{pmatrix} e^{2t} \\ 2e^{2t} \end{pmatrix}", 0),
    ],
)  # fmt: skip
def test_verdicts(answer, gold, right):
    assert explain(answer, gold, "").right == right


def test_unlike_shapes_have_no_sum():
    assert added(parse(read("(1,2)")), parse(read("(1,2,3)"))) is None
    assert added(parse(read("(1,2)")), parse(read(COLUMN))) is None
