"""What a run has to do, counted beforehand: by hand for the shrunk embedded world."""

from dataclasses import replace

import pytest
from runs import load_config, run_of

from permix_jax.app.build import build_task
from permix_jax.app.phases import phases_of_evaluations, phases_of_run


def config(**fields):
    return load_config("permix.py", "tiny", **fields)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    return build_task(config(), tmp_path_factory.mktemp("cache"))


def left(phases):
    return {phase.name: phase.left for phase in phases}


def phases(config, task, folder):
    """The phases of a run in `folder`/run."""
    run = run_of(config, task, None, None, None, folder / "run")
    return phases_of_run(replace(run, base_folder=folder / "base"))


# 16 problems under 8 held-out personas and none, 12 conversation prompts under the 8.
ANSWERS = 16 * 9 + 12 * 8


def test_a_new_run_has_all_to_do(task, tmp_path):
    fields = {"eval__every": 4, "eval__judge_free_candidates": 2}
    found = phases(config(**fields), task, tmp_path)
    assert left(found) == {
        "sft": 120,
        "training": 6,
        "evaluation": 3 * ANSWERS,  # at steps 0, 4 and 6
        "likelihoods": 2 * (16 + 12) * 8 * 3,  # at 0 and 6: under two personas and none
        "kl": 64,
    }
    assert found[1].what == "steps of grpo with 64 responses each"


def test_samples_and_fields_that_leave_phases_out(task, tmp_path):
    fields = {"eval__samples": 2, "eval__role_play_samples": 0, "eval__kl_responses": 0}
    few = config(**fields, sft__steps=0, eval__personas=3)
    assert left(phases(few, task, tmp_path)) == {
        "sft": 0, "training": 6, "evaluation": 2 * 16 * 4 * 2, "likelihoods": 0, "kl": 0,
    }  # fmt: skip


def test_what_is_done_is_not_counted(task, tmp_path):
    run = tmp_path / "run"
    for folder in ("base/checkpoints/120", "run/checkpoints/2", "run/checkpoints/4"):
        (tmp_path / folder).mkdir(parents=True)
    for file in ("0/stability.json", "0/judge_free.json", "6/kl.json", "6/completions.jsonl"):
        (run / "eval" / file).parent.mkdir(parents=True, exist_ok=True)
        (run / "eval" / file).write_text("{}\n" * 64)
    fields = {"eval__judge_free_candidates": 2, "eval__judge_free_questions": 10}
    assert left(phases(config(**fields), task, tmp_path)) == {
        "sft": 0,
        "training": 2,
        "evaluation": ANSWERS - 64,
        "likelihoods": (10 + 10) * 8 * 3,
        "kl": 0,
    }
    folder = run / "eval/0"
    alone = phases_of_evaluations(run_of(config(**fields), task, *[None] * 3), [folder], [folder])
    assert left(alone) == {"evaluation": 0, "likelihoods": 0}
