from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from permix_jax.evaluation.likelihood import Response, log_likelihoods, response_tokens
from permix_jax.models.config import ModelConfig
from permix_jax.models.params import create_params
from permix_jax.models.policy import Policy
from permix_jax.models.transformer import Decoder
from permix_jax.personas.prompts import render
from permix_jax.sharding import make_mesh
from permix_jax.tasks.latent_style import PERSONAS, build_tokenizer

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
def reference():
    tokenizer = build_tokenizer()
    model = Decoder(ModelConfig(len(tokenizer), 16, 2, 4, 2, 8, 24))
    return Policy(model, tokenizer, (tokenizer.eos_token_id,))


def params_on(policy, mesh):
    return create_params(policy.model, jax.random.key(3), mesh)


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


def test_tokens_are_the_text_and_the_end_where_it_ended(reference):
    tokens = response_tokens(reference, RESPONSES)
    decoded = [reference.tokenizer.decode(ids) for ids in tokens]
    assert decoded[0] == "arr the sea is old matey <end>"
    assert decoded[2] == "howdy the moon is wide partner"
    assert decoded[3] == "<end>" and "15 thus" in decoded[4]


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_equal_to_one_row_at_a_time(reference, mesh, batch_size):
    params, tokens = params_on(reference, mesh), response_tokens(reference, RESPONSES)
    scored = []
    found = log_likelihoods(
        reference, params, RESPONSES, tokens, UNDER, batch_size, 64, mesh, scored.append
    )
    wanted = [
        [one_by_one(reference, params, r, persona, ids) for persona in under]
        for r, ids, under in zip(RESPONSES, tokens, UNDER, strict=True)
    ]
    np.testing.assert_allclose(found, wanted, rtol=2e-5)
    assert sum(scored) == 15


def test_many_responses_share_a_prompt(reference, mesh):
    """Repeated responses to one prompt get equal figures, in groups that do not come out even."""
    params = params_on(reference, mesh)
    responses, under = RESPONSES[:2] * 9, UNDER[:2] * 9
    found = log_likelihoods(
        reference, params, responses, response_tokens(reference, responses), under, 7, 64, mesh
    )
    np.testing.assert_allclose(found, np.tile(found[:2], (9, 1)), rtol=1e-5)


def test_the_same_on_a_sharded_mesh(reference, mesh):
    tokens = response_tokens(reference, RESPONSES)
    alone = log_likelihoods(
        reference, params_on(reference, mesh), RESPONSES, tokens, UNDER, 6, 64, mesh
    )
    cube = make_mesh(2, 2, 2)
    with jax.set_mesh(cube):
        params = params_on(reference, cube)
        spread = log_likelihoods(reference, params, RESPONSES, tokens, UNDER, 6, 64, cube)
    np.testing.assert_allclose(spread, alone, rtol=2e-5)
