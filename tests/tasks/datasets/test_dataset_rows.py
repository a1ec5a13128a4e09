import json
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_data import AIME24, GSM8K, MATH, MATH500, MAWPS, SVAMP, jsonl, math500_row, math_row

from permix_jax.tasks.datasets import rows


def read(reader, content, source="here"):
    content = jsonl(content) if isinstance(content, list) else content
    return list(rows.read_problems(content, "file.jsonl", source, reader))


def test_gsm8k_counts_marked_calculations_and_unmarks_them():
    problems = read(rows.gsm8k, GSM8K, "gsm8k")
    assert [p.id for p in problems] == ["gsm8k-1", "gsm8k-2", "gsm8k-3", "gsm8k-4"]
    assert [p.prompt for p in problems] == ["One step?", "Two?", "Three?", "Algebra?"]
    assert [p.answer for p in problems] == ["2", "3,000", "3", "4"]
    assert problems[0].meta == {"steps": 1, "solution": "It is 1+1 = $2."}
    assert problems[1].meta == {"steps": 2, "solution": "2*3 = 6\n6*500 = 3,000"}
    assert [p.meta["steps"] for p in problems] == [1, 2, 3, 0]
    assert {p.source for p in problems} == {"gsm8k"}


def test_math_and_math500_have_the_same_fields():
    first, second, *_, last = read(rows.math_problem, MATH)
    assert first.id == "train/algebra/1.json" and first.answer == r"\frac12"
    solution = r"It is $\boxed{\frac12}$."
    assert first.meta == {"solution": solution, "subject": "Algebra", "level": 1}
    assert (second.meta["level"], last.meta["level"]) == (0, 5)  # "Level ?", "Level 5"
    assert last.meta["subject"] == "Counting & Probability"
    tested = read(rows.math_problem, MATH500)
    assert [p.meta["level"] for p in tested] == [2, 1, 1]
    assert {p.meta["subject"] for p in tested} == {"Algebra"}


def test_mawps_numbers_are_exact():
    problems = read(rows.mawps, MAWPS)
    assert [p.answer for p in problems] == ["43", "1/3", "43", "5", "6", "1.84"]
    assert [p.meta for p in problems[:2]] == [{"type": "addsub", "solution": "40 + 3 = 43"}, {}]


def test_svamp_joins_body_and_question():
    problems = read(rows.svamp, SVAMP)
    assert [p.prompt for p in problems] == [
        "He had 9. How many left?", "If she had 2, how many now?", "He has 3. Why?"
    ]  # fmt: skip
    assert [p.answer for p in problems] == ["8", "2", "3"]
    assert problems[0].meta == {"type": "Subtraction"}


def test_aime_answers_lose_their_padding():
    (problem,) = read(rows.aime, AIME24)
    assert (problem.id, problem.answer) == ("aime24-60", "25")
    assert problem.meta == {"solution": "It is 25."}


def test_users_rows_may_have_ids_numbers_and_fields_of_their_own():
    content = [
        {"prompt": " Why? ", "answer": " 3/4 "},
        {"prompt": "Who?", "answer": 27.0, "id": "x", "level": 3, "solution": "Long."},
        {"prompt": "When?", "answer": 1e-05, "id": 7},
    ]
    first, second, third = read(rows.users_own, content, "my.jsonl")
    assert (first.id, first.prompt, first.answer, first.meta) == ("1", "Why?", "3/4", {})
    assert (second.id, second.answer) == ("x", "27")
    assert second.meta == {"level": 3, "solution": "Long."}
    assert (third.id, third.answer, third.source) == ("7", "0.00001", "my.jsonl")


@pytest.mark.parametrize(
    ("text", "answer", "solution"),
    [
        (GSM8K[1]["answer"], "3,000", "2*3 = 6\n6*500 = 3,000"),
        ("work\n#### 72", "72", "work"),
        ("work ####72", "72", "work"),
        ("#### 72 ", "72", None),
        (r"Then $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}", r"Then $x = \boxed{\frac{1}{2}}$."),
        ("First \\boxed{1},\nat last \\fbox{2}", "2", "First \\boxed{1},\nat last \\fbox{2}"),
        ("So \\boxed{7}.\n#### 7", "7", "So \\boxed{7}."),
        (r"\boxed{(1,2)}", "(1,2)", None),
        ("90\\text{ square\nunits}", "90\\text{ square\nunits}", None),
        ("x = 2,\ny = 3", "x = 2,\ny = 3", None),
        ("第一象限", "第一象限", None),
    ],
)  # fmt: skip
def test_a_users_answer_that_is_a_worked_solution_is_read_as_one(text, answer, solution):
    (problem,) = read(rows.users_own, [{"prompt": "What?", "answer": text}])
    assert (problem.answer, problem.meta.get("solution")) == (answer, solution)
    own = {"prompt": "What?", "answer": text, "solution": "Mine."}
    assert read(rows.users_own, [own])[0].meta == {"solution": "Mine."}


@given(st.integers() | st.floats(-1e20, 1e20))
def test_users_numbers_keep_their_value(value):
    (problem,) = read(rows.users_own, [{"prompt": "What?", "answer": value}])
    assert Fraction(problem.answer) == Fraction(repr(value)) and "e" not in problem.answer


MAWPS_ROW, OWN = {"input": "a", "target": 1.0}, {"prompt": "a", "answer": 1}


@pytest.mark.parametrize(
    ("reader", "row", "message"),
    [
        (rows.mawps, {"target": 1}, "there is no field 'input', only 'target'; add it"),
        (rows.mawps, MAWPS_ROW | {"input": ""}, "field 'input' is ''"),
        (rows.mawps, MAWPS_ROW | {"target": "1"}, "field 'target' is '1'"),
        (rows.mawps, MAWPS_ROW | {"target": True}, "field 'target' is True"),
        (rows.mawps, b'{"input": "a", "target": NaN}', "field 'target' is nan"),
        (rows.mawps, b'{"input": "a", "target": 1e999}', "field 'target' is inf"),
        (rows.svamp, SVAMP[0] | {"Body": None}, "field 'Body' is None"),
        (rows.gsm8k, GSM8K[0] | {"answer": "no mark"}, "field 'answer' ends in 'no mark'"),
        (rows.gsm8k, GSM8K[0] | {"answer": "1\n####"}, "field 'answer' ends in ''"),
        (rows.gsm8k, GSM8K[0] | {"answer": "1\n#### 3 or 4"}, "ends in '3 or 4'; it must end in"),
        (rows.aime, AIME24[0] | {"answer": "25."}, "field 'answer' is '25.'; it must be 000"),
        (rows.math_problem, math_row("train", 9, "", "1"), "field 'problem' is ''"),
        (rows.math_problem, math_row("train", 9, "a", ""), "field 'answer' is ''"),
        (rows.math_problem, math_row("train", 9, "a", "$"), "the answer '$' states nothing"),
        (rows.math_problem, math_row("train", 9, "a", "1", "Level 6"), "'level' is 'Level 6'"),
        (rows.math_problem, math_row("train", 9, "a", "1", None), "field 'level' is None"),
        (rows.math_problem, math500_row(9, "a", "1") | {"subject": 3}, "field 'subject' is 3"),
        (rows.math_problem, MATH[0] | {"solution": 3}, "field 'solution' is 3; it must be text"),
        (rows.users_own, {"question": "a", "answer": "1"}, "there is no field 'prompt', only "
         "'question', 'answer'; add it, or rename the field"),
        (rows.users_own, OWN | {"prompt": None}, "field 'prompt' is None; it must be"),
        (rows.users_own, {}, "there is no field 'prompt', nor any other; add it"),
        (rows.users_own, {"prompt": "a"}, "there is no field 'answer', only 'prompt'; add it"),
        (rows.users_own, OWN | {"answer": ""}, "the answer '' states nothing"),
        (rows.users_own, OWN | {"answer": "\u200b"}, "states nothing"),
        (rows.users_own, OWN | {"answer": "work\n####"}, "with nothing behind its '####'"),
        (rows.users_own, OWN | {"answer": r"so \boxed{5"}, "ends in 'so \\\\boxed{5'"),
        (rows.users_own, OWN | {"answer": "She sold 48/2 = 24 clips in May.\nShe sold 48+24 = 72."},
         "several lines, none of them marked as the answer; give the final answer alone"),
        (rows.users_own, OWN | {"answer": [1]}, "field 'answer' is [1]"),
        (rows.users_own, OWN | {"id": 1.5}, "field 'id' is 1.5"),
        (rows.users_own, OWN | {"solution": 2}, "field 'solution' is 2"),
        (rows.users_own, OWN | {"steps": "2"}, "field 'steps' is '2'"),
    ],
)  # fmt: skip
def test_malformed_row_is_named(reader, row, message):
    row = row if isinstance(row, bytes) else json.dumps(row).encode()
    with pytest.raises(ValueError) as error:
        read(reader, b"\n" + row)
    assert str(error.value).startswith("file.jsonl:2: ") and message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_id_that_occurs_twice_is_named():
    with pytest.raises(ValueError, match=r"file\.jsonl:2: id 'train/algebra/1\.json' occurs a sec"):
        read(rows.math_problem, [MATH[0], MATH[0]])


# Equations of one-step word problems, against what a reader sees


@pytest.mark.parametrize(
    ("question", "answer", "equation"),
    [
        ("Joan found 70 seashells and has 27 left. How many did she give?", "43", "70 - 27 = 43"),
        ("6 roses were in the vase, now there are 16. How many more?", "10", "16 - 6 = 10"),
        ("He has 9 balloons and she has 8. How many in all?", "17", "9 + 8 = 17"),
        ("12 boxes of 1,000 pens each.", "12000", "12 * 1,000 = 12000"),
        ("A pen costs $2.50 and a pad $1.25. How much together?", "3.75", "2.50 + 1.25 = 3.75"),
        ("A third: 1 of 3 parts.", "1/3", "1 / 3 = 1/3"),
        ("She shares 8 sweets among 2 friends, 4 each.", "4", None),  # 8 / 2 and 8 - 4
        ("2 bags of 2 apples.", "4", None),  # 2 + 2 and 2 * 2
        ("3 cats and 5 dogs.", "7", None),
        ("There are 0 cats and 5 dogs; 5 per 0.", "9", None),
        ("No numbers here.", "7", None),
    ],
)
def test_the_one_equation(question, answer, equation):
    assert rows.only_equation(question, answer) == equation


@given(st.lists(st.integers(0, 50), max_size=4), st.integers(-20, 60))
def test_an_equation_is_true_and_of_the_questions_numbers(numbers, answer):
    equation = rows.only_equation(f"Of {' and '.join(map(str, numbers))}.", str(answer))
    if equation is not None:
        a, operation, b, _, result = equation.split()
        value = {"+": "__add__", "-": "__sub__", "*": "__mul__", "/": "__truediv__"}[operation]
        assert getattr(Fraction(a), value)(Fraction(b)) == Fraction(result) == answer
        remaining = [str(n) for n in numbers]
        remaining.remove(a)
        assert b in remaining
