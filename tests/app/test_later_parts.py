"""What a run needs in its last phases is looked at before it begins, and before its workdir is."""

import json

import pytest
from random_model import write_model
from runs import load_config

from permix_jax.app.evaluations import evaluate_model
from permix_jax.app.experiment import run
from permix_jax.app.workdir import claim_workdir

PERSONA = {"id": "p", "name": "P", "system_prompt": "You are P.", "category": "c"}


@pytest.fixture(autouse=True)
def use_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PERMIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def problems(tmp_path):
    """Fields of a random model and problems without worked solutions."""
    write_model(tmp_path / "model")
    rows = [{"prompt": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(8)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    personas = [PERSONA | {"split": "train"}, PERSONA | {"id": "q", "split": "heldout"}]
    (tmp_path / "personas.jsonl").write_text("\n".join(map(json.dumps, personas)))
    return {
        "task__name": "problems",
        "task__num_test": 2,
        "data__train": "mine.jsonl",
        "data__test": "",
        "model__source": "model",
        "personas__file": "personas.jsonl",
        "rollout__max_prompt_tokens": 256,
        "eval__role_play_samples": 0,
    }


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        (
            "permix.py",
            {"rehearsal__weight": 0.5, "rehearsal__prompts": "no.jsonl"},
            "rehearsal.prompts is 'no.jsonl': there is no such file; write one JSON object a line",
        ),
        (
            "permix.py",
            {"eval__judge_free_candidates": 2, "eval__judge_free_reference": "no"},
            "eval.judge_free_reference is 'no': no: no such folder; give a local Hugging Face",
        ),
        (
            "distill.py",
            {"distill__teacher": "no"},
            "distill.teacher is 'no': no/config.json: no such file; name the workdir of a finished",
        ),
    ],
)
def test_what_is_not_there_is_named_before_the_run_begins(tmp_path, file, fields, message):
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        run(load_config(file, "tiny", **fields), tmp_path / "run", "name", "tiny")
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_is_not_finished_is_refused(tmp_path):
    claim_workdir(tmp_path / "teacher", load_config("rlvr.py", "tiny"), "rlvr", "tiny", tmp_path)
    (tmp_path / "teacher/checkpoints").mkdir()
    config = load_config("distill.py", "tiny", distill__teacher="teacher")
    with pytest.raises(
        ValueError, match="'teacher': teacher/checkpoints: no checkpoint 6; there are"
    ):
        run(config, tmp_path / "run", "distill", "tiny")
    assert not (tmp_path / "run").exists()


def test_a_teacher_in_whose_tokens_the_prompts_are_too_long_is_refused(
    tmp_path, problems, monkeypatch
):
    teacher = load_config("rlvr.py", "tiny", **{**problems, "sft__steps": 0})
    claim_workdir(tmp_path / "teacher", teacher, "rlvr", "tiny", tmp_path)
    monkeypatch.setattr("permix_jax.app.policies.newest_step", lambda *_: 6)
    config = load_config("distill.py", "tiny", distill__teacher="teacher")
    with pytest.raises(ValueError, match="^distill.teacher is 'teacher': problem .* takes"):
        run(config, tmp_path / "run", "distill", "tiny")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("fields", [{}, {"train__method": "sft", "sft__steps": 0}])
def test_sft_without_worked_solutions_is_refused(tmp_path, problems, fields):
    with pytest.raises(ValueError, match="no training problem with a worked solution is left"):
        run(load_config("permix.py", "tiny", **problems, **fields), tmp_path / "run", "permix")
    assert not (tmp_path / "run").exists()


def test_an_evaluation_opens_its_reference_first(tmp_path, problems):
    personas = [PERSONA | {"id": name, "split": "heldout"} for name in ("q", "r")]
    (tmp_path / "personas.jsonl").write_text("\n".join(map(json.dumps, personas)))
    asked = {"data__test": "mine.jsonl", "data__train": "other.jsonl", "eval__sets": "heldout"}
    asked |= {"eval__judge_free_candidates": 2, "eval__judge_free_reference": "no"}
    config = load_config("eval_math500.py", "", **{**problems, **asked})
    with pytest.raises(ValueError, match="^eval.judge_free_reference is 'no': no: no such f"):
        evaluate_model(config, "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()
