"""Where thinking ends: what counts as the answer's place, for models that think and others."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permix_jax.core.problem import Problem
from permix_jax.rewards.answer import stated_answer
from permix_jax.rewards.grade import grade_answer
from permix_jax.rewards.thinking import answer_part, begins_thought, behind_thinking

END = "</think>"
FIVE = Problem("p", "What is 2 + 3?", "5", "test")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("<think>\n4?\n</think>\n\n5", "\n\n5"),
        ("4? </think> 5", " 5"),  # the prompt began the thought
        ("<think> 4? </think> 6 <think> no </think> 5", " 5"),
        ("<think> 4?", ""),
        ("", ""),
        ("<think></think>", ""),
        ("<think> 4? </think> 5 <think> or 6", ""),
        ("4? </thi", "4? </thi"),
        ("it is 5", "it is 5"),
    ],
)
def test_the_answer_stands_behind_the_last_thought(text, part):
    assert answer_part(text, END) == part


def test_where_the_prompt_began_the_thought_a_text_without_its_end_has_no_answer():
    assert answer_part("5, or 6", END, begun=True) == ""
    assert answer_part("5, or </think> 6", END, begun=True) == " 6"
    assert answer_part("5 </think> 6 <think> 7", END, begun=True) == ""


def test_another_end_has_its_own_beginning_and_none_leaves_the_text_whole():
    assert answer_part("[THINK]4[/THINK]5", "[/THINK]") == "5"
    assert answer_part("[THINK]4", "[/THINK]") == ""
    assert answer_part("<think>4", "[/THINK]") == "<think>4"
    assert answer_part("<think>4</think>5", "") == "<think>4</think>5"
    assert answer_part("5", "", begun=True) == "5"


@pytest.mark.parametrize(
    ("prompt", "begins"),
    [("<|im_start|>assistant\n", False), ("<｜Assistant｜><think>\n", True)]
    + [("assistant\n<think>\n\n</think>\n\n", False), ("<think>a</think><think>\n", True)],
)
def test_whether_a_prompt_begins_a_thought(prompt, begins):
    assert begins_thought(prompt, END) == begins


@pytest.mark.parametrize(
    ("text", "right", "stated"),
    [
        ("<think>It is \\boxed{5}.</think> \\boxed{6}", 0.0, "6"),
        ("<think>It is \\boxed{6}.</think> \\boxed{5}", 1.0, "5"),
        ("<think>It is \\boxed{5}.</think> Done.", 0.0, None),
        ("<think>It is \\boxed{5}.", 0.0, None),
        ("\\boxed{5}", 1.0, "5"),
    ],
)
def test_a_box_inside_the_thought_is_no_answer(text, right, stated):
    def part(text):
        return answer_part(text, END)

    assert behind_thinking(grade_answer, part)(text, FIVE) == right
    assert behind_thinking(stated_answer, part)(text) == stated


@given(st.lists(st.sampled_from(["<think>", END, "5", "x ", "</"])), st.booleans())
def test_the_part_is_the_end_of_the_text_and_holds_no_thought(pieces, begun):
    text = "".join(pieces)
    part = answer_part(text, END, begun)
    assert text.endswith(part) and "<think>" not in part and END not in part
