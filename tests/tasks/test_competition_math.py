import gzip
import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from permix_jax.personas.persona import Persona, default_bank
from permix_jax.rewards.boxed import boxed_reward
from permix_jax.tasks.competition_math import (
    INSTRUCTION,
    REWORDINGS,
    TEST,
    TRAIN,
    math_task,
    read_math,
    read_math500,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data beside the checkout")

PERSONAS = [
    Persona("pirate", "Pirate", "You are a pirate.", "fictional", "train"),
    Persona("cat", "Cat", "You are a cat.", "animal", "heldout"),
]


def train_row(number, problem, answer, level="Level 1"):
    solution = rf"It is $\boxed{{{answer}}}$."
    return {
        "problem": problem, "level": level, "type": "Algebra", "solution": solution,
        "answer": answer, "unique_id": f"train/algebra/{number}.json",
    }  # fmt: skip


def test_row(number, problem, answer, level=1):
    row = train_row(number, problem, answer, level)
    row["subject"] = row.pop("type")
    return row | {"unique_id": f"test/algebra/{number}.json"}


test_row.__test__ = False

TRAIN_ROWS = [
    train_row(1, "Find $k$ if $k > 0$.", r"\frac12"),
    train_row(2, "Find $k$ if $k < 0$.", "2", "Level ?"),
    train_row(3, "Find $ k $ if $k>0.$", r"\frac{1}{2}"),
    train_row(4, "Contradicted.", "5"),
    train_row(5, "Contradicted", "6"),
    train_row(6, "What is\n$2+3$?", "5", "Level 5"),
    train_row(7, "Two and three make?", "5"),
]
TEST_ROWS = [test_row(1, "What is $2 + 3$?", "5", 2), test_row(2, "Why?", "7"),
             test_row(3, "How many?", "8")]  # fmt: skip


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "math").mkdir()
    (tmp_path / TRAIN).write_bytes(gzip.compress(jsonl(TRAIN_ROWS)))
    (tmp_path / TEST).write_bytes(jsonl(TEST_ROWS))
    reworded = {"unique_id": "train/algebra/7.json", "math500_unique_id": "test/algebra/1.json"}
    (tmp_path / REWORDINGS).write_bytes(jsonl([reworded]))
    return tmp_path


def numbers(problems):
    return [int(problem.id.split("/")[-1].removesuffix(".json")) for problem in problems]


def test_math_leaves_out_doubles_contradictions_and_rewordings(folder, caplog):
    caplog.set_level(logging.INFO)
    problems = read_math(folder)
    assert numbers(problems) == [1, 2, 6]
    assert caplog.messages == [
        "math: left out 1 problems of MATH500 reworded",
        "math: left out 3 doubled questions",
    ]
    (folder / REWORDINGS).unlink()
    assert numbers(read_math(folder)) == [1, 2, 6, 7]


def test_math_problem(folder):
    first, second, sixth = read_math(folder)
    assert first.id == "train/algebra/1.json" and first.source == "math"
    assert first.prompt == f"Find $k$ if $k > 0$.\n{INSTRUCTION}"
    assert first.answer == r"\frac12"
    solution = r"It is $\boxed{\frac12}$."
    assert first.meta == {"solution": solution, "subject": "Algebra", "level": 1}
    assert (second.meta["level"], sixth.meta["level"]) == (0, 5)


def test_math500_has_its_own_fields(folder):
    problems = read_math500(folder)
    assert numbers(problems) == [1, 2, 3]
    assert {problem.source for problem in problems} == {"math500"}
    assert [problem.meta["level"] for problem in problems] == [2, 1, 1]
    assert problems[0].meta["subject"] == "Algebra"


def test_instruction_is_one_line_that_asks_for_a_box():
    assert r"\boxed{}" in INSTRUCTION and "\n" not in INSTRUCTION


@pytest.mark.parametrize("num_test", [1, 3])
def test_task_leaves_questions_of_math500_out_of_training(folder, caplog, num_test):
    caplog.set_level(logging.INFO)
    task = math_task(folder, PERSONAS, num_test, seed=0)
    assert task.name == "math" and task.reward is boxed_reward
    assert numbers(task.train) == [1, 2]
    assert len(task.test) == num_test
    assert "math: left out 1 questions of the test set" in caplog.messages


def test_task_test_set_is_a_function_of_the_seed(folder):
    (folder / TEST).write_bytes(jsonl([test_row(i, f"Why {i}?", "1") for i in range(40)]))

    def draw(num_test, seed):
        return math_task(folder, [], num_test, seed).test

    assert draw(20, seed=0) == draw(20, seed=0)
    assert draw(20, seed=0) != draw(20, seed=1)
    assert draw(5, seed=0) == draw(20, seed=0)[:5]
    assert sorted(numbers(draw(40, seed=0))) == list(range(40))


def test_demonstrations_are_right_and_half_of_them_in_a_training_persona(folder):
    task = math_task(folder, PERSONAS, num_test=1, seed=0)
    by_prompt = {problem.prompt: problem for problem in task.train}
    rng = np.random.default_rng(0)
    shown = [task.demonstrate(rng, task.train) for _ in range(400)]
    assert all(task.reward(s.completion, by_prompt[s.prompt]) == 1.0 for s in shown)
    personas = Counter(s.persona and s.persona.id for s in shown)
    assert set(personas) == {None, "pirate"}
    assert abs(personas["pirate"] - 200) < 4 * 10  # four standard deviations
    assert len({s.prompt for s in shown}) == 2


def test_demonstrations_without_training_personas_are_plain(folder):
    task = math_task(folder, PERSONAS[1:], num_test=1, seed=0)
    rng = np.random.default_rng(0)
    assert {task.demonstrate(rng, task.train).persona for _ in range(20)} == {None}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b"{", "train.jsonl.gz:2: not a JSON object"),
        (b"[1]", "train.jsonl.gz:2: not a JSON object but list"),
        (jsonl([train_row(9, "", "1")]), "train.jsonl.gz:2: field 'problem' is ''"),
        (jsonl([train_row(9, "a", "")]), "train.jsonl.gz:2: field 'answer' is ''"),
        (jsonl([train_row(9, "a", "$")]), "train.jsonl.gz:2: field 'answer' is '$', which states"),
        (jsonl([train_row(1, "a", "1")]),
         "train.jsonl.gz:2: field 'unique_id' is 'train/algebra/1.json' a second time"),
        (jsonl([train_row(9, "a", "1", "Level 6")]),
         "train.jsonl.gz:2: field 'level' is 'Level 6'"),
        (jsonl([train_row(9, "a", "1", None)]), "train.jsonl.gz:2: field 'level' is None"),
        (jsonl([train_row(9, "a", "1") | {"solution": 3}]),
         "train.jsonl.gz:2: field 'solution' is 3; it must be text"),
        (jsonl([test_row(9, "a", "1")]), "train.jsonl.gz:2: field 'type' is None"),
    ],
)  # fmt: skip
def test_malformed_row_is_named(folder, row, message):
    (folder / TRAIN).write_bytes(gzip.compress(jsonl(TRAIN_ROWS[:1]) + row))
    with pytest.raises(ValueError) as error:
        math_task(folder, PERSONAS, 1, 0)
    assert message in str(error.value)


def test_malformed_rewording_is_named(folder):
    (folder / REWORDINGS).write_text("{}")
    with pytest.raises(ValueError, match=r"rewordings_of_math500\.jsonl:1: field 'unique_id'"):
        read_math(folder)


@pytest.mark.parametrize("absent", [TRAIN, TEST])
def test_missing_file_names_field_value_and_what_the_folder_holds(folder, absent):
    (folder / absent).unlink()
    with pytest.raises(FileNotFoundError) as error:
        math_task(folder, PERSONAS, 1, 0)
    expected = f"data.folder is {str(folder)!r}, which has no {absent}; it should hold {TRAIN} and"
    assert expected in str(error.value)


@pytest.mark.parametrize(("num_test", "message"), [(0, "num_test is 0"), (4, "has 3 problems")])
def test_impossible_sizes_are_refused(folder, num_test, message):
    with pytest.raises(ValueError, match=message):
        math_task(folder, PERSONAS, num_test, 0)


def test_training_set_inside_the_test_set_is_refused(folder):
    (folder / TRAIN).write_bytes(gzip.compress(jsonl(TRAIN_ROWS[5:6])))
    with pytest.raises(ValueError, match=r"math/train\.jsonl\.gz: every problem is in"):
        math_task(folder, PERSONAS, 1, 0)


@real_data
def test_real_task():
    task = math_task(DATA, default_bank(), num_test=500, seed=0)
    assert len(task.train) == 7498 - 3 - 3  # reworded, doubled
    assert len(task.test) == 500
    levels = Counter(problem.meta["level"] for problem in task.train)
    assert levels == {0: 2, 1: 564, 2: 1346, 3: 1592, 4: 1688, 5: 2300}
    every = [*task.train, *task.test]
    assert len({problem.id for problem in every}) == len(every)
    assert {problem.meta["subject"] for problem in task.train} == {
        problem.meta["subject"] for problem in task.test
    }


@real_data
def test_real_solutions_earn_the_reward():
    for problem in [*read_math(DATA), *read_math500(DATA)]:
        assert boxed_reward(problem.meta["solution"], problem) == 1.0, problem.id
