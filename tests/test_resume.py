"""A run that is killed at any moment, and started again, ends as the uninterrupted one."""

import json
import signal

import pytest
from runs import ROOT, assert_same_run, load_config, metrics, strike, train

from permix_jax.experiment import run

CONFIG = f"--config={ROOT / 'configs/permix.py'}:tiny"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERMIX_CACHE", str(folder / "cache"))
        run(load_config("permix.py", "tiny"), folder / "run", "permix", "tiny")
    return folder / "run"


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(60, id="in SFT, between checkpoints"),
        pytest.param(125, id="in GRPO, while a checkpoint may be in flight"),
    ],
)
def test_kill_9_and_the_same_command_again(uninterrupted, tmp_path, row):
    env = {"PERMIX_CACHE": str(tmp_path / "cache")}
    args = (CONFIG, f"--workdir={tmp_path / 'run'}")
    killed = train(*args, cwd=tmp_path, env=env, program=strike(row, "SIGKILL"))
    assert killed.returncode == -signal.SIGKILL
    again = train(*args, cwd=tmp_path, env=env)
    assert again.returncode == 0, again.stderr
    assert_same_run(tmp_path / "run", uninterrupted)


def test_stop_request_saves_and_ends_cleanly(uninterrupted, tmp_path):
    env = {"PERMIX_CACHE": str(tmp_path / "cache")}
    args = (CONFIG, f"--workdir={tmp_path / 'run'}")
    stopped = train(*args, cwd=tmp_path, env=env, program=strike(123, "SIGTERM"))
    assert stopped.returncode == 0, stopped.stderr
    assert "is saved, and the same command goes on" in stopped.stdout
    assert [row["step"] for row in metrics(tmp_path / "run")] == [1, 2, 3]
    assert (tmp_path / "run/checkpoints/3").is_dir()  # not a step of checkpoint_every
    again = train(*args, cwd=tmp_path, env=env)
    assert again.returncode == 0, again.stderr
    assert metrics(tmp_path / "run") == metrics(uninterrupted)


def test_corrupt_newest_checkpoint_falls_back_and_says_so(uninterrupted, tmp_path):
    env = {"PERMIX_CACHE": str(tmp_path / "cache")}
    args = (CONFIG, f"--workdir={tmp_path / 'run'}")
    stopped = train(*args, cwd=tmp_path, env=env, program=strike(124, "SIGTERM"))
    assert stopped.returncode == 0, stopped.stderr
    for file in (tmp_path / "run/checkpoints/4/params").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = train(*args, cwd=tmp_path, env=env)
    assert again.returncode == 0, again.stderr
    assert "checkpoints/4 is unreadable" in again.stderr
    assert "corrupt-4" in again.stderr
    assert (tmp_path / "run/checkpoints/corrupt-4").is_dir()
    assert_same_run(tmp_path / "run", uninterrupted)


def test_evaluation_rows_are_valid_json(uninterrupted):
    rows = (uninterrupted / "eval/6/completions.jsonl").read_text().splitlines()
    assert len(rows) == 9 * 16 + 8 * 12
    assert {json.loads(row)["task"] for row in rows} == {"problems", "role_play"}
