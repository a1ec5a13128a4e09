"""Which checkpoint is the best, where a run ends early, and that a kill changes neither."""

import json
import shutil

import pytest
from runs import assert_same_run, crash_after, load_config, newest_arrays

from permix_jax.app import best
from permix_jax.app.best import chosen_step, judge, judged, last_step
from permix_jax.app.build import build_run
from permix_jax.app.experiment import run
from permix_jax.app.phases import phases_of_run
from permix_jax.app.policies import policy_of_run


def config(**fields):
    return load_config("permix.py", "tiny", **fields)


def judging(**fields):
    return config(train__keep_best="pss", eval__every=2, **fields)  # 6 steps


def evaluated(workdir, figures: dict):
    for step, value in figures.items():
        folder = workdir / "eval" / str(step)
        folder.mkdir(parents=True)
        (folder / "stability.json").write_text(json.dumps({"pss": value, "accuracy_mean": 0.5}))


def record(step, value, stopped_at=None):
    return {"figure": "pss", "step": step, "value": value, "stopped_at": stopped_at}


# ---- the rule -----------------------------------------------------------------------------------


def test_the_earliest_of_the_highest_figures_up_to_the_step_is_the_best(tmp_path):
    # 0 is the base; 3 was the last step once, or asked by hand; 6 is the last.
    evaluated(tmp_path, {0: 0.99, 2: 0.5, 3: 0.98, 4: 0.5, 6: 0.7})
    assert judged(judging(), tmp_path, 1) == record(None, None)
    for step in (2, 3, 4, 5):
        assert judged(judging(), tmp_path, step) == record(2, 0.5)
    assert judged(judging(), tmp_path, 6) == record(6, 0.7)
    assert judged(judging(train__steps=9), tmp_path, 6) == record(6, 0.7)
    assert judged(judging(train__steps=3), tmp_path, 3) == record(3, 0.98)
    assert judged(judging(train__steps=9), tmp_path, 5) == record(2, 0.5)


def test_a_score_that_is_not_defined_is_below_all(tmp_path):
    evaluated(tmp_path, {2: None, 4: 0.0, 6: None})
    assert judged(judging(), tmp_path, 2) == record(None, None)
    assert judged(judging(), tmp_path, 6) == record(4, 0.0)


def test_it_stops_at_an_evaluation_once_so_many_have_brought_no_new_best(tmp_path):
    evaluated(tmp_path, {2: 0.5, 4: 0.5, 6: 0.4, 8: 0.6, 10: 0.1})

    def stops(after, steps=11):
        c = judging(train__stop_after=after, train__steps=steps)
        return [step for step in range(1, steps + 1) if judged(c, tmp_path, step)["stopped_at"]]

    assert stops(0) == [] and stops(3) == []
    assert stops(2) == [6]
    # At 10, too, if a run that did 8 steps goes on with a lower number; never at the last step.
    assert stops(1) == [4, 6, 10] and stops(1, steps=10) == [4, 6]


def test_the_record_says_where_a_run_ended_while_the_config_lets_it(tmp_path):
    evaluated(tmp_path, {2: 0.5, 4: 0.4})
    c = judging(train__stop_after=1)
    assert last_step(c, tmp_path) == 6
    assert judge(c, tmp_path, 2) == (2, False) and last_step(c, tmp_path) == 6
    assert judge(c, tmp_path, 4) == (2, True) and last_step(c, tmp_path) == 4
    assert json.loads((tmp_path / "best.json").read_text()) == record(2, 0.5, 4)
    assert last_step(judging(), tmp_path) == 6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "run: no best is known; name a step, or train with eval.every and train.keep_best"),
        (record(None, None), "run: no evaluation has a pss; name a step, or train with "),
        (record(4, 0.5), r"run/checkpoints: no checkpoint 4; there are \[2\]"),
    ],
)
def test_where_there_is_no_best_it_is_said_in_one_line(tmp_path, content, message):
    workdir = tmp_path / "run"
    (workdir / "checkpoints/2").mkdir(parents=True)
    if content:
        (workdir / "best.json").write_text(json.dumps(content))
    with pytest.raises(FileNotFoundError, match=message) as raised:
        chosen_step(workdir, "best")
    assert "\n" not in str(raised.value)
    assert chosen_step(workdir, None) == chosen_step(workdir, 2) == 2


# ---- whole runs ---------------------------------------------------------------------------------

FIGURES = {1: 0.2, 2: 0.5, 3: 0.4, 4: 0.5}  # what the evaluations are made to say
SHORT = {
    "sft__steps": 0,
    "train__steps": 7,
    "train__checkpoint_every": 10,
    "train__keep_checkpoints": 1,
    "train__keep_best": "accuracy_mean",
    "train__keep_steps": "1",
    "train__stop_after": 2,
    "eval__every": 1,
    "eval__kl_responses": 0,
    "task__num_test": 4,
    "eval__personas": 1,
    "eval__role_play_samples": 1,
    "eval__batch_size": 16,
    "eval__resamples": 10,
    "rewards__overlong": 1.0,
    "rewards__overlong_tokens": 16,
}


def short_run(workdir, **fields):
    with pytest.MonkeyPatch.context() as patch:
        said = {"accuracy_mean": FIGURES}
        patch.setattr(
            best, "read_json", lambda path: {n: of[int(path.parent.name)] for n, of in said.items()}
        )
        return run(config(**{**SHORT, **fields}), workdir, "permix", "tiny")


@pytest.fixture(scope="module", autouse=True)
def use_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERMIX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """A run of 7 steps that ended at step 4, and what it printed."""
    workdir = tmp_path_factory.mktemp("runs") / "permix"
    return workdir, short_run(workdir)


def names(folder):
    return {path.name for path in folder.iterdir()}


def test_a_run_ends_early_and_keeps_its_best(ended, mesh):
    workdir, said = ended
    # 1 by keep_steps, 2 as the best, 4 as the newest; each evaluated step was saved.
    assert names(workdir / "checkpoints") == {"1", "2", "4"}
    assert names(workdir / "eval") == {"0", "1", "2", "3", "4"}
    found = {"figure": "accuracy_mean", "step": 2, "value": 0.5, "stopped_at": 4}
    assert json.loads((workdir / "best.json").read_text()) == found
    lines = "best accuracy_mean: 0.500 at step 2\nstopped early at step 4: no new best\n"
    assert lines in said
    facts = json.loads((workdir / "report.json").read_text())["facts"]
    assert facts[-2:] == lines.splitlines() and "trained: step 4" in facts
    assert chosen_step(workdir, "best") == 2 and chosen_step(workdir, None) == 4
    # As a teacher it is finished.
    assert policy_of_run(workdir, mesh).name == "step 4"


def test_the_same_command_changes_nothing_and_a_killed_run_ends_the_same(ended, tmp_path):
    workdir, _ = ended
    with crash_after(3):
        short_run(tmp_path)
    assert json.loads((tmp_path / "best.json").read_text())["step"] == 2
    short_run(tmp_path)
    before = newest_arrays(tmp_path / "checkpoints")
    short_run(tmp_path)
    assert len(before) == len(newest_arrays(tmp_path / "checkpoints"))
    assert_same_run(tmp_path, workdir)
    assert names(tmp_path / "checkpoints") == names(workdir / "checkpoints")
    assert (tmp_path / "best.json").read_text() == (workdir / "best.json").read_text()


def test_it_goes_on_where_it_no_longer_has_to_stop(ended, tmp_path, monkeypatch):
    """And a figure that rises again makes another checkpoint the best."""
    workdir = shutil.copytree(ended[0], tmp_path / "run")
    monkeypatch.setitem(FIGURES, 5, 0.9)
    short_run(workdir, train__stop_after=0, train__steps=5)
    assert names(workdir / "checkpoints") == {"1", "2", "5"}  # 5 is the best since its evaluation
    found = {"figure": "accuracy_mean", "step": 5, "value": 0.9, "stopped_at": None}
    assert json.loads((workdir / "best.json").read_text()) == found


def test_phases_of_an_ended_run_are_those_up_to_its_end(ended, mesh):
    done = build_run(config(**SHORT), ended[0], mesh)
    assert all(phase.left <= 0 for phase in phases_of_run(done))
