"""Answers to multiple-choice questions."""

import pytest

from permix_jax.rewards import choices
from permix_jax.rewards.grade import explain

LOG = "What is $\\log_2 32$? (A) 4 (B) 5 (C) 6 (D) 16"
OPENS = "The graph of $y = -x^2$ opens: A. upward B. to the left C. downward"


@pytest.mark.parametrize(
    ("text", "whole", "stated"),
    [
        (r"\text{(C)}", "C", "C"), ("C", "C", "C"), (r"\textbf{(C) } 5", "", "C"),
        ("C. 5", "", "C"),
        ("(c)", "C", "C"), (r"\text{(C) or (D)}", "", ""), ("A, B", "", ""), ("5", "", ""),
        ("x", "", ""),
        ("Option C", "C", "C"), (r"\text{The answer is C}", "C", "C"),
    ],
)  # fmt: skip
def test_choices(text, whole, stated):
    assert choices.letter(text) == whole and choices._stated(text) == stated


def test_options():
    assert choices.options("Is it (A) 1, (B) 3 or (C) 5?") == {"A": "1", "B": "3", "C": "5"}
    assert choices.options("It opens A. upward B. to the left C. down.") == {
        "A": "upward", "B": "to the left", "C": "down"
    }  # fmt: skip
    assert choices.options("Let (C) be a curve, and A. N. Other a poet.") == {}
    assert choices.options('Enter "P" for parabola.') == {"P": "parabola"}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (r"\text{(B) 6}", ("B", "6")),
        (r"\text{B) } 6", ("B", "6")),
        ("(C) $x > 3$", ("C", "$x > 3$")),
        ("C. 5", ("C", "5")), ("C", None), ("x) 5", None),
    ],
)  # fmt: skip
def test_an_option_with_its_text(text, parts):
    assert choices.with_text(text) == parts


@pytest.mark.parametrize(
    ("answer", "gold", "prompt", "right"),
    [
        ("B", "B", LOG, 1), ("5", "B", LOG, 1), ("6", "B", LOG, 0), ("C", "B", LOG, 0),
        (r"\text{(B) } 5", "B", LOG, 1),
        (r"\text{B) } 6", "B", LOG, 0),  # the value of C
        (r"\text{(B) } 7", "B", LOG, 0),  # the value of none
        (r"\text{(B) because } 2^5 = 32", "B", LOG, 1),
        ("B", "5", LOG, 1), ("C", "5", LOG, 0),
        (r"\text{downward}", "C", OPENS, 1), (r"\text{upward}", "C", OPENS, 0),
        ("C", "(C) 6", LOG, 1),
        ("6", "(C) 6", LOG, 1),
        ("(C) 5", "(C) 6", LOG, 0),
        ("B", "(C) 6", LOG, 0),
    ],
)  # fmt: skip
def test_verdicts(answer, gold, prompt, right):
    assert explain(answer, gold, prompt).right == right
