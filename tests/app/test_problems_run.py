"""A whole run on a user's own problems: JSONL in, the verifier's processes, adaptive personas."""

import json

import numpy as np
import pytest
from random_model import write_model
from runs import assert_same_run, crash_after, load_config, metrics

from permix_jax.app.experiment import run
from permix_jax.core.problem import Undecided

PERSONAS = [
    {"id": f"p{i}", "name": f"P{i}", "system_prompt": f"You are a {word}.", "category": word}
    | {"split": split}
    for i, (word, split) in enumerate(
        [("cook", "train"), ("judge", "train"), ("diver", "train"), ("fool", "harmful_train")]
        + [("smith", "heldout"), ("miller", "heldout")]
    )
]
FIELDS = {
    "task__name": "problems",
    "task__num_test": 4,
    "data__test": "",
    "sft__steps": 0,
    "train__steps": 4,
    "train__checkpoint_every": 2,
    "train__problems_per_step": 4,
    "rollout__micro_batches": 2,
    "rollout__group_size": 4,
    "rollout__max_prompt_tokens": 256,
    "personas__share": 1.0,
    "personas__weights": "adaptive",
    "personas__harmful_share": 0.25,
    "personas__paraphrase": True,
    "personas__placement": "user",
    "rewards__format": 0.5,
    "eval__role_play_samples": 0,
}


def even_length(text, problem):
    """Right where the text is of even length; every third length asks algebra, of 1/2 and 0.5."""
    if len(text) % 3 == 0:
        return Undecided("\\frac{1}{2}", "0.5")
    return float(len(text) % 2 == 0)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of a random model, and the fields that name it, the problems and the personas."""
    folder = tmp_path_factory.mktemp("problems")
    model = folder / "model"
    write_model(model)
    rows = [{"prompt": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(12)]
    (folder / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "personas.jsonl").write_text("\n".join(map(json.dumps, PERSONAS)))
    named = {
        "model__source": str(model),
        "data__train": str(folder / "mine.jsonl"),
        "personas__file": str(folder / "personas.jsonl"),
    }
    return folder, {**FIELDS, **named}


@pytest.fixture(scope="module")
def finished(files):
    folder, fields = files
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERMIX_CACHE", str(folder / "cache"))
        patch.setattr("permix_jax.tasks.problem_task.grade_answer", _grade)
        run(load_config("permix.py", "tiny", **fields), folder / "run", "permix", "tiny")
    return folder, fields


def _grade(text, problem, last_number=False):
    return even_length(text, problem)


def test_the_log_shows_weights_that_move_and_what_the_verifier_did(finished):
    folder, _ = finished
    rows = metrics(folder / "run")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["personas/weight_max_over_min"] == 1 < rows[-1]["personas/weight_max_over_min"]
    assert any(0 < row["verifier/symbolic_share"] < 1 for row in rows)
    assert all(row["verifier/timeouts"] == row["verifier/errors"] == 0 for row in rows)
    for row in rows:
        expected = row["rewards/correctness/mean"] + 0.5 * row["rewards/format/mean"]
        assert row["reward"] == pytest.approx(expected)


def test_personas_of_the_run_are_those_of_training_in_other_words_and_places(finished):
    folder, _ = finished
    records = [
        json.loads(line)
        for file in (folder / "run/completions").glob("*.jsonl")
        for line in file.read_text().splitlines()
    ]
    drawn = {record["persona"] for record in records}
    assert drawn <= {"p0", "p1", "p2", "p3"} and len(drawn) > 1
    asked = (folder / "run/eval/4/completions.jsonl").read_text().splitlines()
    assert {json.loads(line)["persona"] for line in asked} == {None, "p4", "p5"}


def test_a_run_that_crashed_has_the_adaptive_weights_of_the_uninterrupted_one(
    finished, tmp_path, monkeypatch
):
    folder, fields = finished
    monkeypatch.setenv("PERMIX_CACHE", str(folder / "cache"))
    monkeypatch.setattr("permix_jax.tasks.problem_task.grade_answer", _grade)
    config = load_config("permix.py", "tiny", **fields)
    with crash_after(3):
        run(config, tmp_path / "run", "permix", "tiny")
    run(config, tmp_path / "run", "permix", "tiny")
    assert_same_run(tmp_path / "run", folder / "run")


def test_rollouts_in_parts_are_the_rollouts_of_the_whole(finished, tmp_path, monkeypatch):
    folder, fields = finished
    monkeypatch.setenv("PERMIX_CACHE", str(folder / "cache"))
    monkeypatch.setattr("permix_jax.tasks.problem_task.grade_answer", _grade)
    one = {**fields, "rollout__micro_batches": 1, "train__steps": 1}
    run(load_config("permix.py", "tiny", **one), tmp_path / "run", "permix", "tiny")
    whole, parts = metrics(tmp_path / "run")[0], metrics(folder / "run")[0]
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        np.testing.assert_allclose(value, parts[name], rtol=2e-5, atol=1e-6, err_msg=name)
