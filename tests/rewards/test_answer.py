import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.rewards.answer import extract_answer, stated_answer

PIECES = ["\\boxed{", "\\fbox ", "####", "\\{", "\\}", *"{}\\$. 019\nx"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{5}", "5"),
        (r"\fbox{5} apples", "5"),
        (r"\boxed {5}", "5"),
        (r"\boxed{1} then \boxed{\frac{1}{2}} end", r"\frac{1}{2}"),
        (r"\boxed{1} then \boxed{2", "1"),
        (r"\boxed{1 \boxed{3}", "3"),
        (r"\boxed{1 + \boxed{3}}", r"1 + \boxed{3}"),
        (r"{ \boxed{4}", "4"),
        (r"} \boxed{4}", "4"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{1 \\{2}}", r"1 \\{2}"),
        (r"\boxed{a\}b}", r"a\}b"),
        (r"\\boxed{4}", None),
        (r"so $\boxed 9$.", " 9"),
        (r"so $\boxed9.$", "9"),
        (r"\(\boxed x\)", " x"),
        (r"$\boxed 12$", None),
        (r"$\boxedx$", None),
        ("so 3 and\n#### 72", "72"),
        ("#### 5\nno, wait\n####  6 clips \nmore", "6 clips"),
        ("##### 7", "7"),
        ("####", ""),
        ("\\boxed{8}\n#### 9", "8"),
        ("\\boxed{8\n#### 9", "9"),
        ("the answer is 9", None),
        ("", None),
    ],
)
def test_extract_answer(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("stated", "alike"),
    [
        ("1/2", ["0.5", ".50", "2/4", " $ 1/2 $", "0.5.", r"\$0.5"]),
        ("1234", ["1,234", "1234.0", "$1,234", "1 234", r"1\,234"]),
        ("-7", ["-7.", "- 7", "-14/2"]),
        (r"\frac{1}{2}", [r"\frac {1}{2}", r"\displaystyle\frac{1}{2}"]),
        ("(1,2)", ["(1, 2)", r"\left(1, 2\right)"]),
        ("x=3", ["X = 3", "$x=3$."]),
        ("1/0", ["1 / 0"]),
        ("9" * 50, ["9" * 50]),
        (r"\leftarrow", [r"\leftarrow "]),
    ],
)
def test_equal_answers_are_stated_alike(stated, alike):
    assert {stated_answer(f"\\boxed{{{text}}}") for text in [stated, *alike]} == {stated}


@pytest.mark.parametrize("text", ["", "the answer is 9", "####", r"\boxed{$ $}", r"\boxed{5"])
def test_a_text_that_states_nothing(text):
    assert stated_answer(text) is None


def test_the_last_number_is_stated_where_it_is_asked_for():
    assert stated_answer("so 3 of 6, or 0.50", last_number=True) == "1/2"


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("first 3, then 9.", "9"),
        ("it costs $1,234.50 in all", "$1,234.50"),
        ("the sum is -7", "-7"),
        ("12 - 7", "7"),
        ("so 3/4 of it", "3/4"),
        ("a half, .5", ".5"),
        ("x2 and y_3", None),
        ("no number", None),
        (r"\boxed{1} not 2", "1"),
        ("#### 1\n2", "1"),
    ],
)
def test_the_last_number_is_taken_where_it_is_asked_for_and_nothing_else_is_there(text, number):
    assert extract_answer(text, last_number=True) == number


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.characters()), st.booleans())
def test_an_answer_is_part_of_the_text(pieces, last_number):
    text = "".join(pieces)
    answer = extract_answer(text, last_number)
    assert answer is None or answer in text


@pytest.mark.parametrize(
    "text",
    ["\\boxed{" * 200_000, "{" * 2_000_000, "\\boxed{" + "{" * 500_000, "\\boxed" + " " * 2_000_000,
     "\\boxed " * 200_000, "\\" * 2_000_001, "\\boxed 1." * 200_000, "a####b" * 300_000 + "\n",
     "\\boxed{1" + "}" * 1_000_000 + "\\boxed{" * 100_000, "1,111" * 200_000, "9" * 1_000_000,
     ",1" * 300_000, "1/" * 500_000],
)  # fmt: skip
def test_hostile_text_is_no_burden(text):
    """Were a scan quadratic, this would not end within the suite's patience."""
    answer = extract_answer(text, last_number=True)
    assert answer is None or len(answer) <= len(text)
