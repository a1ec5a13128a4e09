import itertools
import json
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from dense import pairs_of
from grpo_batches import assert_close, packed, random_rollouts
from runs import assert_same_run, crash_after, embedded_policy, load_config, metrics, run_of

from permix_jax.app.experiment import run
from permix_jax.models.params import create_params
from permix_jax.personas.conversation import CONVERSATION
from permix_jax.personas.prompts import render
from permix_jax.tasks.embedded_world import PERSONAS, ROLE_PLAY, latent_style_task
from permix_jax.train.gradients import cross_entropy, packed_gradients
from permix_jax.train.loss import token_losses
from permix_jax.train.programs import loss_config, policy_gradients, scoring
from permix_jax.train.rehearsal import build_rehearsal, rehearsal_prompts

WEIGHT = 0.5


@pytest.fixture(scope="module")
def policy():
    return embedded_policy()


@pytest.fixture(scope="module")
def params(policy, mesh):
    return create_params(policy.model, jax.random.key(3), mesh)


@pytest.fixture(scope="module")
def task():
    return latent_style_task(16, 0.89, 0.6, 0.2, seed=0)


def tiny(**fields):
    return load_config("permix.py", "tiny", **{"rehearsal__weight": WEIGHT, **fields})


@pytest.fixture
def rehearsal_of(policy, params, task, mesh):
    return lambda config: build_rehearsal(run_of(config, task, policy, params, mesh))


def test_the_gradient_is_that_of_grpo_plus_the_weighted_cross_entropy(policy, params, rehearsal_of):
    config = tiny(train__micro_batch_tokens=16)
    batch, reference = random_rollouts(0, 4, 2, vocab=policy.model.config.vocab_size)
    rehearsed = rehearsal_of(config).batch(params, 1)
    loss, how = loss_config(config), scoring(config)
    x = packed(batch, loss, reference, tokens=16)
    assert x.rows.count > 1

    def alone(token_losses, rows, tokens):
        gradients = partial(packed_gradients, policy.model, token_losses, how)
        return jax.jit(gradients)(params, rows, tokens)

    grpo, of_grpo = alone(partial(token_losses, config=loss), x.rows, x.tokens)
    ce, of_ce = alone(cross_entropy, *rehearsed)
    gradients = policy_gradients(config, policy.model)
    both, of_both = jax.jit(gradients)(params, x.rows, x.tokens, {}, rehearsed)
    expected = jax.tree.map(lambda x, y: x + WEIGHT * y, grpo, ce)
    assert_close(both, expected)
    summed = float(of_grpo["loss"] + WEIGHT * of_ce["loss"])
    assert float(of_both["loss"]) == pytest.approx(summed, rel=1e-5)
    assert float(of_both["rehearsal/loss"]) == pytest.approx(float(of_ce["loss"]), rel=1e-5)
    assert max(float(np.abs(x).max()) for x in jax.tree.leaves(ce)) > 1e-3


def test_the_gradient_is_the_same_for_any_micro_batch(policy, params, rehearsal_of):
    """Rehearsal and GRPO share `train.micro_batch_tokens`; here rehearsal alone is cut up."""
    batch, reference = random_rollouts(0, 4, 2, vocab=policy.model.config.vocab_size)
    results, counts = [], []
    for tokens in (16, 128, 2048):
        config = tiny(train__micro_batch_tokens=tokens)
        rehearsed = rehearsal_of(config).batch(params, 1)
        x = packed(batch, loss_config(config), reference)
        gradients = jax.jit(policy_gradients(config, policy.model))
        results.append(gradients(params, x.rows, x.tokens, {}, rehearsed))
        counts.append(int(rehearsed.rows.count))
    assert counts[0] > counts[1] > counts[2] == 1
    for result in results[:2]:
        assert_close(result, results[2])


def test_a_batch_is_a_function_of_step_under_training_personas(policy, params, rehearsal_of):
    rehearsal = rehearsal_of(tiny(rehearsal__rows=64))
    first, again, second = (rehearsal.batch(params, step) for step in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first.rows.targets, second.rows.targets)

    trained = [persona for persona in PERSONAS if persona.split == "train"]
    allowed = {
        tuple(render(policy.tokenizer, persona, problem.prompt)): persona.id
        for persona, problem in itertools.product(trained, ROLE_PLAY)
    }
    assert len({allowed[tuple(prompt)] for prompt, _ in pairs_of(first.rows)}) == 8


def test_plain_rlvr_rehearses_under_the_same_personas_if_there_is_a_weight(rehearsal_of):
    assert rehearsal_of(tiny(rehearsal__weight=0.0)) is None
    permix, rlvr = (rehearsal_of(tiny(personas__share=share)) for share in (0.75, 0.0))
    assert permix.personas == rlvr.personas and permix.prompts == rlvr.prompts


def test_prompts_of_the_task_of_a_file_or_ours(task, tmp_path):
    assert rehearsal_prompts("", task) == list(task.role_play)
    ours = rehearsal_prompts("", replace(task, role_play=()))
    assert [p.prompt for p in ours] == list(CONVERSATION)
    file = tmp_path / "prompts.jsonl"
    file.write_text(json.dumps({"prompt": "who are you ?"}) + "\n")
    assert [p.prompt for p in rehearsal_prompts(str(file), task)] == ["who are you ?"]
    file.write_text('{"text": "x"}\n')
    with pytest.raises(ValueError, match=r"prompts.jsonl:1: there is no field .prompt."):
        rehearsal_prompts(str(file), task)


def test_a_killed_run_with_rehearsal_ends_as_the_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setenv("PERMIX_CACHE", str(tmp_path / "cache"))
    config = tiny(personas__share=0.0, eval__kl_responses=8)
    run(config, tmp_path / "whole", "rlvr", "tiny")

    with crash_after(3, having="rehearsal/loss"):
        run(config, tmp_path / "killed", "rlvr", "tiny")
    run(config, tmp_path / "killed", "rlvr", "tiny")
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    for row in metrics(tmp_path / "whole"):
        assert row["rehearsal/loss"] > 0
        assert 0 < row["tokens/rehearsal"] < row["tokens/generated"]
