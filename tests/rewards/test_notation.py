import pytest

from permix_jax.rewards.notation import plain, read


@pytest.mark.parametrize(
    "spellings",
    [
        (r"\dfrac12", r"\frac12"), ("½", r"\frac{1}{2}"), ("x²", "x^{2}"), ("x**2", "x^2"),
        (r"\left( 3, 4 \right)", "(3,4)", r"\bigl(3,\,4\bigr)"), ("10⁻³", "10^{-3}"),
        ("1,234", "1{,}234", r"1\,234", "1 234", "1234"), ("2,5\u200b", "2,5"), ("x≥5", r"x \ge 5"),
        (r"\text{A}", r"\mathbf{A}", r"\textbf{A}"), ("0.8333...", r"0.8\overline{3}"),
        (r"\color{red}5", r"{5}"[1:2], r"\textcolor{blue}5"), ("x != 5", r"x \ne 5"),
        ("3.0x10^8", r"3.0 \times 10^8"), ("np.sqrt(2)", "sqrt(2)", r"\sqrt(2)"), ("５", "5"),
    ],
)  # fmt: skip
def test_what_is_set_alike_is_read_alike(spellings):
    assert len({read(text) for text in spellings}) == 1, [read(text) for text in spellings]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("1 2", ("1", "2")), ("1, 234", ("1", ";", "234")),
        ("(1,234)", ("(", "1", ",", "234", ")")),
        ("5 m", ("5", '"m')), ("5m", ("5", "m")), ("3x", ("3", "x")), ("2 kHz", ("2", '"kHz')),
        ("nR", ("n", "R")), ("AB", ('"AB',)), ("sinx", (r"\sin", "x")),
        ("4!=24", ("4", "!", "=", "24")),
        (r"5\ \mathrm{~m}/\mathrm{s}", ("5", '"m', "/", '"s')), ("1.6e-19", ("1.6e-19",)),
        ("The answer is 5.", ('"The', '"answer', '"is', "5")), ("3{,}5", ("3.5",)),
    ],
)  # fmt: skip
def test_tokens(text, tokens):
    assert read(text) == tokens


def test_a_letter_of_the_problem_is_no_unit():
    assert read("5 m", frozenset("m")) == ("5", "m") and read("5 kg", frozenset("m")) == (
        "5",
        '"kg',
    )


@pytest.mark.parametrize("text", ["5\x00", "x" * 501, "\ue000"])
def test_what_no_honest_answer_needs_is_not_read(text):
    assert read(text) is None


def test_plain_keeps_scripts_and_drops_directions():
    assert plain("m²") == "m^{2}" and plain("\u202e72\u202c") == "72" and plain("ﬁ") == "fi"
