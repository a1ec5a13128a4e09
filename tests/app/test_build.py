"""A run's task looks for answers behind thinking, as the prompts of its model begin it or not."""

import pytest
from chat_templates import FAMILIES, load, write_tokenizer
from own_problems import own_problems
from runs import load_config

from permix_jax.app.build import build_run, eval_identity, with_thinking
from permix_jax.core.persona import Persona
from permix_jax.core.problem import Problem
from permix_jax.core.sharding import make_mesh
from permix_jax.models.policy import Policy
from permix_jax.tasks.arithmetic import arithmetic_task

SUM = Problem("2+3", "What is 2 + 3?", "5", "test")
WHO = [Persona("cook", "cook", "You are a cook.", "x", "train")]
TEXTS = (
    "<think> \\boxed{5} </think> \\boxed{6}",
    "\\boxed{6} </think> \\boxed{5}",
    "<think> \\boxed{5}",
    "\\boxed{5}",
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("tokenizers")
    return {n: (root / n, write_tokenizer(root / n, FAMILIES[n])) for n in ("qwen3", "r1")}


def task_of(tokenizer, **fields):
    config = load_config("permix.py", "", task__name="arithmetic", **fields)
    task = arithmetic_task(WHO, 10, 1, 20, 0)
    return with_thinking(config, task, Policy(None, tokenizer, ()))


@pytest.mark.parametrize(
    ("family", "thinking", "right"),
    [("qwen3", True, 1.0), ("qwen3", False, 1.0), ("r1", False, 0.0)],
)
def test_a_text_without_an_end_is_graded_whole_unless_a_thought_began(
    folders, family, thinking, right
):
    task = task_of(load(folders, family, thinking), model__thinking=thinking)
    assert [task.grade(text, SUM) for text in TEXTS] == [0.0, 1.0, 0.0, right]
    assert [task.stated(text) for text in TEXTS] == ["6", "5", None, "5" if right else None]
    assert task.answer_part(TEXTS[0]) == " \\boxed{6}"


def test_without_an_end_the_whole_text_counts(folders):
    task = task_of(load(folders, "r1"), rewards__thinking_end="")
    assert [task.grade(text, SUM) for text in TEXTS] == [0.0, 1.0, 1.0, 1.0]


def test_an_end_that_texts_are_shown_without_is_refused(folders):
    tokenizer = load(folders, "qwen3", thinking=True)
    tokenizer.add_special_tokens({"additional_special_tokens": ["</think>"]})
    with pytest.raises(ValueError, match="^rewards.thinking_end is '</think>', a special token of"):
        task_of(tokenizer, model__thinking=True)
    task_of(tokenizer, rewards__thinking_end="")


def test_the_verifier_of_a_run_grades_behind_thinking(tmp_path, monkeypatch):
    monkeypatch.setenv("PERMIX_CACHE", str(tmp_path / "cache"))
    fields = own_problems(tmp_path, {"cook": "train", "smith": "heldout"}) | {"task.num_test": 2}
    run = build_run(load_config("permix.py", "tiny", **fields), tmp_path, make_mesh(1, 1, 1))
    with run.verifier:
        found = run.verifier.submit(TEXTS, [SUM] * len(TEXTS)).result()
    assert found.correct.tolist() == [0.0, 1.0, 0.0, 1.0]


def test_evaluations_of_models_that_do_not_think_are_known_as_before():
    config = load_config("permix.py", "")
    assert eval_identity(config)["rewards"] == {"last_number": False}
    config = load_config("permix.py", "", rewards__thinking_end="")
    assert eval_identity(config)["rewards"] == {"last_number": False, "thinking_end": ""}
    config = load_config("permix.py", "", model__thinking=True)
    assert eval_identity(config)["rewards"]["thinking_end"] == "</think>"
