import logging
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_data import jsonl

from permix_jax.core.field_rules import section_with
from permix_jax.core.persona import Persona
from permix_jax.core.problem import Problem
from permix_jax.rewards.answer import extract_answer
from permix_jax.rewards.grade import grade_answer
from permix_jax.tasks import problem_task as problem_task_module
from permix_jax.tasks.datasets import load
from permix_jax.tasks.problem_task import (
    INSTRUCTIONS,
    _say_unreadable,
    demonstrator,
    filter_problems,
    problem_task,
    weighted_names,
    worked,
)

PERSONAS = [Persona("pirate", "Pirate", "You are a pirate.", "fictional", "train")]


@pytest.fixture
def make(folder, tmp_path):
    """problem_task on the small data; `num_test`, `seed` and the fields of `data` vary."""

    def make(num_test=1, seed=0, testing_only=False, revisions=None, **fields):
        data = section_with("data", **{"folder": str(folder)} | fields)
        drawn = data, PERSONAS, num_test, seed, tmp_path / "cache"
        return problem_task(*drawn, testing_only, revisions)

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
        "mawps: left out 1 problems of the test set, word for word, and 0 in other words",
    ]


def test_overlap_may_be_kept_and_is_counted_all_the_same(make, caplog):
    caplog.set_level(logging.INFO, "permix_jax")
    task = make(overlap="keep")
    assert ids(task.train)[-1] == "mawps-6"
    said = "mawps: kept 1 problems of the test set, word for word, and 0 in other words"
    assert said in caplog.messages


@pytest.mark.parametrize("answer_format", INSTRUCTIONS)
def test_every_prompt_asks_for_the_answers_form_and_solutions_have_it(make, answer_format):
    task = make(answer_format=answer_format)
    prompts = [problem.prompt for problem in [*task.train, *task.test]]
    assert all(prompt.endswith(f"?\n{INSTRUCTIONS[answer_format]}") for prompt in prompts)
    assert task.grade is grade_answer and task.in_style is None
    assert task.personas == PERSONAS and not task.role_play
    by_prompt, rng = {p.prompt: p for p in task.train}, np.random.default_rng(0)
    for _ in range(40):
        shown = task.demonstrate(rng, task.train)
        assert task.grade(shown.completion, by_prompt[shown.prompt]) == 1.0
        mark = r"\boxed{" if answer_format == "boxed" else "#### "
        assert mark in shown.completion.splitlines()[-1]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("hashes", f"Two?\n{INSTRUCTIONS['hashes']}"),
        ("plain", "Two?"),
        (r"Q: {problem}\n\boxed{} {x}", r"Q: Two?\n\boxed{} {x}"),
        ("{problem} Again: {problem}", "Two? Again: Two?"),
    ],
)
def test_a_template_stands_around_every_question(make, template, expected):
    """And the form of answers in demonstrations is another field's."""
    task = make(prompt_template=template)
    assert task.train[1].prompt == expected
    assert all(p.prompt.count(".") == expected.count(".") for p in task.train if "." not in p.id)
    shown = task.demonstrate(np.random.default_rng(0), task.train)
    assert r"\boxed{" in shown.completion


def test_what_stands_in_a_question_is_no_place_of_the_template(make, tmp_path):
    path = tmp_path / "own.jsonl"
    rows = [{"prompt": f"{i} {{problem}} {{}}?", "answer": i} for i in range(2)]
    path.write_bytes(jsonl(rows))
    task = make(train=str(path), test="", prompt_template="<{problem}>")
    assert sorted(p.prompt for p in [*task.train, *task.test]) == [
        "<0 {problem} {}?>",
        "<1 {problem} {}?>",
    ]


@pytest.mark.parametrize("template", ["Solve it.", "boxes", "{Problem}"])
def test_a_template_that_loses_the_question_is_refused(make, template):
    message = f"^data.prompt_template is '{template}'; use boxed, hashes, plain, or a text with "
    with pytest.raises(ValueError, match=message):
        make(prompt_template=template)


def test_problems_of_a_set_with_a_weight_come_so_often(make):
    once, more = make(), make(train="gsm8k*1, mawps*3")
    assert weighted_names("a*1, b*30,c, d*e.jsonl*2") == {"a": 1, "b": 30, "c": 1, "d*e.jsonl": 2}
    expected = [p for p in once.train for _ in range(3 if p.source == "mawps" else 1)]
    assert list(more.train) == expected and ids(more.test) == ids(once.test)
    held_out = make(train="mawps*2", test="", overlap="keep")
    assert len(held_out.test) == 1 and len(held_out.train) == 2 * 2
    assert not set(ids(held_out.test)) & set(ids(held_out.train))


def test_sets_of_the_hub_are_read_at_the_revisions_that_a_run_began_with(make, monkeypatch):
    asked = []

    def hub_rows(name, table, cache):
        asked.append((name, *table))
        rows = [{"question": f"{table.split} {i} {i + 1}?", "answer": i} for i in range(3)]
        return [(i, f"{name}:{i}", row) for i, row in enumerate(rows, 1)]

    monkeypatch.setattr(load, "hub_rows", hub_rows)
    monkeypatch.setattr(problem_task_module, "newest_revision", lambda name: f"newest {name[-1]}")
    name, other = "hf:org/a", "hf:org/b"
    fields = {
        "train": f"{name},{other}",
        "test": name,
        "subset": "main",
        "fields": "prompt=question",
    }
    task = make(overlap="keep", **fields)
    assert asked == [
        (name, "main", "train", "newest a"),
        (other, "main", "train", "newest b"),
        (name, "main", "test", "newest a"),
    ]
    assert task.revisions == {name: "newest a", other: "newest b"}
    assert task.train[0].prompt.startswith("train 0 1?") and task.test[0].prompt.startswith("test")

    asked.clear()
    again = make(overlap="keep", testing_only=True, revisions={name: "older"}, **fields)
    assert again.revisions == {name: "older"} and asked == [(name, "main", "test", "older")]
    with pytest.raises(ValueError, match=f"^data.test is '{name}', which data.train has too; "):
        make(**fields | {"test_split": "train"})
    assert make().revisions == {}


@pytest.mark.parametrize(("answer_format", "answer"), [("boxed", "x } y"), ("hashes", "1,\n2")])
def test_gold_answers_that_are_not_read_back_are_counted_and_the_first_is_named(
    make, tmp_path, caplog, answer_format, answer
):
    path = tmp_path / "own.jsonl"
    golds = ["5", r"\frac{1}{2}", "да", answer, answer, "7"]
    asked = [{"prompt": f"{i}?", "answer": gold} for i, gold in enumerate(golds)]
    path.write_bytes(jsonl(asked[:2]) + b"\n" + jsonl(asked[2:]))
    make(train=str(path), test="", answer_format=answer_format)
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
    _say_unreadable(real_problems(name), "boxed")
    assert not caplog.records


@pytest.mark.parametrize("fields", [{}, {"train": "svamp,mawps", "test": "", "overlap": "keep"}])
def test_test_problems_are_a_function_of_the_seed_and_not_trained_on(make, folder, fields):
    """Those of a test set, and those that are held out of the training sets."""
    rows = [{"Body": f"He has {i}.", "Question": "Why?", "Answer": i} for i in range(40)]
    (folder / "svamp/svamp.jsonl").write_bytes(jsonl(rows))
    task = make(20, **fields)
    assert ids(make(20, **fields).test) == ids(task.test) != ids(make(20, seed=1, **fields).test)
    assert ids(make(5, **fields).test) == ids(task.test)[:5]
    assert len(set(ids(task.test))) == 20 and not set(ids(task.test)) & set(ids(task.train))
    whole = make(40, **fields)
    sources = {"svamp", "mawps"} if fields else {"svamp"}
    assert {problem.source for problem in whole.test} == sources
    assert len({*ids(whole.test), *ids(whole.train)}) == (40 + 3 if fields else 40 + 7)


def test_what_is_left_of_the_training_sets_does_not_overlap_with_what_is_held_out(make, tmp_path):
    path = tmp_path / "mine.jsonl"
    question = "A man has {} bags with nine coins in each of his bags , how many coins has he got"
    rows = [{"prompt": question.format(i), "answer": 9} for i in range(6)]
    path.write_bytes(jsonl([*rows, {"prompt": "Something else?", "answer": 9}]))
    tasks = [make(1, seed, train=str(path), test="") for seed in range(12)]
    # All that are alike are left, or none.
    left = {task.test[0].prompt[:9]: ids(task.train) for task in tasks}
    assert left == {"Something": ["1", "2", "3", "4", "5", "6"], "A man has": ["7"]}


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
        ({"train": "gsm8k,gsm8k*2"}, "data.train names gsm8k more than once"),
        ({"train": "gsm8k*0"}, "'gsm8k*0' is no data set"),
        ({"fields": "question"}, "data.fields is 'question'; use pairs FIELD=COLUMN with commas"),
        ({"fields": "gold=x"}, "data.fields is 'gold=x'; use pairs FIELD=COLUMN with commas"),
        ({"split": " "}, "data.split is ' '; use the name of a split"),
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


def test_an_evaluation_reads_no_training_sets_and_draws_the_same_test_problems(make):
    task = make(2, train="absent.jsonl", testing_only=True)
    assert not task.train and ids(task.test) == ids(make(2).test)
    task, whole = (make(2, train="gsm8k", test="", testing_only=only) for only in (True, False))
    assert task.train and ids(task.test) == ids(whole.test)


# ---- filters --------------------------------------------------------------------------------


def bank(name, values):
    return [Problem(str(i), "", "1", "here", {name: value}) for i, value in enumerate(values)]


OTHERS = [Problem("other", "", "1", "there", {"type": "addsub"})]
SUBJECTS = bank("subject", ["Algebra", "Counting & Probability", "Number Theory", "Prealgebra"])


def test_no_filter_lets_everything_pass_and_max_steps_what_has_no_steps():
    problems = [*bank("steps", [0, 1, 5]), *bank("level", [0, 5]), *OTHERS]
    assert filter_problems(problems, 0, "", "") == problems
    assert filter_problems(problems[3:], 2, "", "") == problems[3:]


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(1, 9))
def test_max_steps_keeps_one_to_so_many_and_what_has_no_steps(steps, most):
    problems = [*bank("steps", [*steps, 1]), *OTHERS]
    kept = filter_problems(problems, most, "", "")
    assert ids(kept) == [str(i) for i, n in enumerate([*steps, 1]) if 1 <= n <= most] + ["other"]


@pytest.mark.parametrize("levels", ["1,5", "5, 1", "Level 1,Level 5"])
def test_levels(levels):
    problems = bank("level", [0, 1, 3, 5, 5])
    assert ids(filter_problems([*problems, *OTHERS], 0, levels, "")) == ["1", "3", "4", "other"]


@pytest.mark.parametrize(
    "subjects", ["Counting & Probability,Algebra", "algebra, counting_and_probability"]
)
def test_subjects_by_their_names_or_folders(subjects):
    assert ids(filter_problems([*SUBJECTS, *OTHERS], 0, "", subjects)) == ["0", "1", "other"]


def test_filters_are_all_to_be_passed():
    problems = [
        Problem(f"{level}{subject}", "", "1", "here", {"level": level, "subject": subject})
        for level in (1, 2)
        for subject in "AB"
    ]
    assert ids(filter_problems(problems, 0, "2", "B")) == ["2B"]


@pytest.mark.parametrize(
    ("problems", "arguments", "message"),
    [
        (OTHERS, (0, "1", ""), "data.levels is set, but no problem of data.train has level"),
        (OTHERS, (0, "", "Algebra"), "data.subjects is set, but no problem of data.train has su"),
        (bank("steps", [0, 3, 4]), (2, "", ""),
         "data.max_steps is 2, which leaves no problem; use 3 or more"),
        (bank("level", [2, 5]), (0, "2,6", ""),
         "data.levels is '2,6', but no problem of data.train has level '6'; use some of 2, 5"),
        (bank("level", [2, 5]), (0, "2,", ""), "has level ''; use some of 2, 5"),
        (SUBJECTS, (0, "", "Algebra,geometri"),
         "data.subjects is 'Algebra,geometri', but no problem of data.train has subject "
         "'geometri'; use some of Algebra, Counting & Probability, Number Theory, Prealgebra"),
    ],
)  # fmt: skip
def test_a_filter_that_cannot_be_met_names_field_value_and_remedy(problems, arguments, message):
    with pytest.raises(ValueError) as error:
        filter_problems(problems, *arguments)
    assert message in str(error.value)


# ---- demonstrations -------------------------------------------------------------------------


def problem(answer, solution):
    return Problem("1", "Why?", answer, "here", {"solution": solution})


@pytest.mark.parametrize(
    ("answer", "solution", "is_boxed"),
    [
        ("18", "9 + 9 = $18.", False),
        (r"\frac12", r"So $\boxed{\frac12}$.", True),
        # A box that says something else, or nothing, does not count.
        ("25", r"$\boxed{5}$ squared", False),
        ("25", r"$\boxed{(25)\text{ and some more}}$, 25.", False),
    ],
)
def test_a_worked_solution_ends_as_it_is_asked_to(answer, solution, is_boxed):
    given = problem(answer, f" {solution}\n")
    boxed = solution if is_boxed else f"{solution}\nThe answer is $\\boxed{{{answer}}}$."
    assert worked(given, "boxed") == boxed
    assert worked(given, "hashes") == f"{solution}\n#### {answer}"
    assert extract_answer(boxed) == answer


def draw(personas, problems, count):
    demonstrate, rng = demonstrator(personas, "boxed"), np.random.default_rng(0)
    return [demonstrate(rng, problems) for _ in range(count)]


def test_half_are_in_a_training_persona_if_there_is_one():
    others = [
        Persona("cat", "Cat", "You are a cat.", "animal", "heldout"),
        Persona("liar", "Liar", "You lie.", "hostile", "harmful_train"),
    ]
    one = [problem("1", "1")]
    shown = Counter(d.persona and d.persona.id for d in draw([*PERSONAS, *others], one, 400))
    assert set(shown) == {None, "pirate"}
    assert abs(shown["pirate"] - 200) < 4 * 10  # four standard deviations
    assert {d.persona for d in draw(others, one, 20)} == {None}


def test_only_problems_with_a_worked_solution_are_shown():
    problems = [Problem(str(i), f"{i}?", "1", "here") for i in range(50)] + [problem("1", "One.")]
    assert {d.prompt for d in draw([], problems, 5)} == {"Why?"}
    with pytest.raises(ValueError, match=r"worked solution.*rollout\.max_prompt_tokens.*sft\.st"):
        draw([], problems[:-1], 1)


@pytest.mark.parametrize("answer_format", INSTRUCTIONS)
@pytest.mark.parametrize("name", ["gsm8k", "math12k", "math500", "aime24"])
def test_real_solutions_end_in_the_answer(real_problems, name, answer_format):
    for real in real_problems(name):
        text = worked(real, answer_format)
        assert grade_answer(text, real) == 1.0, real.id
        if answer_format == "boxed" and name.startswith("math"):  # MATH states its answers
            assert text == real.meta["solution"]
        if answer_format == "hashes":
            assert text.endswith(f"\n#### {real.answer.strip()}")
