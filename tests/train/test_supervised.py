"""The supervised baselines, run whole on the shrunk real config."""

import dataclasses
import json
from functools import cache, partial

import jax
import numpy as np
import pytest
from grpo_batches import assert_close
from runs import assert_same_run, crash_after, embedded_policy, load_config, metrics

import permix_jax.app.build
from permix_jax.app import experiment
from permix_jax.app.experiment import run
from permix_jax.core.sharding import make_mesh
from permix_jax.models.lm_head import Scoring
from permix_jax.models.params import create_params
from permix_jax.tasks.embedded_world import latent_style_task
from permix_jax.train.checkpoints import load_params
from permix_jax.train.gradients import cross_entropy, packed_gradients
from permix_jax.train.programs import batch_shapes
from permix_jax.train.supervised import _demonstration, pack_demonstrations


@pytest.fixture(scope="module", autouse=True)
def easy_world(tmp_path_factory):
    """The tiny policy gets no sum right: an answer is right here if it has an even length."""
    build_task = permix_jax.app.build.build_task

    def even(text, problem):
        return float(len(text) % 2 == 0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERMIX_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(
            permix_jax.app.build,
            "build_task",
            lambda *args: dataclasses.replace(build_task(*args), grade=even),
        )
        yield


ASKED = {"eval__kl_responses": 8, "eval__personas": 2, "eval__resamples": 10, "task__num_test": 4}


def run_tiny(file, workdir, **fields):
    config = load_config(file, "tiny", **ASKED, **fields)
    run(config, workdir, file.removesuffix(".py"), "tiny")
    return metrics(workdir)


@pytest.fixture(scope="module")
def whole(easy_world, tmp_path_factory):
    """file -> the workdir of an uninterrupted run of its config; each is made once."""

    @cache
    def workdir(file):
        folder = tmp_path_factory.mktemp("whole")
        run_tiny(file, folder)
        return folder

    return workdir


def test_distillation_learns_the_right_answers_of_the_base(whole, tmp_path):
    rows = metrics(whole("distill.py"))
    grpo = run_tiny("permix.py", tmp_path / "grpo", train__steps=1)
    # The teacher answers what the policy of GRPO, which starts as the same base, is asked.
    assert rows[0]["tokens/generated"] == grpo[0]["tokens/generated"]
    assert rows[0]["teacher/accuracy"] == grpo[0]["reward"]
    for row in rows:
        assert 0 < row["responses/trained"] <= row["teacher/accuracy"] * 64
        assert 0 < row["tokens/trained"] < row["tokens/generated"]
    file = whole("distill.py") / "completions/6.jsonl"
    answers = [json.loads(line) for line in file.read_text().splitlines()]
    right = [a for a in answers if a["correct"] and not a["truncated"]]
    assert len(right) == rows[-1]["responses/trained"]


def test_a_teacher_may_be_another_run(whole, tmp_path):
    own = metrics(whole("distill.py"))
    run_tiny("sft.py", tmp_path / "teacher", train__learning_rate=1e-2, train__steps=2)
    fields = {"distill__teacher": str(tmp_path / "teacher"), "train__steps": 1}
    other = run_tiny("distill.py", tmp_path / "other", **fields)
    assert own[0]["loss"] != other[0]["loss"]


def test_sft_generates_nothing_and_trains_on_as_many_responses(whole):
    workdir = whole("sft.py")
    for row in metrics(workdir):
        assert row["tokens/generated"] == 0 < row["tokens/trained"]
        assert row["responses/trained"] == 8 * 8
    assert (workdir / "report.html").exists()
    kl = json.loads((workdir / "eval/6/kl.json").read_text())
    assert kl["kl"] > 0 and set(kl["by_task"]) == {"problems", "role_play"}


@pytest.mark.parametrize("file", ["sft.py", "distill.py"])
def test_a_killed_baseline_ends_as_the_uninterrupted_one(whole, tmp_path, file):
    with crash_after(3, having="responses/trained"):
        run_tiny(file, tmp_path / "killed")
    run_tiny(file, tmp_path / "killed")
    if file == "sft.py":  # which writes no completions in training
        assert metrics(whole(file)) == metrics(tmp_path / "killed")
    else:
        assert_same_run(whole(file), tmp_path / "killed")


def test_adapters_are_trained_by_a_baseline_too(tmp_path):
    with jax.set_mesh(make_mesh(1, 1, 1)):
        rows = run_tiny("sft.py", tmp_path / "run", lora__rank=4, train__steps=2)
    assert rows[-1]["grad_norm"] > 0


def test_no_demonstration_under_a_persona_that_training_must_not_see():
    task, rng = latent_style_task(16, 0.89, 0.6, 0.2, seed=0), np.random.default_rng(0)
    drawn = [_demonstration(task, rng) for _ in range(400)]
    splits = {d.persona.split if d.persona else None for d in drawn}
    assert splits == {None, "train"}


def test_the_average_of_the_weights_is_evaluated_as_it_is_saved(tmp_path, mesh, monkeypatch):
    seen, evaluate = {}, experiment.evaluate_policy

    def look(run, asked, of, folder, *shared):
        seen[of["step"]] = jax.tree.map(np.array, asked.load_params())
        seen["model"] = asked.policy.model
        evaluate(run, asked, of, folder, *shared)

    monkeypatch.setattr(experiment, "evaluate_policy", look)
    fields = {"train__ema": 0.5, "train__steps": 2, "train__checkpoint_every": 1, "eval__every": 1}
    fields["sft__steps"] = 0
    run_tiny("sft.py", tmp_path, **fields)
    saved = load_params(tmp_path / "checkpoints", seen["model"], mesh, 1)
    jax.tree.map(np.testing.assert_array_equal, seen[1], saved)


def test_the_gradient_on_a_teachers_answers_is_the_same_for_any_micro_batch(mesh):
    """Answers of many lengths, under prompts that some of them share; one is cut at the budget."""
    policy = embedded_policy()
    params = create_params(policy.model, jax.random.key(1), mesh)
    task, rng = latent_style_task(16, 0.89, 0.6, 0.2, seed=0), np.random.default_rng(1)
    drawn = [task.demonstrate(rng, task.train) for _ in range(11)]
    drawn = [
        dataclasses.replace(d, completion=" ".join([d.completion] * (1 + i % 3)))
        for i, d in enumerate(drawn)
    ]
    drawn += drawn[:3]
    gradients = jax.jit(partial(packed_gradients, policy.model, cross_entropy, Scoring(0.8, 16)))
    results, counts = [], []
    for tokens in (32, 96, 1024):
        config = load_config("distill.py", "tiny", train__micro_batch_tokens=tokens)
        shapes = batch_shapes(config, len(drawn), 12)
        batch = pack_demonstrations(policy, drawn, (16, 12), shapes)
        results.append(gradients(params, *batch))
        counts.append(int(batch.rows.count))
    assert counts[0] > counts[1] > counts[2] == 1
    for result in results[:2]:
        assert_close(result, results[2])
