"""A run that begins with the policy of another run."""

import json
import shutil
from contextlib import closing

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from runs import load_config

from permix_jax.app import experiment
from permix_jax.app.evaluations import evaluate_subject
from permix_jax.app.export import model_card
from permix_jax.app.policies import build_policy, policy_and_base, subject_of_run
from permix_jax.app.start import find_start
from permix_jax.app.workdir import claim_workdir
from permix_jax.models.params import create_params, join, merge_adapters, split_trained
from permix_jax.train.base import prepare_base
from permix_jax.train.checkpoints import Checkpoints

SHORT = {
    "sft__steps": 0,
    "train__steps": 1,
    "eval__kl_responses": 0,
    "task__num_test": 2,
    "eval__personas": 1,
    "eval__role_play_samples": 0,
    "eval__batch_size": 16,
    "eval__resamples": 10,
}
ADAPTERS = {"lora__rank": 2, "lora__base_dtype": "bfloat16"}


def config(**fields):
    return load_config("permix.py", "tiny", **{**SHORT, **fields})


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PERMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def other_run(folder, mesh, steps=(2, 3), **fields):
    """A run with checkpoints, as if trained. Returns the whole parameters of each step."""
    of = config(**fields)
    policy, initial = build_policy(of, folder / "unused", mesh)
    claim_workdir(folder, of, "permix", "tiny", folder / "base")
    whole = {}
    with closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        for step in steps:
            whole[step] = create_params(policy.model, jax.random.key(step), mesh)
            trained, frozen = split_trained(policy.model, whole[step])
            if frozen:
                both = join(trained, initial.load_params())
                whole[step] = merge_adapters(policy.model, both, "float32")
            checkpoints.save(step, trained)
    return whole


def begin(of, workdir):
    """Begins a run, or goes on with it, up to its base."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(experiment, "train_and_evaluate", prepare_base)
        patch.setattr(experiment, "_report", lambda *_: "")
        experiment.run(of, workdir, "permix", "tiny")


def base_of(workdir, mesh):
    record = json.loads((workdir / "config.json").read_text())
    return policy_and_base(ConfigDict(record["config"]), record["base"], mesh)[1].load_params()


def assert_equal(mine, theirs):
    jax.tree.map(np.testing.assert_array_equal, mine, theirs)


def test_it_starts_from_that_policy_says_so_and_needs_the_other_run_no_longer(mesh, tmp_path):
    whole = other_run(tmp_path / "other", mesh)
    begun = config(train__start="other:2")
    experiment.run(begun, tmp_path / "mine", "permix", "tiny", ["train.start"])
    record = json.loads((tmp_path / "mine/config.json").read_text())
    start = record["start"]
    assert (start["run"], start["step"]) == (str(tmp_path / "other"), 2)
    assert record["base"] == str(tmp_path / "cache/bases" / start["sha256"][:16])
    assert_equal(base_of(tmp_path / "mine", mesh), whole[2])
    facts = json.loads((tmp_path / "mine/report.json").read_text())["facts"]
    assert f"begins with step 2 of {tmp_path}/other" in facts
    assert "as step 2 of the run other left it" in model_card(record, tmp_path / "mine", 1)

    shutil.rmtree(tmp_path / "other")
    begin(begun, tmp_path / "mine")
    assert json.loads((tmp_path / "mine/config.json").read_text())["start"] == start
    # Other commands know its base, with a config that does not name it, too.
    subject = subject_of_run(config(), tmp_path / "mine", 0, tmp_path / "out")
    assert evaluate_subject(subject).startswith("Stability")
    of_base = tmp_path / "mine/eval/0/completions.jsonl"
    assert (tmp_path / "out/completions.jsonl").read_text() == of_base.read_text()

    shutil.rmtree(tmp_path / "cache")
    gone = (
        f"train.start is step 2 of {tmp_path}/other, which is gone, and so is its copy "
        f"{record['base']}; put one of them back"
    )
    with pytest.raises(FileNotFoundError) as refused:
        begin(begun, tmp_path / "mine")
    assert str(refused.value) == gone


def test_adapters_are_merged_and_are_the_base_of_other_adapters(mesh, tmp_path):
    whole = other_run(tmp_path / "other", mesh, **ADAPTERS)
    begin(config(train__start="other", lora__rank=1, lora__base_dtype="float32"), tmp_path / "mine")
    assert json.loads((tmp_path / "mine/config.json").read_text())["start"]["step"] == 3
    f32 = jax.tree.map(lambda x: np.asarray(x, np.float32), whole[3])
    assert_equal(base_of(tmp_path / "mine", mesh), f32)


def test_the_copy_is_known_by_the_policy(mesh, tmp_path):
    other_run(tmp_path / "other", mesh)
    other_run(tmp_path / "same", mesh)
    (tmp_path / "other/best.json").write_text('{"figure": "pss", "step": 2}')
    found = {
        name: find_start(config(train__start=name), tmp_path / "new")
        for name in ("other", "other:3", "other:2", "other:best")
    }
    assert [start["step"] for start in found.values()] == [3, 3, 2, 2]
    assert found["other"] == found["other:3"] and found["other:2"] == found["other:best"]
    assert found["other"]["sha256"] != found["other:2"]["sha256"]
    assert find_start(config(), tmp_path / "new") == {}
    # A begun run keeps what it found, whatever is the newest or the best now.
    mine = config(train__start="other:best")
    claim_workdir(tmp_path / "mine", mine, "permix", "tiny", tmp_path, start=found["other:best"])
    (tmp_path / "other/best.json").write_text('{"figure": "pss", "step": 3}')
    assert find_start(mine, tmp_path / "mine") == found["other:best"]
    # Another policy has another name, even at the same place.
    shutil.rmtree(tmp_path / "other")
    other_run(tmp_path / "other", mesh, seed=1)
    assert find_start(config(train__start="other:2"), tmp_path / "x") != found["other:2"]
    with pytest.raises(ValueError, match="where another policy stands now; put that one back$"):
        begin(mine, tmp_path / "mine")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train__start": "nowhere"}, "train.start is 'nowhere': {0}/nowhere/config.json: no such"),
        ({"train__start": "other:9"}, "train.start is 'other:9': {0}/other/checkpoints: no check"),
        ({"train__start": "other:best"}, "train.start is 'other:best': {0}/other: no best is kno"),
        (
            {"train__start": "other", "model__num_layers": 2},
            "train.start is step 3 of {0}/other, a policy of another architecture (num_layers: 2 "
            "instead of 1); set the fields of c.model as that run has them",
        ),
        (
            {"train__start": "other", "sft__steps": 5},
            "sft.steps is 5; a run that begins with another run's policy (train.start, --from) has "
            "it as its base: use 0",
        ),
    ],
)
def test_bad_starts_are_refused_in_one_line(mesh, tmp_path, fields, message):
    other_run(tmp_path / "other", mesh)
    with pytest.raises((ValueError, FileNotFoundError)) as refused:
        begin(config(**fields), tmp_path / "mine")
    assert str(refused.value).startswith(message.format(tmp_path))
    assert "\n" not in str(refused.value) and not (tmp_path / "mine").exists()


def test_another_start_is_refused_the_workdir(mesh, tmp_path):
    other_run(tmp_path / "other", mesh)
    claim_workdir(tmp_path / "mine", config(), "permix", "tiny", tmp_path)
    with pytest.raises(ValueError, match=r"another config \(train.start: 'other' instead of ''\)"):
        begin(config(train__start="other"), tmp_path / "mine")
