"""What commands say at their end: each line is a command that its parser takes."""

import json
import sys
from pathlib import Path

import pytest
from commands import parsed

from permix_jax import next_steps


@pytest.fixture(autouse=True)
def typed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["launch/train.py"])


def workdir(folder: Path, name: str, source: str = "") -> Path:
    (folder / name).mkdir()
    config = {"model": {"source": source}}
    (folder / name / "config.json").write_text(json.dumps({"name": name, "config": config}))
    return folder / name


def commands(said: str) -> list[str]:
    head, *lines = said.partition("next:\n")[2].splitlines() or [""]
    return [line.strip().removeprefix("python ") for line in [head, *lines] if line]


def test_after_training_comes_the_counterpart_without_its_personas(tmp_path):
    mine = workdir(tmp_path, "permix")
    config = ["--config=configs/permix.py:tiny", "--config.personas.share=1", "--config.seed=3"]
    said = next_steps.after_training(mine, config)
    train, compare, evaluate = commands(said)
    assert said.startswith(f"report: {mine / 'report.html'}\n")
    assert train == (
        f"launch/train.py --config=configs/rlvr.py:tiny --config.seed=3 --workdir={tmp_path}/rlvr"
    )
    assert compare == f"launch/compare.py {mine} {tmp_path}/rlvr --out={tmp_path}/comparison"
    assert (
        "--config.personas.share=1" in evaluate and "--config.eval.sets=heldout,train" in evaluate
    )
    for command in (train, evaluate):
        assert parsed(command).seed == 3


def test_a_finished_counterpart_is_not_trained_again(tmp_path):
    mine, theirs = workdir(tmp_path, "rlvr"), workdir(tmp_path, "permix")
    (theirs / "report.html").write_text("")
    first = commands(next_steps.after_training(mine, ["--config=configs/rlvr.py"]))[0]
    assert first == f"launch/compare.py {mine} {theirs} --out={tmp_path}/comparison"


def test_a_config_of_ones_own_has_no_counterpart(tmp_path):
    mine = workdir(tmp_path, "mine")
    said = commands(next_steps.after_training(mine, ["--config=configs/permix.py"]))
    assert [command.split()[0] for command in said] == ["launch/evaluate.py"]


def test_a_real_model_is_exported_and_the_export_evaluated(tmp_path):
    mine = workdir(tmp_path, "permix", "org/model")
    export = commands(next_steps.after_training(mine, ["--config=configs/permix.py"]))[-1]
    assert export == f"launch/export.py --workdir={mine} --out={mine}/export"
    said = next_steps.after_export(mine, Path("exported"), adapter=False)
    assert said.startswith("wrote exported; ")
    assert parsed(commands(said)[0]).data.test == "math500"


def test_an_export_of_the_embedded_world_is_loaded_and_no_more(tmp_path):
    said = next_steps.after_export(workdir(tmp_path, "permix"), Path("out"), adapter=False)
    assert "from_pretrained('out')" in said and commands(said) == []
    assert "PeftModel" in next_steps.after_export(tmp_path, Path("out"), adapter=True)


def test_other_commands(tmp_path):
    config = ["--config=configs/reproduce.py:tiny"]
    again = commands(next_steps.after_reproduction(tmp_path, config, "none"))
    assert parsed(again[0]).reproduce.ablation == "kl"
    assert commands(next_steps.after_reproduction(tmp_path, config, "kl")) == []
    assert "report.html" in next_steps.after_comparison(tmp_path)
    assert "--out=DIR" in next_steps.after_comparison(None)
    config = ["--config=configs/permix.py:tiny"]
    assert parsed(commands(next_steps.after_planning(config))[0]).sft.steps == 120
    base = commands(next_steps.after_evaluation(tmp_path / "more", config, tmp_path / "run"))
    assert f"--step=0 --out={tmp_path}/more-base" in base[0] and parsed(base[0])
