"""Every command that a run says at its end is run, for several kinds of run."""

import io
import json
import sys

import pytest
from commands import executed, next_of, parsed
from own_problems import own_problems
from runs import ROOT, load_config

from permix_jax.app.experiment import run

SMALL = {
    "task.num_test": 2,
    "sft.steps": 0,
    "train.steps": 1,
    "train.problems_per_step": 2,
    "rollout.group_size": 2,
    "eval.kl_responses": 0,
    "eval.batch_size": 32,
}
WORLD = SMALL | {"eval.role_play_samples": 0}


@pytest.fixture(autouse=True)
def outside(tmp_path, monkeypatch):
    """Nothing is written into the checkout."""
    monkeypatch.setenv("PERMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(ROOT)


def arguments(fields: dict) -> str:
    return " ".join(f"--config.{name}={value}" for name, value in fields.items())


def scripts_of(commands: list[str]) -> list[str]:
    return [command.split()[0].removeprefix("launch/") for command in commands]


def asked(folder) -> set:
    """The personas under which an evaluation was answered."""
    rows = (folder / "completions.jsonl").read_text().splitlines()
    return {json.loads(row)["persona"] for row in rows}


def test_after_a_script_and_after_a_baseline_in_the_embedded_world(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mine.py"])
    config = load_config("permix.py", "tiny", **WORLD)
    said = run(config, tmp_path / "permix", "permix", "tiny")
    assert said.startswith("policy ") and f"report: {tmp_path}/permix/report.html" in said
    commands = next_of(said)
    assert scripts_of(commands) == ["train.py", "compare.py", "evaluate.py"]
    rlvr, compared, evaluated = map(executed, commands)
    record = json.loads((tmp_path / "rlvr/config.json").read_text())
    assert (record["name"], record["config"]["personas"]["share"]) == ("rlvr", 0)
    assert scripts_of(next_of(rlvr)) == ["compare.py", "evaluate.py"]  # permix is there
    assert "permix:tiny - rlvr" in compared and (tmp_path / "comparison/report.html").exists()
    assert len(asked(tmp_path / "permix/eval/more")) == 17
    for command in next_of(evaluated):
        assert executed(command).startswith("Stability\n")
    assert (tmp_path / "permix/eval/more-base/report.html").exists()

    distill = f"--config=configs/distill.py:tiny {arguments(WORLD)} --workdir={tmp_path}/distill"
    commands = next_of(executed(f"launch/train.py {distill}"))
    assert scripts_of(commands) == ["compare.py", "evaluate.py"]
    for command in commands:
        executed(command)


def test_after_adapters_on_problems_with_personas_of_ones_own(tmp_path, monkeypatch):
    fields = SMALL | {
        **own_problems(tmp_path, {"cook": "train", "diver": "train", "miller": "heldout"}),
        "lora.rank": 2,
        "personas.placement": "user",
        "personas.weights": "category",
    }
    del fields["eval.role_play_samples"]  # which nothing reads here
    config = f"--config=configs/permix.py:tiny {arguments(fields)}"
    commands = next_of(executed(f"launch/train.py {config} --workdir={tmp_path}/permix"))
    assert scripts_of(commands) == ["train.py", "compare.py", "evaluate.py", "chat.py", "export.py"]
    monkeypatch.setattr("sys.stdin", io.StringIO("What is 1 plus 2?\n/quit\n"))
    *_, chat, exported = map(executed, commands)
    assert chat.count("> base  ") == 1
    # Both methods are judged by the same personas.
    assert asked(tmp_path / "rlvr/eval/1") == asked(tmp_path / "permix/eval/1") == {None, "miller"}
    assert asked(tmp_path / "permix/eval/more") == {None, "miller", "cook", "diver"}
    assert (tmp_path / "permix/export/model.safetensors").exists()
    for command in next_of(exported):  # of MATH500, which is not here
        assert parsed(command).data.test == "math500"
