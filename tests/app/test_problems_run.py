"""A whole run on a user's own problems: JSONL in, the verifier's thread, adaptive personas."""

import json
import math

import numpy as np
import pytest
from own_problems import own_problems
from runs import assert_same_run, crash_after, metrics, run_tiny

TRAINED = {"cook": "train", "judge": "train", "diver": "train", "fool": "harmful_train"}
ASKED = {"smith": "heldout", "miller": "heldout"}
FIELDS = {
    "task.num_test": 4,
    "train.steps": 4,
    "train.checkpoint_every": 2,
    "train.problems_per_step": 4,
    "rollout.micro_batches": 2,
    "rollout.group_size": 4,
    "personas.share": 1.0,
    "personas.weights": "adaptive",
    "personas.harmful_share": 0.25,
    "personas.paraphrase": True,
    "personas.placement": "user",
    "rewards.format": 0.5,
}


def even_length(text, problem, last_number=False):
    """Right where the text is of even length; no verdict at every third length."""
    if len(text) % 3 == 0:
        return math.nan
    return float(len(text) % 2 == 0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run of a random model on sums, and its fields."""
    folder = tmp_path_factory.mktemp("problems")
    fields = own_problems(folder, TRAINED | ASKED, sums=12) | FIELDS
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERMIX_CACHE", str(folder / "cache"))
        patch.setattr("permix_jax.tasks.problem_task.grade_answer", even_length)
        run_tiny(folder / "run", **fields)
        yield folder, fields


def test_the_log_shows_weights_that_move_and_what_the_verifier_did(finished):
    folder, _ = finished
    rows = metrics(folder / "run")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["personas/weight_max_over_min"] == 1 < rows[-1]["personas/weight_max_over_min"]
    assert any(0 < row["verifier/unparseable_gold"] < 16 for row in rows)
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
    assert drawn <= set(TRAINED) and len(drawn) > 1
    asked = (folder / "run/eval/4/completions.jsonl").read_text().splitlines()
    assert {json.loads(line)["persona"] for line in asked} == {None, *ASKED}


def test_a_run_that_crashed_has_the_adaptive_weights_of_the_uninterrupted_one(finished, tmp_path):
    folder, fields = finished
    with crash_after(3):
        run_tiny(tmp_path / "run", **fields)
    run_tiny(tmp_path / "run", **fields)
    assert_same_run(tmp_path / "run", folder / "run")


def test_rollouts_in_parts_are_the_rollouts_of_the_whole(finished, tmp_path):
    folder, fields = finished
    one = {**fields, "rollout.micro_batches": 1, "train.steps": 1}
    whole, parts = metrics(run_tiny(tmp_path / "run", **one))[0], metrics(folder / "run")[0]
    assert whole.keys() == parts.keys()
    for name, value in whole.items():
        np.testing.assert_allclose(value, parts[name], rtol=2e-5, atol=1e-6, err_msg=name)
