"""What commands say at their end: each line is a command that its parser takes."""

import json
import sys
from pathlib import Path

import pytest
from commands import next_of, parsed
from own_problems import write_personas
from runs import ROOT, load_config

from permix_jax.app import next_steps
from permix_jax.app.validation import require_valid

CONFIG = ["--config=configs/permix.py:tiny"]


@pytest.fixture(autouse=True)
def typed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["launch/train.py"])


def workdir(folder: Path, name: str, **fields) -> Path:
    """A run of which only config.json exists."""
    (folder / name).mkdir()
    kind = name if name in ("permix", "rlvr", "sft", "distill") else "permix"
    config = load_config(f"{kind}.py", "tiny", **fields).to_dict()
    record = {"name": name, "preset": "tiny", "config": config, "method": {}}
    (folder / name / "config.json").write_text(json.dumps(record))
    return folder / name


def real(folder: Path, name: str, *splits: str, **fields) -> Path:
    """A run of a real model, with a file of personas of these splits, if any are named."""
    if splits:
        file = write_personas(folder / "mine.jsonl", {split: split for split in splits})
        fields["personas__file"] = str(file)
    return workdir(folder, name, task__name="problems", model__source="org/model", **fields)


def sets_of(run: Path) -> list[str]:
    """The fields of the evaluate line."""
    lines = [x for x in next_of(next_steps.after_training(run, CONFIG)) if "evaluate.py" in x]
    return [x for line in lines for x in line.split() if x.startswith("--config")]


def test_after_training_come_the_counterpart_the_comparison_and_more_personas(tmp_path):
    mine = workdir(tmp_path, "permix")
    said = next_steps.after_training(mine, [*CONFIG, "--config.seed=3"])
    assert said.startswith(f"report: {mine / 'report.html'}\n")
    assert next_of(said) == [
        f"launch/train.py --config=configs/rlvr.py:tiny --config.seed=3 --workdir={tmp_path}/rlvr",
        f"launch/compare.py {mine} {tmp_path}/rlvr --out={tmp_path}/comparison",
        f"launch/evaluate.py --workdir={mine} --config.eval.sets=heldout,train "
        f"--out={mine}/eval/more",
    ]
    train, _, evaluate = next_of(said)
    assert parsed(train).seed == 3 and parsed(evaluate).eval.sets == "heldout,train"


@pytest.mark.parametrize(
    ("name", "given", "kept"),
    [
        # RLVR is asked under the same personas, in the same place, and trains under none.
        (
            "permix",
            ["personas.share=1", "personas.level=rollout", "personas.weights=adaptive"]
            + ["personas.harmful_share=0.1", "personas.file=a b.jsonl", "personas.placement=user"]
            + ["train.method=grpo", "lora.rank=4"],
            ["personas.file=a b.jsonl", "personas.placement=user", "lora.rank=4"],
        ),
        ("rlvr", ["personas.share=0.0", "personas.file=x.jsonl"], ["personas.file=x.jsonl"]),
        ("distill", ["distill.teacher=runs/x", "train.steps=9"], ["train.steps=9"]),
        ("sft", ["train.method=sft", "sft.steps=9"], ["sft.steps=9"]),
    ],
)
def test_a_counterpart_has_the_fields_that_both_methods_read(tmp_path, name, given, kept):
    file = f"--config=configs/{name}.py:smollm2_mawps"
    config = [file, *(f"--config.{field}" for field in given)]
    train = next_of(next_steps.after_training(workdir(tmp_path, name), config))[0]
    other = parsed(train)
    require_valid(other)
    expected = load_config(f"{'rlvr' if name == 'permix' else 'permix'}.py", "smollm2_mawps")
    for field, _, value in (field.partition("=") for field in kept):
        part, _, leaf = field.partition(".")
        expected[part][leaf] = type(expected[part][leaf])(value)
    assert other.to_dict() == expected.to_dict()


def test_a_finished_counterpart_is_not_trained_again(tmp_path):
    mine, theirs = workdir(tmp_path, "rlvr"), workdir(tmp_path, "permix")
    (theirs / "report.html").write_text("")
    first = next_of(next_steps.after_training(mine, ["--config=configs/rlvr.py"]))[0]
    assert first == f"launch/compare.py {mine} {theirs} --out={tmp_path}/comparison"


def test_a_config_of_ones_own_has_no_counterpart(tmp_path):
    said = next_of(next_steps.after_training(workdir(tmp_path, "mine"), CONFIG))
    assert [command.split()[0] for command in said] == ["launch/evaluate.py"]


@pytest.mark.parametrize(
    ("splits", "asked", "fields"),
    [
        ((), "heldout", ["--config.eval.sets=heldout,harmful,neutral"]),
        (("train", "heldout"), "heldout", ["--config.eval.sets=heldout,train"]),
        (("train", "heldout", "harmful"), "heldout", ["--config.eval.sets=heldout,harmful"]),
        (("train", "harmful_train"), "train", []),
        (("train", "neutral"), "train", ["--config.eval.sets=neutral,train"]),
    ],
)
def test_an_evaluation_asks_more_sets_that_are_there(tmp_path, splits, asked, fields):
    assert sets_of(real(tmp_path, "permix", *splits, eval__sets=asked)) == fields


def test_an_evaluation_asks_all_personas_where_there_are_no_more_sets(tmp_path):
    everyone = {"eval__sets": "heldout,train", "eval__personas": 2}
    assert sets_of(real(tmp_path, "permix", "train", "heldout", **everyone)) == [
        "--config.eval.personas=0"
    ]
    (tmp_path / "mine.jsonl").unlink()
    assert sets_of(tmp_path / "permix") == ["--config.eval.personas=0"]


# ---- a run that a script started: no command line says its config ---------------------------


def test_after_a_script_the_fields_are_those_that_differ_from_the_preset(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mine.py"])
    monkeypatch.chdir(ROOT)
    mine = workdir(tmp_path, "permix", train__steps=2, personas__level="rollout")
    train, compare, evaluate = next_of(next_steps.after_training(mine))
    assert train == (
        "launch/train.py --config=configs/rlvr.py:tiny --config.train.steps=2 "
        f"--workdir={tmp_path}/rlvr"
    )
    assert parsed(train).train.steps == 2 and parsed(evaluate).train.steps == 2
    assert compare.startswith("launch/compare.py ")


def test_after_a_script_elsewhere_the_commands_have_whole_paths(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mine.py"])
    monkeypatch.chdir(tmp_path)
    train, _, evaluate = next_of(next_steps.after_training(workdir(tmp_path, "permix")))
    assert train.startswith(f"{ROOT}/launch/train.py --config={ROOT}/configs/rlvr.py:tiny ")
    assert parsed(evaluate).eval.sets == "heldout,train"


@pytest.mark.parametrize(
    ("name", "changed"),
    [("permix", {"method": {"advantages": "x"}}), ("odd", {}), ("permix", {"preset": "mine"})],
)
def test_after_a_script_there_is_no_counterpart_that_no_command_makes(
    tmp_path, monkeypatch, name, changed
):
    monkeypatch.setattr(sys, "argv", ["mine.py"])
    mine = workdir(tmp_path, name)
    record = json.loads((mine / "config.json").read_text()) | changed
    (mine / "config.json").write_text(json.dumps(record))
    said = next_of(next_steps.after_training(mine))
    assert [Path(command.split()[0]).name for command in said] == ["evaluate.py"]


# ---- other commands -------------------------------------------------------------------------


def test_a_real_model_is_exported_and_the_export_evaluated(tmp_path):
    mine = real(tmp_path, "permix")
    export = next_of(next_steps.after_training(mine, CONFIG))[-1]
    assert export == f"launch/export.py --workdir={mine} --out={mine}/export"
    said = next_steps.after_export(mine, Path("exported"), adapter=False)
    assert said.startswith("wrote exported; ")
    assert parsed(next_of(said)[0]).data.test == "math500"


def test_an_export_that_learnt_its_own_problems_is_not_sent_to_math500(tmp_path):
    mine = real(tmp_path, "permix")
    record = json.loads((mine / "config.json").read_text())
    record["config"]["data"]["train"] = "sums.jsonl"
    (mine / "config.json").write_text(json.dumps(record))
    assert next_of(next_steps.after_export(mine, Path("out"), adapter=False)) == []


def test_an_export_of_the_embedded_world_is_loaded_and_no_more(tmp_path):
    said = next_steps.after_export(workdir(tmp_path, "permix"), Path("out"), adapter=False)
    assert "from_pretrained('out')" in said and next_of(said) == []
    assert "PeftModel" in next_steps.after_export(tmp_path, Path("out"), adapter=True)


def test_other_commands(tmp_path):
    config = ["--config=configs/reproduce.py:tiny"]
    again = next_of(next_steps.after_reproduction(tmp_path, config, "none"))
    assert parsed(again[0]).reproduce.ablation == "kl"
    assert next_of(next_steps.after_reproduction(tmp_path, config, "kl")) == []
    assert "report.html" in next_steps.after_comparison(tmp_path)
    assert "--out=DIR" in next_steps.after_comparison(None)
    assert parsed(next_of(next_steps.after_planning(CONFIG))[0]).sft.steps == 120
    plan, trained = next_of(next_steps.after_search(CONFIG, "v5e:2x2"))
    assert plan.endswith("--topology=v5e:2x2") and parsed(trained).sft.steps == 120
    run = workdir(tmp_path, "permix")
    for config in (CONFIG, ["--config.eval.samples=2"]):
        base = next_of(next_steps.after_evaluation(tmp_path / "more", config, run))
        assert f"--step=0 --out={tmp_path}/more-base" in base[0] and parsed(base[0])
