"""A run that is killed at any moment, and started again, ends as the uninterrupted one."""

import contextlib
import json
import os
import signal

import pytest
from commands import executed
from runs import ROOT, assert_same_run, metrics, run_tiny, strike, train

from permix_jax.app.workdir import newest_saved_step
from permix_jax.train.log import MetricsLog

CONFIG = f"--config={ROOT / 'configs/permix.py'}:tiny"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return run_tiny(folder / "run", cache=folder / "cache")


@contextlib.contextmanager
def asked_to_stop_after(step: int):
    """Within, SIGTERM comes right after the row of `step` is written."""
    write = MetricsLog.write

    def struck(self, row):
        write(self, row)
        if row["step"] == step and "reward" in row:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsLog, "write", struck)
        yield


def test_a_night_of_mishaps_and_the_same_command_again(
    uninterrupted, tmp_path, caplog, monkeypatch
):
    """Each start goes on from where the one before was struck; rows count from its own first."""
    folder, env = tmp_path / "run", {"PERMIX_CACHE": str(tmp_path / "cache")}

    def start(program):
        args = (CONFIG, f"--workdir={folder}")
        return train(*args, cwd=tmp_path, env=env, program=program)

    # Killed in SFT, between its checkpoints 40 and 80.
    assert start(strike(60, "SIGKILL")).returncode == -signal.SIGKILL
    # Killed in GRPO after step 5, when checkpoint 4 may still be in flight.
    fifth = strike(5, "SIGKILL", counted="'reward' in args[0]")
    assert start(fifth).returncode == -signal.SIGKILL
    done = [row["step"] for row in metrics(folder)]
    assert done == [1, 2, 3, 4, 5]

    # Asked to stop after step 5: saved, though checkpoint_every is 2. Checkpoint 4 may be lost.
    assert newest_saved_step(folder) < 5
    monkeypatch.setenv("PERMIX_CACHE", env["PERMIX_CACHE"])
    with asked_to_stop_after(5), pytest.raises(SystemExit) as stopped:
        executed(f"launch/train.py {CONFIG} --workdir={folder}")
    assert stopped.value.code == 130
    assert "is saved, and the same command goes on" in stopped.value.printed
    assert [row["step"] for row in metrics(folder)] == done
    assert (folder / "checkpoints/5").is_dir()

    # The newest checkpoint is corrupt: the one before is taken, and it is said.
    for file in (folder / "checkpoints/5/params").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    executed(f"launch/train.py {CONFIG} --workdir={folder}")
    assert "checkpoints/5: damaged (" in caplog.text
    assert "corrupt-5" in caplog.text
    assert (folder / "checkpoints/corrupt-5").is_dir()
    assert_same_run(folder, uninterrupted)


def test_evaluation_rows_are_valid_json(uninterrupted):
    rows = (uninterrupted / "eval/6/completions.jsonl").read_text().splitlines()
    assert len(rows) == 9 * 16 + 8 * 12
    assert {json.loads(row)["task"] for row in rows} == {"problems", "role_play"}
