"""The benchmark's harness: its processes, its options, and this project's adapter in it."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from processes import Process, make_environment
from run import parse_args, turns
from settings import TINY_SETTINGS


def test_we_take_a_turn_before_and_after_each_of_a_peer():
    ours, peers = "permix", ["tunix", "torch"]
    assert turns([ours, *peers], 1) == [ours, "tunix", ours, "torch", ours]
    assert turns([ours, "torch"], 2) == [ours, "torch", ours, "torch", ours]
    assert turns(peers, 2) == peers * 2
    assert turns([ours], 3) == [ours] * 3


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from /proc")
def test_our_adapter_does_the_work_of_a_setting():
    with closing(Process("run_permix.py", sys.executable)) as adapter:
        loaded = adapter.ask(json.dumps(TINY_SETTINGS["second"].work()))
        warm = adapter.ask("warm-up")
        # A step is refused where its rows did not end as the work says.
        steps = [adapter.ask("step") for _ in range(2)]
    assert loaded["versions"]["permix_jax"]
    assert warm["compile_seconds"] > 0
    for step in steps:
        assert step["compile_seconds"] == 0
        assert {"rollout", "update"} <= set(step["phases"])
        parts = step["phases"].values()
        np.testing.assert_allclose(step["seconds"], sum(part["seconds"] for part in parts))
        assert all(part["peak_bytes"] > 10**7 for part in parts)


def test_a_process_that_dies_is_an_error_with_its_last_words(tmp_path, monkeypatch):
    (tmp_path / "dies.py").write_text("input(); raise ValueError('no such model')")
    monkeypatch.setattr("processes.ADAPTERS", tmp_path)
    with closing(Process("dies.py", sys.executable)) as process:
        with pytest.raises(RuntimeError, match="status 1:(.|\n)*no such model"):
            process.ask("{}")


def test_an_environment_is_made_once(tmp_path, monkeypatch):
    commands = []

    def run(command, **_):
        commands.append(command)
        tmp_path.mkdir(exist_ok=True)
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(subprocess, "run", run)
    for _ in range(2):
        assert make_environment(tmp_path, ("a==1",)) == str(tmp_path / "bin/python")
    assert len(commands) == 2 and commands[1][-1] == "a==1"  # venv, pip
    make_environment(tmp_path, ("a==2",))
    assert len(commands) == 4
    assert make_environment(tmp_path, ()) == sys.executable


def test_a_package_that_cannot_be_installed_says_how_to_go_on(tmp_path, monkeypatch):
    failed = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(subprocess, "run", lambda command, **_: failed)
    with pytest.raises(RuntimeError, match="a==1; leave it out with --only"):
        make_environment(tmp_path, ("a==1",))


def test_an_unknown_implementation_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", "--only=permix,vllm"])
    with pytest.raises(SystemExit):
        parse_args()
    assert "there is no 'vllm'; use permix, tunix, torch" in capsys.readouterr().err
