from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from dense import dense_statistics
from runs import embedded_policy

from permix_jax.core.sharding import make_mesh
from permix_jax.evaluation.likelihood import Reference, Response, log_likelihoods, response_tokens
from permix_jax.models.params import create_params
from permix_jax.models.policy import StoredPolicy
from permix_jax.models.transformer import Decoder
from permix_jax.personas.prompts import render_all
from permix_jax.rollout.generate import right_pad
from permix_jax.tasks.embedded_world import PERSONAS

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
    policy = embedded_policy()
    heads = {"num_heads": 4, "num_kv_heads": 2}  # a cube of devices can cut them
    return policy._replace(model=Decoder(replace(policy.model.config, **heads)))


def reference_on(policy, mesh, batch_size, check_stop=lambda: None):
    load = partial(create_params, policy.model, jax.random.key(3), mesh)
    return Reference(StoredPolicy("tiny", policy, mesh, load), batch_size, 64, 64, check_stop)


def likelihoods(reference, path, responses=RESPONSES, under=UNDER):
    tokens = response_tokens(reference.stored.policy, responses)
    return log_likelihoods(reference, responses, tokens, under, path, "likelihoods")


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
    # Prompt and response as one row of its own, with the whole logits.
    asked = [(p, r.prompt) for r, under in zip(RESPONSES, UNDER, strict=True) for p in under]
    arrays = *right_pad(render_all(policy.tokenizer, asked), 16), *right_pad(tokens, 16)
    arrays = [np.repeat(x, 15 // len(x), axis=0) for x in arrays]
    logprobs, _ = dense_statistics(policy.model, params, *arrays)
    wanted = np.where(arrays[3], logprobs, 0).sum(axis=1).reshape(5, 3)
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
