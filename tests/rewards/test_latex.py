import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.rewards.latex import MAX_ANSWER_CHARS, form, plain, read

PIECES = [
    "\\frac", "\\sqrt[", "\\text{", "\\left(", "\\begin{array}{cc}", "\\end{array}", "^", "_", "**",
    "\\,", "even", "xy", *"{}[]()$ 012,.\\&x",
]  # fmt: skip


@pytest.mark.parametrize(
    "spellings",
    [
        (r"\frac{1}{2}", r"\dfrac12", r"\tfrac 12", r"\frac1{2}", r"\frac{ 1 } {2}", "½"),
        ("x^{10}", "x^10", "x ^ 10", "{x}^{10}", r"\displaystyle x^{10}"),
        (r"2\sqrt{3}", r"2 \sqrt 3", r"2\sqrt3", r"2\,\sqrt{ 3 }", "2√3", "2sqrt{3}"),
        (r"10^{-3}", "10^-3"),
        (r"\left( 3, \frac{\pi}{2} \right)", r"(3,\frac{\pi}{2})", r"\bigl(3,\tfrac\pi 2\bigr)"),
        (r"12,\!345", r"12{,}345", r"12\,345", "12,345"),
        (r"\text{even}", "even", r"\mbox{even}.", r"\mathrm{even}", "Even"),
        (r"\text{two lines}", "two  lines"),
        (r"2 \text{ or } 3", "2 or 3"),
        ("60^\\circ", "60^{\\circ}", "60°", r"60^{\degree}"),
        (r"x \leq 3", "x≤3", r"x\leqslant 3"),
        (r"\{1\}", r"\left\{ 1 \right\}", r"\lbrace 1\rbrace"),
        (r"\begin{pmatrix}1&2\end{pmatrix}", r"\begin{array}{cc} 1 & 2 \end{array}"),
        (r"\text{A}", "A", r"\mathbf{A}"),
        ("5", "$5$", r"\(5\)", "**5**", "5.", " 5\n", "5\\", r"\boxed{5}", r"5\phantom{x^2}"),
    ],
)
def test_spellings_of_one_answer_are_the_same_tokens(spellings):
    assert len({form(read(text)) for text in spellings}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [("1 2", "12"), (r"5\text{ }6", "56"), (r"\pi r", r"\pir"), ("x", "X"), ("x^{12}", "x^1 2"),
     (r"\frac{1}{23}", r"\frac123"), (r"\sqrt[3]{2}", r"\sqrt{2}"), ("1,2", "12"), ("AB", "BA")],
)  # fmt: skip
def test_unlike_answers_are_unlike(one, other):
    assert form(read(one)) != form(read(other))


@pytest.mark.parametrize(
    "text",
    ["7\x08", "\x005", "\u202e72\u202c", "5\u200b", "\ufeff5", "{" * 30 + "5" + "}" * 30,
     "9" * (MAX_ANSWER_CHARS + 1)],
)  # fmt: skip
def test_what_no_honest_answer_holds_is_refused(text):
    assert read(text) is None


@pytest.mark.parametrize(
    ("text", "same"),
    [("５", "5"), ("（１，２）", "(1,2)"), ("e\u0301", "é"), ("\u200b\ufeffда\u202e", "да"),
     ("m²", "m²"), ("½", "½"), ("𝑥", "x"), ("①", "1"), (r"\frac12", r"\frac12")],
)  # fmt: skip
def test_characters_have_one_spelling_and_raised_ones_stay(text, same):
    assert plain(text) == same


@settings(deadline=None)
@given(st.lists(st.sampled_from(PIECES) | st.characters(), max_size=60))
def test_any_text_is_read_or_refused(pieces):
    tokens = read("".join(pieces))
    assert tokens is None or all(isinstance(token, str) and token for token in tokens)
    # Braces are left around arguments only, and match.
    assert tokens is None or tokens.count("{") == tokens.count("}")
