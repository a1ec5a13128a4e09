"""Fields that may have another value when a run goes on: what is written, and equal results."""

import json
import logging

import numpy as np
import pytest
from runs import crash_after, load_config, metrics, newest_arrays, run_tiny

from permix_jax.app.build import eval_identity
from permix_jax.app.config_of_run import get_config
from permix_jax.app.policies import build_policy, run_identity
from permix_jax.app.workdir import claim_workdir, config_at_start, known_revisions
from permix_jax.core.field_rules import CHANGEABLE, fixed_fields
from permix_jax.core.fields import flat_fields
from permix_jax.evaluation.graded_rows import claim_folder
from permix_jax.reproduction.methods import Job
from permix_jax.reproduction.reproduce import finished
from permix_jax.tasks.embedded_world import latent_style_task
from permix_jax.train.base import base_folder

OTHER = {
    "train.steps": 9,
    "train.micro_batch_tokens": 64,
    "train.checkpoint_every": 1,
    "train.keep_checkpoints": 1,
    "train.keep_steps": "1,3",
    "train.stop_after": 2,
    "train.log_completions_every": 5,
    "train.profile": "2:3",
    "train.loggers": "",
    "train.peak_tflops": 1.5,
    "sft.checkpoint_every": 7,
    "rollout.micro_batches": 2,
    "rollout.halvings": 1,
    "method": "mine.py",
    "model.head_chunk": 16,
    "model.remat": "full",
    "model.attention": "blocks",
    "eval.batch_size": 8,
    "personagym.batch_size": 4,
    "mesh.data": 2,
    "mesh.fsdp": 2,
    "mesh.tensor": 2,
    "mesh.deterministic": True,
    "model.ignore_fields": "num_beams",
    "distributed.silent_seconds": 9,
    "distributed.wait_seconds": 90,
}


def tiny(**fields):
    return load_config("permix.py", "tiny", **fields)


def with_field(field: str, value):
    return tiny(**{field.replace(".", "__"): value})


def claim(folder, config, changed=()):
    claim_workdir(folder, config, "permix", "tiny", folder / "base", changed)
    return json.loads((folder / "config.json").read_text())


def with_checkpoints(folder, *steps):
    for step in steps:
        (folder / "checkpoints" / str(step)).mkdir(parents=True)
    (folder / "checkpoints/5.orbax-checkpoint-tmp").mkdir()  # a save that was cut off
    (folder / "checkpoints/corrupt-7").mkdir()


def test_newer_fields_of_data_are_part_of_an_evaluation_only_where_they_are_set():
    """An evaluation that is older than the fields is still that of the same config."""
    old = ["answer_format", "folder", "levels", "max_steps", "overlap", "subjects", "test", "train"]
    assert list(eval_identity(tiny())["data"]) == old
    set_now = eval_identity(tiny(data__test_split="dev", data__prompt_template="plain"))["data"]
    assert set_now.items() >= {"test_split": "dev", "prompt_template": "plain"}.items()
    assert len(set_now) == len(old) + 2


def test_the_revisions_of_data_are_kept_from_the_first_start(tmp_path):
    assert known_revisions(tmp_path) == {}
    begun = tmp_path, tiny(), "permix", "tiny", tmp_path / "base"
    claim_workdir(*begun, revisions={"hf:org/a": "1234"})
    assert known_revisions(tmp_path) == {"hf:org/a": "1234"}
    assert json.loads((tmp_path / "config.json").read_text())["revisions"] == {"hf:org/a": "1234"}
    claim_workdir(*begun, revisions={"hf:org/a": "5678"})
    assert known_revisions(tmp_path) == {"hf:org/a": "1234"}
    assert "revisions" not in claim(tmp_path / "other", tiny())


# ---- what is written ----------------------------------------------------------------------------


def test_every_changeable_field_is_one_of_the_config_and_is_tried_here():
    assert OTHER.keys() == CHANGEABLE.keys()
    fields = flat_fields(tiny().to_dict())
    assert all(fields[field] != value for field, value in OTHER.items())


@pytest.mark.parametrize("field", OTHER)
def test_a_change_is_accepted_said_and_kept_with_its_step(field, tmp_path, caplog):
    first = claim(tmp_path, tiny())
    with_checkpoints(tmp_path, 2, 4)
    identity = run_identity(tmp_path, 4, tmp_path / "eval/4")
    before, after = flat_fields(first["config"])[field], OTHER[field]

    with caplog.at_level(logging.INFO, "permix_jax"):
        record = claim(tmp_path, with_field(field, after), [field])
    assert f"goes on from step 4 with {field}: {after!r} instead of {before!r}" in caplog.text
    assert flat_fields(record["config"])[field] == after and record["changed"] == [field]
    (entry,) = record["history"]
    assert (entry["step"], entry["changes"]) == (4, {field: [before, after]})
    assert config_at_start(record) == first["config"]
    # The run, and what it will evaluate, are known by the same names.
    assert run_identity(tmp_path, 4, tmp_path / "eval/4") == identity
    assert eval_identity(with_field(field, after)) == eval_identity(tiny())


def test_changes_add_up_and_the_same_config_adds_none(tmp_path):
    first = claim(tmp_path, tiny())
    claim(tmp_path, tiny(rollout__halvings=1))
    with_checkpoints(tmp_path, 2)
    claim(tmp_path, tiny(rollout__halvings=1))
    record = claim(tmp_path, tiny(rollout__halvings=3, model__remat="dots"))
    assert [(entry["step"], entry["changes"]) for entry in record["history"]] == [
        (0, {"rollout.halvings": [0, 1]}),
        (2, {"rollout.halvings": [1, 3], "model.remat": ["none", "dots"]}),
    ]
    assert config_at_start(record) == first["config"]


def test_a_field_that_an_older_config_lacks_is_a_change_too(tmp_path):
    record = claim(tmp_path, tiny())
    del record["config"]["rollout"]["halvings"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    again = claim(tmp_path, tiny())
    assert again["history"][0]["changes"] == {"rollout.halvings": [None, 0]}
    assert config_at_start(again) == record["config"]


def test_an_older_run_has_fields_that_are_no_more(tmp_path):
    """It goes on, is known by the same hash, is evaluated with its config, and keeps its values."""
    gone = {"workers": 3, "item_seconds": 9.0, "batch_seconds": 60.0}
    older = claim(tmp_path, tiny())
    older["config"]["rewards"] |= gone
    (tmp_path / "config.json").write_text(json.dumps(older))
    identity = run_identity(tmp_path, 4, tmp_path / "eval/4")
    assert get_config(str(tmp_path)).to_dict() == tiny().to_dict()
    again = claim(tmp_path, get_config(str(tmp_path)))
    changes = {f"rewards.{name}": [value, None] for name, value in gone.items()}
    assert again["config"] == json.loads(tiny().to_json())
    assert [entry["changes"] for entry in again["history"]] == [changes]
    assert run_identity(tmp_path, 4, tmp_path / "eval/4") == identity
    assert config_at_start(again) == older["config"]


def test_an_older_evaluation_names_fields_that_are_no_more(tmp_path):
    asked = {"policy": {"step": 4}, "config": eval_identity(tiny())}
    older = json.loads(json.dumps(asked))
    older["config"]["rewards"] |= {"item_seconds": 9.0, "batch_seconds": 60.0}
    (tmp_path / "evaluation.json").write_text(json.dumps(older))
    claim_folder(tmp_path, asked)
    with pytest.raises(ValueError, match="belongs to another evaluation .config.seed: 1 instead"):
        claim_folder(tmp_path, {**asked, "config": asked["config"] | {"seed": 1}})


def test_what_decides_the_results_is_refused_and_nothing_is_written(tmp_path):
    before = claim(tmp_path, tiny())
    with pytest.raises(ValueError) as refused:
        claim(tmp_path, tiny(rewards__format=0.5, rollout__halvings=1))
    assert str(refused.value) == (
        f"{tmp_path} belongs to a run with another config (rewards.format: 0.5 instead of "
        "0.0); name another --workdir, or set these fields as they were"
    )
    assert json.loads((tmp_path / "config.json").read_text()) == before


@pytest.mark.parametrize("decay", ["linear", "cosine"])
def test_steps_from_which_a_decay_was_computed_stay(decay, tmp_path):
    claim(tmp_path, tiny(train__decay=decay))
    with pytest.raises(ValueError) as refused:
        claim(tmp_path, tiny(train__decay=decay, train__steps=9))
    assert str(refused.value) == (
        f"train.steps is 9; the run in {tmp_path} has 6, over which its learning rate decays "
        f"(train.decay = {decay}): set it to 6, or name another --workdir"
    )


def test_steps_are_not_lowered_below_what_is_done(tmp_path):
    claim(tmp_path, tiny())
    with_checkpoints(tmp_path, 2, 4)
    with pytest.raises(ValueError, match=r"train.steps is 3; the run in .* has done 4 steps: use"):
        claim(tmp_path, tiny(train__steps=3))
    assert claim(tmp_path, tiny(train__steps=4))["config"]["train"]["steps"] == 4


def test_a_comparison_takes_a_run_of_fewer_steps_for_unfinished(tmp_path):
    claim(tmp_path, tiny())
    (tmp_path / "report.html").write_text("")
    six, nine = (Job("permix", 0, tiny(train__steps=n).to_dict(), tmp_path, "") for n in (6, 9))
    assert finished(six) and not finished(nine)
    claim(tmp_path, tiny(train__steps=9))  # it goes on, and is killed
    assert not finished(nine)
    (tmp_path / "report.html").write_text("")
    assert finished(nine)
    claim(tmp_path, tiny(train__steps=9, train__stop_after=1))  # it may have ended early
    assert not finished(nine)


def test_the_base_is_found_again(tmp_path, mesh):
    task = latent_style_task(16, 0.9, 0.5, 0.2, 0)

    def folder(config):
        return base_folder(config, task, build_policy(config, tmp_path, mesh)[0], tmp_path)

    fields = {field.replace(".", "__"): value for field, value in OTHER.items()}
    assert folder(tiny(**fields)) == folder(tiny())
    assert folder(tiny(sft__learning_rate=0.1)) != folder(tiny())


def test_fixed_fields_are_all_others():
    config = {"model": {"remat": "full", "dtype": "float32"}, "mesh": {"data": 2}, "seed": 1}
    assert fixed_fields(config) == {"model": {"dtype": "float32"}, "mesh": {}, "seed": 1}


# ---- whole runs ---------------------------------------------------------------------------------

SHORT = {"sft__steps": 0, "train__steps": 4, "train__checkpoint_every": 2, "task__num_test": 8}
SHORT |= {"eval__kl_responses": 0, "eval__personas": 1, "eval__role_play_samples": 1}
SHORT |= {"eval__batch_size": 16, "eval__resamples": 10}
# A reward that an untrained policy varies in.
SHORT |= {"rewards__overlong": 1.0, "rewards__overlong_tokens": 16}


def short_run(folder, **fields):
    run_tiny(folder / "run", **{**SHORT, **fields})  # without SFT the cache keeps nothing
    return folder / "run"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = short_run(tmp_path_factory.mktemp("uninterrupted"))
    assert all(row["grad_norm"] > 0 for row in metrics(folder))
    return folder


def names(folder):
    return {path.name for path in folder.iterdir()}


def both_arrays(*runs):
    return zip(*(newest_arrays(run / "checkpoints") for run in runs), strict=True)


def test_more_steps_and_other_intervals_give_the_run_of_so_many_steps(uninterrupted, tmp_path):
    """Bit for bit; the evaluation of what was the last step stays."""
    run = short_run(tmp_path, train__steps=2)
    kept = (run / "eval/2/completions.jsonl").stat().st_mtime_ns
    intervals = {"train__checkpoint_every": 1, "train__keep_checkpoints": 1}
    intervals |= {"train__log_completions_every": 3}
    short_run(tmp_path, **intervals)
    assert names(run / "checkpoints") == {"4"}
    assert names(run / "completions") == {f"{step}.jsonl" for step in (1, 2, 3, 4)}
    assert (run / "eval/2/completions.jsonl").stat().st_mtime_ns == kept
    assert "train.steps, from step 2" in (run / "report.md").read_text()
    for name in ("completions/4.jsonl", "eval/0/completions.jsonl", "eval/4/completions.jsonl"):
        assert (run / name).read_text() == (uninterrupted / name).read_text(), name
    assert metrics(run) == metrics(uninterrupted)
    for ours, theirs in both_arrays(run, uninterrupted):
        np.testing.assert_array_equal(ours, theirs)


def test_what_memory_is_saved_with_changes_results_by_rounding_at_most(uninterrupted, tmp_path):
    with crash_after(3):
        short_run(tmp_path)
    saving = {"train__micro_batch_tokens": 64, "model__head_chunk": 16, "model__remat": "full"}
    saving |= {"rollout__micro_batches": 2, "rollout__halvings": 1, "eval__batch_size": 4}
    run = short_run(tmp_path, **saving)
    for ours, theirs in zip(metrics(run), metrics(uninterrupted), strict=True):
        ours.pop("tokens/padding"), theirs.pop("tokens/padding")  # of the packing itself
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    for ours, theirs in both_arrays(run, uninterrupted):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert names(run / "eval") == {"0", "4"}
