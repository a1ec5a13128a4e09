import logging
from collections import Counter

import numpy as np
import pytest
from small_data import jsonl

from permix_jax.core.field_rules import section_with
from permix_jax.core.persona import Persona
from permix_jax.personas.bank import default_bank
from permix_jax.rewards.grade import grade_answer
from permix_jax.tasks import problem_task as problem_task_module
from permix_jax.tasks.demonstrations import INSTRUCTIONS
from permix_jax.tasks.problem_task import problem_task

PERSONAS = [Persona("pirate", "Pirate", "You are a pirate.", "fictional", "train")]


@pytest.fixture
def make(folder, tmp_path):
    """problem_task on the small data; `num_test`, `seed` and the fields of `data` vary."""

    def make(num_test=1, seed=0, **fields):
        data = section_with("data", **{"folder": str(folder)} | fields)
        return problem_task(data, PERSONAS, num_test, seed, tmp_path / "cache")

    return make


def ids(problems):
    return [problem.id for problem in problems]


@pytest.mark.parametrize("num_test", [1, 3])
def test_trains_on_what_is_no_double_no_contradiction_and_not_in_the_test_set(
    make, num_test, caplog
):
    caplog.set_level(logging.INFO, "permix_jax")
    task = make(num_test)
    assert ids(task.train) == ["gsm8k-1", "gsm8k-2", "gsm8k-3", "gsm8k-4", "mawps-1", "mawps-2"]
    assert len(task.test) == num_test and {p.source for p in task.test} == {"svamp"}
    assert [m for m in caplog.messages if "sha256" not in m] == [
        "data.train: left out 3 doubled questions",
        "gsm8k: left out 0 problems of the test set, word for word, and 0 in other words",
        "mawps: left out 1 problems of the test set, word for word, and 0 in other words",
    ]


def test_overlap_may_be_kept_and_is_counted_all_the_same(make, caplog):
    caplog.set_level(logging.INFO, "permix_jax")
    task = make(overlap="keep")
    assert ids(task.train)[-1] == "mawps-6"
    assert "mawps: kept 1 problems of the test set, word for word, and 0 in other words" in (
        caplog.messages
    )


@pytest.mark.parametrize("answer_format", INSTRUCTIONS)
def test_every_prompt_asks_for_the_answers_form_and_solutions_have_it(make, answer_format):
    task = make(answer_format=answer_format)
    assert all(
        problem.prompt.endswith(f"?\n{INSTRUCTIONS[answer_format]}")
        for problem in [*task.train, *task.test]
    )
    assert task.grade is grade_answer and task.symbolic and task.in_style is None
    assert task.personas == PERSONAS and not task.role_play
    by_prompt, rng = {p.prompt: p for p in task.train}, np.random.default_rng(0)
    for _ in range(40):
        shown = task.demonstrate(rng, task.train)
        assert task.grade(shown.completion, by_prompt[shown.prompt]) == 1.0
        mark = r"\boxed{" if answer_format == "boxed" else "#### "
        assert mark in shown.completion.splitlines()[-1]


@pytest.mark.parametrize(("answer_format", "answer"), [("boxed", "x } y"), ("hashes", "1,\n2")])
def test_gold_answers_that_are_not_read_back_are_counted_and_the_first_is_named(
    tmp_path, caplog, answer_format, answer
):
    path = tmp_path / "own.jsonl"
    golds = ["5", r"\frac{1}{2}", "да", answer, answer, "7"]
    asked = [{"prompt": f"{i}?", "answer": gold} for i, gold in enumerate(golds)]
    path.write_bytes(jsonl(asked[:2]) + b"\n" + jsonl(asked[2:]))
    data = section_with("data", train=str(path), test="", answer_format=answer_format)
    problem_task(data, PERSONAS, 1, 0, tmp_path)
    [said] = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert said == (
        "2 of 6 gold answers (33 %) are graded as wrong themselves where a completion states them "
        f"as data.answer_format={answer_format}; correct them or drop their rows, first {path}:5: "
        f"{answer!r}"
    )


def test_gold_answers_that_are_read_back_are_not_spoken_of(make, caplog):
    make()
    make(answer_format="hashes")
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("name", ["math12k", "math500", "gsm8k", "aime24"])
def test_every_real_gold_answer_is_read_back(real_problems, caplog, name):
    problem_task_module._say_unreadable(real_problems(name), "boxed")
    assert not caplog.records


def many(folder):
    rows = [{"Body": f"He has {i}.", "Question": "Why?", "Answer": i} for i in range(40)]
    (folder / "svamp/svamp.jsonl").write_bytes(jsonl(rows))


def test_the_test_set_is_a_function_of_the_seed_and_smaller_ones_are_part_of_it(make, folder):
    many(folder)
    assert ids(make(20).test) == ids(make(20).test)
    assert ids(make(20, seed=1).test) != ids(make(20).test)
    assert ids(make(5).test) == ids(make(20).test)[:5]
    assert len(set(ids(make(40).test))) == 40


def test_held_out_problems_are_a_function_of_the_seed_and_never_trained_on(make, folder):
    many(folder)

    def hold(num_test, seed=0):
        return make(num_test, seed, train="svamp,mawps", test="", overlap="keep")

    task = hold(10)
    assert not set(ids(task.test)) & set(ids(task.train))
    assert len(task.test) == 10 and len(task.train) == 40 + 3 - 10
    assert ids(hold(4).test) == ids(task.test)[:4] == ids(hold(4).test)
    assert ids(hold(10, seed=1).test) != ids(task.test)
    assert {problem.source for problem in hold(40).test} == {"svamp", "mawps"}


def test_what_is_left_of_the_training_sets_does_not_overlap_with_what_is_held_out(make, tmp_path):
    path = tmp_path / "mine.jsonl"
    question = "A man has {} bags with nine coins in each of his bags , how many coins has he got"
    rows = [{"prompt": question.format(i), "answer": 9} for i in range(6)]
    path.write_bytes(jsonl([*rows, {"prompt": "Something else?", "answer": 9}]))
    tasks = [make(1, seed, train=str(path), test="") for seed in range(12)]
    for task in tasks:
        if task.test[0].prompt.startswith("Something"):
            assert len(task.train) == 6
        else:
            assert [p.prompt.splitlines()[0] for p in task.train] == ["Something else?"]
    assert len({len(task.train) for task in tasks}) == 2


def test_a_users_file_trains_and_tests(make, tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_bytes(jsonl([{"prompt": "One and one?", "answer": 2, "solution": "Two."}]))
    trained = make(train=f" {path} , gsm8k")
    assert trained.train[0].source == str(path) and len(trained.train) == 5
    assert ids(make(test=str(path)).test) == ["1"]


def test_filters_are_of_the_training_problems(make):
    task = make(max_steps=2)
    assert ids(task.train) == ["gsm8k-1", "gsm8k-2", "mawps-1", "mawps-2"]
    task = make(train="math", test="math500", levels="5", subjects="counting_and_probability",
                overlap="keep")  # fmt: skip
    assert ids(task.train) == ["train/algebra/6.json"]


def test_doubles_across_training_sets_are_kept_once(make):
    one, both = make(train="math"), make(train="math,math12k")
    assert ids(one.train) == ids(both.train)[: len(one.train)]
    assert len(both.train) == len(one.train) + 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_test": 0}, "task.num_test is 0; svamp has 3 problems to test on, use 1 to 3"),
        ({"num_test": 4}, "task.num_test is 4; svamp has 3 problems"),
        ({"num_test": 7, "train": "gsm8k,mawps", "test": ""},
         "task.num_test is 7; gsm8k,mawps has 7 problems left to test on, use 1 to 6"),
        ({"train": " , "}, "data.train is empty"),
        ({"train": "gsm8k,gsm8k"}, "data.train names gsm8k more than once"),
        ({"train": "gsm9k"}, "'gsm9k' is no data set"),
        ({"test": "gsm8k"}, "data.test is 'gsm8k', which data.train has too"),
        ({"levels": "3"}, "data.levels is set, but no problem of data.train has level"),
        ({"train": "gsm8k_test", "test": "gsm8k"},
         "data.train is 'gsm8k_test': every problem of it is in the test set as well"),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(make, fields, message):
    with pytest.raises(ValueError) as error:
        make(**fields)
    assert message in str(error.value)


def test_real_tasks(real_folder, real_cache):
    folder = str(real_folder)
    data = section_with("data", folder=folder, answer_format="hashes", max_steps=2)
    task = problem_task(data, default_bank(), 200, 0, real_cache)
    assert Counter(p.source for p in task.train) == {"gsm8k": 2579, "mawps": 1848}
    assert Counter(p.source for p in task.test) == {"svamp": 200}
    every = [*task.train, *task.test]
    assert len({p.id for p in every}) == len({p.prompt for p in every}) == len(every)
    data = section_with("data", folder=folder, train="math", test="math500")
    task = problem_task(data, default_bank(), 500, 0, real_cache)
    assert len(task.train) == 7498 - 3 - 10 and len(task.test) == 500


def test_an_evaluation_reads_no_training_sets_and_draws_the_same_test_problems(
    make, folder, tmp_path
):
    data = section_with("data", train="absent.jsonl", folder=str(folder))
    task = problem_task(data, PERSONAS, 2, 0, tmp_path / "cache", testing_only=True)
    assert not task.train
    assert ids(task.test) == ids(make(2).test)
    held_out = section_with("data", train="gsm8k", test="", folder=str(folder))
    task = problem_task(held_out, PERSONAS, 2, 0, tmp_path / "cache", testing_only=True)
    assert ids(task.test) == ids(make(2, train="gsm8k", test="").test) and task.train
