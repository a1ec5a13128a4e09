"""What the wording of a problem decides."""

import pytest

from permix_jax.rewards.grade import explain
from permix_jax.rewards.wording import as_asked, letters

MATRIX = r"\begin{pmatrix}%s\end{pmatrix}"


def test_units_behind_a_formula_are_no_variables():
    assert letters("Each sheet is $2.5$ m thick and $x$ wide; n is even.") == {"x", "n"}


@pytest.mark.parametrize(
    ("answer", "gold", "prompt", "right"),
    [
        ("(x-2)(x+2)(x^2+4)", "(x-2)(x+2)(x^2+4)", "Factor $x^4-16$.", 1),
        ("(x^2-4)(x^2+4)", "(x-2)(x+2)(x^2+4)", "Factor $x^4-16$ completely.", 0),
        ("(x^2-4)(x^2+4)", "(x-2)(x+2)(x^2+4)", "Find the product.", 1),
        ("(x+1)(x+1)", "(x+1)^2", "Factorise $x^2+2x+1$.", 1),
        (MATRIX % r"-2\\-2", MATRIX % r"1\\1", "Find an eigenvector for $3$.", 1),
        (MATRIX % r"-2\\2", MATRIX % r"1\\1", "Find an eigenvector for $3$.", 0),
        (MATRIX % r"0\\0", MATRIX % r"1\\1", "Find an eigenvector for $3$.", 0),
        (MATRIX % r"-2\\-2", MATRIX % r"1\\1", "Find the vector.", 0),
        ("(2,4,-2)", "(1,2,-1)", "Give a normal vector of the plane.", 1),
        ("[4.2, 5.8]", "(4.2, 5.8)", "Find the 95% confidence interval.", 1),
        (r"5 \pm 0.8", "(4.2, 5.8)", "Find the 95% confidence interval.", 1),
        (r"5 \pm 0.7", "(4.2, 5.8)", "Find the 95% confidence interval.", 0),
        ("[4.2, 5.8]", "(4.2, 5.8)", "Where is it positive?", 0),
        (r"\text{a decrease of } 8\%", r"-8\%", "What is the percent change?", 1),
        (r"\text{an increase of } 8\%", r"-8\%", "What is the percent change?", 0),
        (r"2.006\text{ s}", r"2.01\text{ s}", "Find the period.", 1),
        (r"2.016\text{ s}", r"2.01\text{ s}", "Find the period.", 0),
        (r"2.0\text{ s}", r"2.01\text{ s}", "Find the period.", 0),
        ("2.006", "2.01", "What is the sum?", 0),
        ("2.006", "2.01", "Round the sum to the nearest hundredth.", 0),
        (r"\overline{9}", "9", r"Compute $7^{100}$ in $\mathbb{Z}/13\mathbb{Z}$.", 1),
        ("P(6,4)", "360", "How many?", 1), ("P(6,4)", "(6,4)", "Which point?", 1),
        ("{{1,2},{3,4}}", MATRIX % r"1&2\\3&4", "", 1),
        ("[1, 2; 3, 4]", MATRIX % r"1&2\\3&4", "", 1),
        (r"\mathbf{0}_{2\times 2}", MATRIX % r"0&0\\0&0", "", 1),
        (r"\mathbf{0}_{2\times 2}", MATRIX % r"0&0\\0&1", "", 0),
        (r"\$70k", "70000", "How much, in dollars?", 1),
        ("2k.", "2k", "Write it in terms of $k$.", 1), ("2000", "2k", "Find the sum.", 0),
        ("2, 3, 7", "(2,3,7)", "Find $(p,q,r)$.", 1), ("3, 2, 7", "(2,3,7)", "Find $(p,q,r)$.", 0),
    ],
)  # fmt: skip
def test_verdicts(answer, gold, prompt, right):
    assert explain(answer, gold, prompt).right == right


def test_only_where_a_change_is_asked_for_words_of_loss_are_a_sign():
    assert as_asked(r"\text{a decrease of } 8\%", "What is the change?") == r"-8\%"
    assert as_asked(r"\text{a decrease of } 8\%", "By how much?") == r"\text{a decrease of } 8\%"
    assert as_asked(None, "What is the change?") is None
