from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from permix_jax.core.sharding import make_mesh
from permix_jax.evaluation.likelihood import (
    Reference,
    Response,
    log_likelihoods,
    response_tokens,
)
from permix_jax.models.config import ModelConfig
from permix_jax.models.params import create_params
from permix_jax.models.policy import Policy, StoredPolicy
from permix_jax.models.transformer import Decoder
from permix_jax.personas.prompts import render
from permix_jax.tasks.embedded_world import PERSONAS, build_tokenizer

RESPONSES = [
    Response("tell me about the sea .", "arr the sea is old matey", True),
    Response("tell me about the sea .", "beep", True),
    Response("tell me about the moon .", "howdy the moon is wide partner", False),
    Response("tell me about the sea .", "", True),
    Response("what is 12 plus 3 ?", "hence the answer is 15 thus", True),
]
UNDER = [
    [PERSONAS[0], PERSONAS[1], None],
    [PERSONAS[1], PERSONAS[0], None],
    [PERSONAS[2], PERSONAS[5], None],
    [PERSONAS[0], PERSONAS[3], None],
    [None, PERSONAS[0], PERSONAS[7]],
]


@pytest.fixture(scope="module")
def policy():
    tokenizer = build_tokenizer()
    model = Decoder(ModelConfig(len(tokenizer), 16, 2, 4, 2, 8, 24))
    return Policy(model, tokenizer, (tokenizer.eos_token_id,))


def reference_on(policy, mesh, batch_size, check_stop=lambda: None):
    def get_params():
        return create_params(policy.model, jax.random.key(3), mesh)

    stored = StoredPolicy("tiny", policy, mesh, get_params)
    return Reference(stored, batch_size, 64, 64, check_stop)


def likelihoods(reference, path, responses=RESPONSES, under=UNDER):
    tokens = response_tokens(reference.stored.policy, responses)
    return log_likelihoods(reference, responses, tokens, under, path, "likelihoods")


@partial(jax.jit, static_argnames="model")
def row_logprobs(model, params, row):
    hidden, _ = model.apply({"params": params}, row, jnp.arange(32)[None], row >= 0)
    return jax.nn.log_softmax(model.apply({"params": params}, hidden, method="unembed"))


def one_by_one(policy, params, response, persona, tokens) -> float:
    """The textbook way: prompt and response through the decoder as one row of its own."""
    prompt = render(policy.tokenizer, persona, response.prompt)
    row = np.zeros((1, 32), int)
    row[0, : len(prompt) + len(tokens)] = [*prompt, *tokens]
    logprobs = np.asarray(row_logprobs(policy.model, params, row)[0])
    start = len(prompt)
    return sum(logprobs[start + i - 1, token] for i, token in enumerate(tokens))


def test_tokens_are_the_text_and_the_end_where_it_ended(policy):
    tokens = response_tokens(policy, RESPONSES)
    decoded = [policy.tokenizer.decode(ids) for ids in tokens]
    assert decoded[0] == "arr the sea is old matey <end>"
    assert decoded[2] == "howdy the moon is wide partner"
    assert decoded[3] == "<end>" and "15 thus" in decoded[4]


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_equal_to_one_row_at_a_time(policy, mesh, tmp_path, batch_size):
    reference = reference_on(policy, mesh, batch_size)
    found = likelihoods(reference, tmp_path / "rows.jsonl")
    params, tokens = reference.stored.load_params(), response_tokens(policy, RESPONSES)
    wanted = [
        [one_by_one(policy, params, r, persona, ids) for persona in under]
        for r, ids, under in zip(RESPONSES, tokens, UNDER, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, rtol=2e-5)


def test_many_responses_share_a_prompt(policy, mesh, tmp_path):
    """Repeated responses to one prompt get equal figures, in groups that do not come out even."""
    responses, under = RESPONSES[:2] * 9, UNDER[:2] * 9
    reference = reference_on(policy, mesh, 7)
    found = likelihoods(reference, tmp_path / "rows.jsonl", responses, under)
    np.testing.assert_allclose(found, np.tile(found[:2], (9, 1)), rtol=1e-5)


def test_the_same_on_a_sharded_mesh(policy, mesh, tmp_path):
    alone = likelihoods(reference_on(policy, mesh, 6), tmp_path / "alone.jsonl")
    cube = make_mesh(2, 2, 2)
    with jax.set_mesh(cube):
        spread = likelihoods(reference_on(policy, cube, 6), tmp_path / "spread.jsonl")
    np.testing.assert_allclose(spread, alone, rtol=2e-5)


def test_what_is_scored_before_a_stop_is_not_scored_again(policy, mesh, tmp_path):
    class Struck(Exception):
        pass

    def strike():
        raise Struck

    whole = likelihoods(reference_on(policy, mesh, 4), tmp_path / "whole.jsonl")
    again = tmp_path / "again.jsonl"
    for _ in range(4):  # batches of 4, 4, 4 and 3 pairs
        with pytest.raises(Struck):
            likelihoods(reference_on(policy, mesh, 4, strike), again)
    assert again.read_text() == (tmp_path / "whole.jsonl").read_text()
    stored = StoredPolicy("tiny", policy, mesh, None)  # nothing is left to score
    scored = replace(reference_on(policy, mesh, 4), stored=stored)
    np.testing.assert_array_equal(likelihoods(scored, again), whole)
