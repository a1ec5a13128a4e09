"""launch/reproduce.py, end to end on the shrunk config, killed on the way and started again."""

import json
import shlex
import signal
import subprocess
import sys
import time

import pytest
from commands import executed
from runs import ROOT, load_config, metrics, own_process

from permix_jax.reproduction.reproduce import reproduce

FIELDS = {
    "sft.steps": 10,
    "train.steps": 4,
    "eval.every": 2,
    "reproduce.seeds": 2,
    "reproduce.methods": "rlvr,permix",
    "reproduce.processes": 2,
}
SECONDS = 280


def config(**fields):
    changed = {name.replace(".", "__"): value for name, value in FIELDS.items()}
    return load_config("reproduce.py", "tiny", **changed, **fields)


@pytest.fixture(autouse=True)
def environment_of_the_runs(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", own_process()["PYTHONPATH"])


def test_killed_and_started_again(tmp_path, monkeypatch):
    out = tmp_path / "out"
    fields = (f"--config.{name}={value}" for name, value in FIELDS.items())
    command = ["launch/reproduce.py", "--config=configs/reproduce.py:tiny", f"--out={out}", *fields]
    monkeypatch.setenv("PERMIX_CACHE", str(tmp_path / "cache"))
    killed = subprocess.Popen(
        [sys.executable, *command],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + SECONDS
    while not any(out.glob("*/metrics.jsonl")) and killed.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.1)  # the runs need the processor
    killed.send_signal(signal.SIGKILL)
    _, errors = killed.communicate()
    assert killed.returncode == -signal.SIGKILL, errors

    said = executed(shlex.join(command))
    names = ("rlvr-s0", "rlvr-s1", "permix-s0", "permix-s1")
    for name in names:
        assert [row["step"] for row in metrics(out / name)] == [1, 2, 3, 4]
        assert {p.name for p in (out / name / "eval").iterdir()} == {"0", "2", "4"}
        assert f"{name}  PSS" in said
    assert len(list((tmp_path / "cache/bases").glob("*/checkpoints"))) == 2  # one a seed

    rows = [line.partition("  ")[0] for line in said.splitlines()]
    table = rows[rows.index("method") :]
    assert table[2:6] == ["base:tiny", "rlvr:tiny", "permix:tiny", "permix:tiny - rlvr"]
    assert (out / "comparison.txt").read_text() in said
    comparison = json.loads((out / "comparison.json").read_text())
    assert comparison["methods"]["rlvr:tiny"]["seeds"] == [0, 1]
    tokens = comparison["tokens"]
    assert tokens["rlvr"]["generated"] == tokens["rlvr"]["trained"] > 4 * 64
    report = json.loads((out / "report.json").read_text())
    assert report["names"] == ["base:tiny", "rlvr:tiny", "permix:tiny"]
    assert "<html" in (out / "report.html").read_text()
    plots = {path.name for path in out.glob("*.png")}
    stabilities = [json.loads(path.read_text()) for path in out.glob("*/eval/*/stability.json")]
    defined = any(stability["pss"] is not None for stability in stabilities)
    of_pss = {"robustness_fidelity.png", "pss_over_steps.png"} if defined else set()
    assert plots == {"accuracy_by_persona.png"} | of_pss

    # What is finished is kept.
    before = {p: p.stat().st_mtime_ns for p in out.glob("*-s*/**/*")}
    assert reproduce(config(), out, "tiny") in said
    assert {p: p.stat().st_mtime_ns for p in out.glob("*-s*/**/*")} == before
    with pytest.raises(ValueError, match=r"belongs to a run with another config \(seed|grpo"):
        reproduce(config(grpo__kl_weight=0.5), out, "tiny")


def test_a_run_that_fails_is_named_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setenv("PERMIX_CACHE", str(tmp_path / "cache"))
    broken = config(task__num_test=5000)
    broken.reproduce.seeds, broken.reproduce.methods = 1, "sft"
    with pytest.raises(ValueError, match=r"^sft-s0 failed: task.num_test is 5000; .*logs\)$"):
        reproduce(broken, tmp_path / "out", "tiny")
