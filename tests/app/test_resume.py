"""A run that is killed at any moment, and started again, ends as the uninterrupted one."""

import json
import signal

import pytest
from runs import ROOT, assert_same_run, metrics, run_tiny, strike, train

from permix_jax.app.workdir import newest_saved_step

CONFIG = f"--config={ROOT / 'configs/permix.py'}:tiny"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return run_tiny(folder / "run", cache=folder / "cache")


def test_a_night_of_mishaps_and_the_same_command_again(uninterrupted, tmp_path):
    """Each start goes on from where the one before was struck; rows count from its own first."""
    folder, env = tmp_path / "run", {"PERMIX_CACHE": str(tmp_path / "cache")}

    def start(program=""):
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
    after = 5 - newest_saved_step(folder)
    stopped = start(strike(after, "SIGTERM"))
    assert stopped.returncode == 130, stopped.stderr
    assert "is saved, and the same command goes on" in stopped.stdout
    assert [row["step"] for row in metrics(folder)] == done
    assert (folder / "checkpoints/5").is_dir()

    # The newest checkpoint is corrupt: the one before is taken, and it is said.
    for file in (folder / "checkpoints/5/params").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = start()
    assert again.returncode == 0, again.stderr
    assert "checkpoints/5: damaged (" in again.stderr
    assert "corrupt-5" in again.stderr
    assert (folder / "checkpoints/corrupt-5").is_dir()
    assert_same_run(folder, uninterrupted)


def test_evaluation_rows_are_valid_json(uninterrupted):
    rows = (uninterrupted / "eval/6/completions.jsonl").read_text().splitlines()
    assert len(rows) == 9 * 16 + 8 * 12
    assert {json.loads(row)["task"] for row in rows} == {"problems", "role_play"}
