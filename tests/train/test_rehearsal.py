import json
from functools import partial

import jax
import numpy as np
import pytest
from runs import assert_same_run, crash_after, load_config, metrics, run_of

from permix_jax.app.experiment import run
from permix_jax.models.config import ModelConfig
from permix_jax.models.params import create_params
from permix_jax.models.policy import Policy
from permix_jax.models.transformer import Decoder
from permix_jax.personas.conversation import CONVERSATION
from permix_jax.personas.prompts import render
from permix_jax.tasks.embedded_world import PERSONAS, ROLE_PLAY, build_tokenizer, latent_style_task
from permix_jax.train.batch import RolloutBatch
from permix_jax.train.gradients import grpo_gradients
from permix_jax.train.programs import loss_config, pack_batch, policy_gradients
from permix_jax.train.rehearsal import build_rehearsal, rehearsal_prompts
from permix_jax.train.sft import sft_gradients

WEIGHT = 0.5


@pytest.fixture(scope="module")
def policy():
    tokenizer = build_tokenizer()
    sizes = {"embed_dim": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8}
    shape = ModelConfig(vocab_size=len(tokenizer), mlp_dim=16, **sizes)
    return Policy(Decoder(shape), tokenizer, (tokenizer.eos_token_id,))


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


def random_batch(vocab: int) -> RolloutBatch:
    rng = np.random.default_rng(0)
    prompts, rows = (4, 3), (8, 5)
    logprobs = -np.log(vocab) + 0.3 * rng.normal(size=(2, *rows))
    return RolloutBatch(
        prompt_tokens=rng.integers(0, vocab, prompts, np.int32),
        prompt_mask=np.ones(prompts, bool),
        completion_tokens=rng.integers(0, vocab, rows, np.int32),
        completion_mask=np.arange(rows[1]) < rng.integers(1, 6, rows[0])[:, None],
        logprobs=logprobs[0].astype(np.float32),
        reference_logprobs=logprobs[1].astype(np.float32),
        truncated=np.zeros(rows[0], bool),
        rewards=np.zeros(rows[0], np.float32),
        advantages=rng.normal(size=rows[0]).astype(np.float32),
        problem=np.repeat(np.arange(4, dtype=np.int32), 2),
        persona=np.full(rows[0], -1, np.int32),
    )


def test_the_gradient_is_that_of_grpo_plus_the_weighted_cross_entropy(policy, params, rehearsal_of):
    config = tiny()
    batch = random_batch(policy.model.config.vocab_size)
    rehearsed = rehearsal_of(config).batch(params, 1)
    loss, temperature = loss_config(config), config.rollout.temperature
    packing = pack_batch(config, batch)
    grpo, of_grpo = jax.jit(
        lambda *args: grpo_gradients(policy.model, *args, loss, temperature, 64)
    )(params, batch, packing)
    ce, of_ce = jax.jit(lambda p: sft_gradients(policy.model, p, rehearsed, 64, temperature))(
        params
    )
    few_tokens = tiny(train__micro_batch_tokens=16)
    packing = pack_batch(few_tokens, batch)
    assert packing.count > 1
    gradients = policy_gradients(few_tokens, policy.model)
    both, of_both = jax.jit(gradients)(params, batch, packing, {}, rehearsed)
    expected = jax.tree.map(lambda x, y: x + WEIGHT * y, grpo, ce)
    for got, want in zip(jax.tree.leaves(both), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * np.abs(want).max())
    assert float(of_both["loss"]) == pytest.approx(
        float(of_grpo["loss"] + WEIGHT * of_ce["loss"]), rel=1e-5
    )
    assert float(of_both["rehearsal/loss"]) == pytest.approx(float(of_ce["loss"]), rel=1e-5)
    assert max(float(np.abs(x).max()) for x in jax.tree.leaves(ce)) > 1e-3


def test_without_weight_there_is_none_and_the_program_is_that_of_grpo(policy, params, rehearsal_of):
    config = tiny(rehearsal__weight=0.0)
    assert rehearsal_of(config) is None
    batch = random_batch(policy.model.config.vocab_size)
    t, loss = config.rollout.temperature, loss_config(config)
    chunk = config.model.head_chunk
    plain = partial(grpo_gradients, policy.model, loss=loss, temperature=t, logits_chunk=chunk)
    args = params, batch, pack_batch(config, batch)

    def alone(params, batch, packing, frozen):
        return plain(params, batch, packing, frozen=frozen)

    ours = jax.make_jaxpr(policy_gradients(config, policy.model))(*args, {})
    assert str(ours) == str(jax.make_jaxpr(alone)(*args, {}))


def test_a_batch_is_a_function_of_step_under_training_personas(policy, params, rehearsal_of):
    rehearsal = rehearsal_of(tiny(rehearsal__rows=64))
    first, again, second = (rehearsal.batch(params, step) for step in (1, 1, 2))
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(first.completion_tokens, second.completion_tokens)

    allowed = {
        tuple(render(policy.tokenizer, persona, problem.prompt)): persona.id
        for persona in PERSONAS
        if persona.split == "train"
        for problem in ROLE_PLAY
    }
    tokens, mask = np.asarray(first.prompt_tokens), np.asarray(first.prompt_mask)
    seen = [allowed[tuple(row[keep].tolist())] for row, keep in zip(tokens, mask, strict=True)]
    assert len(set(seen)) == 8


def test_plain_rlvr_rehearses_under_the_same_personas(rehearsal_of):
    permix, rlvr = (rehearsal_of(tiny(personas__share=share)) for share in (0.75, 0.0))
    assert permix.personas == rlvr.personas and permix.prompts == rlvr.prompts


def test_prompts_of_the_task_of_a_file_or_ours(task, tmp_path):
    assert rehearsal_prompts("", task) == list(task.role_play)
    from dataclasses import replace

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
