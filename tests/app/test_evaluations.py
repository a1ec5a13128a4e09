"""launch/evaluate.py and what it shares with the trainer, on a finished run of the shrunk world."""

import json
import os
import signal
import subprocess
import sys

import jax
import numpy as np
import pytest
from commands import executed, refused
from runs import GRADED_BATCH, ROOT, load_config, own_process, run_tiny, strike

import permix_jax.app.evaluations
from permix_jax.app.compilation import compiled_programs
from permix_jax.app.evaluations import evaluate_subject
from permix_jax.app.export import export
from permix_jax.app.policies import subject_of_model, subject_of_run
from permix_jax.evaluation.graded_rows import GradedRows
from permix_jax.train.checkpoints import Checkpoints

FIELDS = {"eval__every": 2, "eval__judge_free_candidates": 4}
CONFIG = f"--config={ROOT / 'configs/permix.py'}:tiny"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run evaluated at steps 2 and 4 by the trainer, then at 0 and 6; and how many programs
    each evaluation compiled, or found in the cache on disk."""
    folder, compiled = tmp_path_factory.mktemp("evaluations"), []
    evaluate = permix_jax.app.evaluations.evaluate

    def counted(*args):
        with compiled_programs() as count:
            evaluate(*args)
        compiled.append(count["programs"])

    jax.clear_caches()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(permix_jax.app.evaluations, "evaluate", counted)
        run_tiny(folder / "run", cache=folder / "cache", **FIELDS)
    return folder, compiled


@pytest.fixture(autouse=True)
def use_cache(finished, monkeypatch):
    monkeypatch.setenv("PERMIX_CACHE", str(finished[0] / "cache"))


def rows(folder):
    return (folder / "completions.jsonl").read_text()


def assert_same_evaluation(folder, other):
    for name in ("completions.jsonl", "stability.json", "fidelity.json"):
        assert (folder / name).read_text() == (other / name).read_text(), name


def config(**fields):
    return load_config("permix.py", "tiny", **fields)


def evaluate_run(config, workdir, step=None, out=None):
    return evaluate_subject(subject_of_run(config, workdir, step, out, ("seed", "task")))


def test_evaluations_in_training_compile_nothing_but_the_first_time(finished):
    first, *others = finished[1]
    assert first > 0 and others == [0, 0, 0]


def test_the_command_does_what_the_trainer_did(finished, tmp_path):
    """Steps 2 and 4 were evaluated from the trainer's state, here from their checkpoints."""
    table = evaluate_run(config(**FIELDS), finished[0] / "run", 4, tmp_path / "out")
    assert_same_evaluation(tmp_path / "out", finished[0] / "run/eval/4")
    assert table.startswith("Stability\n") and "Fidelity without a judge" in table


def test_the_newest_checkpoint_is_the_default_and_nothing_is_done_twice(finished):
    folder = finished[0] / "run/eval/6"

    def times():
        return {x: x.stat().st_mtime_ns for x in folder.iterdir() if x.stem != "report"}

    before = times()
    assert evaluate_run(config(**FIELDS), finished[0] / "run").startswith("Stability\n")
    assert times() == before


def test_step_0_is_the_base_on_any_mesh(finished, tmp_path):
    fields = {**FIELDS, "mesh__fsdp": 2, "mesh__tensor": 2, "eval__sets": "train,heldout"}
    evaluate_run(config(**fields), finished[0] / "run", 0, tmp_path / "out")
    ours, theirs = (
        json.loads((folder / "fidelity.json").read_text())
        for folder in (tmp_path / "out", finished[0] / "run/eval/0")
    )
    # Sums in another order may turn a draw here and there.
    ours, theirs = (x["by_set"]["heldout"]["by_task"]["role_play"] for x in (ours, theirs))
    assert ours["n"] == theirs["n"]
    assert ours["fidelity"] == pytest.approx(theirs["fidelity"], abs=0.1)


def test_an_evaluation_has_a_budget_of_its_own(finished, tmp_path):
    """The answers of training's budget of 16 tokens, cut off at 9 at most."""
    evaluate_run(config(eval__max_new_tokens=9), finished[0] / "run", 6, tmp_path / "out")
    named = json.loads((tmp_path / "out/evaluation.json").read_text())["config"]
    assert (named["eval"]["max_new_tokens"], named["rollout"]["max_new_tokens"]) == (9, 16)
    before = json.loads((finished[0] / "run/eval/6/evaluation.json").read_text())["config"]
    assert "max_new_tokens" not in before["eval"]  # as before there was the field
    short, long = (
        [json.loads(line) for line in rows(folder).splitlines()]
        for folder in (tmp_path / "out", finished[0] / "run/eval/6")
    )
    cut = [(a, b) for a, b in zip(short, long, strict=True) if a["truncated"]]
    assert 0 < len(cut) < len(short)
    assert any(a["completion"] != b["completion"] for a, b in cut)
    for a, b in zip(short, long, strict=True):
        assert b["completion"].startswith(a["completion"])
        assert a["truncated"] or a == b


def test_an_exported_model_answers_as_its_checkpoint(finished, tmp_path):
    export(finished[0] / "run", tmp_path / "model", step=6, dtype="float32")
    evaluate_subject(subject_of_model(config(), str(tmp_path / "model"), tmp_path / "out"))
    assert rows(tmp_path / "out") == rows(finished[0] / "run/eval/6")


def test_judge_free_fidelity_knows_the_personas_of_a_trained_base(finished):
    for step in (0, 6):
        result = json.loads((finished[0] / f"run/eval/{step}/judge_free.json").read_text())
        played = result["by_task"]["role_play"]
        assert played["identification"]["chance"] == 0.25
        assert played["identification"]["share_ci95"][0] > 0.25
        assert played["agreement"]["gain"]["auc_ci95"][0] > 0.5
        base = json.loads((finished[0] / "run/config.json").read_text())["base"]
        assert result["reference"] == f"base {base.rpartition('/')[2]}"
    assert not (finished[0] / "run/eval/2/judge_free.json").exists()


# ---- interrupted ------------------------------------------------------------------------------


def test_killed_then_stopped_and_the_same_command_again(finished, tmp_path, monkeypatch):
    # Without --config, its config is the run's.
    args = f"--workdir={finished[0] / 'run'} --step=2 --out={tmp_path}/out"
    program = strike(2, "SIGKILL", after=GRADED_BATCH, script="launch/evaluate.py")
    command = [sys.executable, "-c", program, *args.split()]
    killed = subprocess.run(command, env=own_process(), stderr=subprocess.PIPE, timeout=300)
    assert killed.returncode == -signal.SIGKILL, killed.stderr

    append, batches = GradedRows.append, []

    def interrupted(self, graded):
        append(self, graded)
        batches.append(len(graded))
        if len(batches) == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stopped:
        patch.setattr(GradedRows, "append", interrupted)
        executed(f"launch/evaluate.py {args}")
    assert stopped.value.code == 130
    assert "the same command goes on" in stopped.value.printed
    assert 3 * 64 <= len(rows(tmp_path / "out").splitlines()) < 9 * 16 + 8 * 12
    assert executed(f"launch/evaluate.py {args}").startswith("Stability\n")
    assert_same_evaluation(tmp_path / "out", finished[0] / "run/eval/2")


# ---- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "step", "message"),
    [
        ({}, 5, r"no checkpoint 5; there are \[2, 4, 6\]"),
        ({"model__embed_dim": 64}, 6, r"\(model.embed_dim: 64 instead of 32\); set these fields"),
        ({"seed": 1}, 6, r"\(seed: 1 instead of 0\); set these fields as the run has them"),
        ({"eval__sets": "pirates"}, 6, "eval.sets is 'pirates'; use one or more of heldout,"),
        ({"eval__sets": "heldout,heldout"}, 6, "each once"),
        ({"eval__sets": "harmful"}, 6, "'harmful', of which there are no personas; there are"),
        ({"eval__samples": 2}, 6, r"\(config.eval.samples: 2 instead of 1\); name another --out"),
        ({"eval__max_new_tokens": 9}, 6, r"eval.max_new_tokens: 9 instead of '\(absent\)'\)"),
        ({"eval__judge_free_candidates": 9}, 2, "judge_free_candidates is 9; .* has 8 personas"),
    ],
)
def test_mistakes_are_named_in_one_line(finished, fields, step, message):
    before = {path: path.read_bytes() for path in finished[0].glob("run/eval/*/*.*")}
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        evaluate_run(config(**fields), finished[0] / "run", step)
    assert "\n" not in str(raised.value)
    assert {path: path.read_bytes() for path in finished[0].glob("run/eval/*/*.*")} == before


def test_a_field_that_is_newer_than_the_run_is_not_compared(finished, tmp_path):
    record = json.loads((finished[0] / "run/config.json").read_text())
    del record["config"]["model"]["thinking"], record["config"]["task"]["plain_share"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    subject = subject_of_run(config(), tmp_path, 0, None, ("seed", "task"))
    assert subject.name == "step 0"
    with pytest.raises(ValueError, match=r"\(model.embed_dim: 64 instead of 32\); .*run's own$"):
        subject_of_run(config(model__embed_dim=64), tmp_path, 0, None, ("seed", "task"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--workdir=nowhere", "nowhere/config.json: no such file; name the workdir of a run"),
        ("--workdir=nowhere --model=x --step=2", "leave out --workdir and --step"),
        ("--model=x", "--model needs --out=DIR"),
    ],
)
def test_mistakes_of_the_command_line_end_in_one_line(args, message):
    assert message in refused(f"launch/evaluate.py {CONFIG} {args}")


def test_an_empty_question_file_is_named(tmp_path):
    (tmp_path / "mine.jsonl").write_text("")
    asked = load_config("eval_math500.py", "", data__test=str(tmp_path / "mine.jsonl"))
    with pytest.raises(ValueError, match="mine.jsonl: the file is empty"):
        evaluate_subject(subject_of_model(asked, "x", tmp_path / "out"))


def test_a_checkpoint_of_another_architecture_is_refused(finished, tmp_path):
    """Its config says one thing and its arrays another."""
    record = json.loads((finished[0] / "run/config.json").read_text())
    params = {"embedding": np.zeros((70, 32), np.float32)}
    checkpoints = Checkpoints(tmp_path / "run/checkpoints")
    checkpoints.save(1, params)
    checkpoints.close()
    (tmp_path / "run/config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="checkpoints/1: .*; it is of another architecture"):
        evaluate_run(config(), tmp_path / "run")


def test_a_full_disk_ends_in_one_line(finished, tmp_path, monkeypatch):
    append, kept = GradedRows.append, []

    def full_after_two(self, graded):
        append(self, graded)
        kept.append(len(graded))
        if len(kept) == 2:
            raise OSError(28, "No space left on device", str(self._path))

    monkeypatch.setattr(GradedRows, "append", full_after_two)
    command = f"launch/evaluate.py {CONFIG} --workdir={finished[0] / 'run'} --step=2"
    said = refused(f"{command} --out={tmp_path}/out")
    assert said.startswith("error: [Errno 28] No space left on device: ")
    assert kept == [64, 64] and len(rows(tmp_path / "out").splitlines()) == 128
