from functools import partial

import jax
import numpy as np
import pytest
from dense import dense_statistics, pairs_of
from grpo_batches import assert_close
from runs import embedded_policy

from permix_jax.core.problem import Demonstration
from permix_jax.models.lm_head import Scoring
from permix_jax.models.packing import row_shapes
from permix_jax.models.params import create_params
from permix_jax.personas.prompts import render
from permix_jax.rollout.generate import right_pad
from permix_jax.tasks.embedded_world import PERSONAS
from permix_jax.train.gradients import cross_entropy, packed_gradients
from permix_jax.train.supervised import pack_demonstrations

DEMONSTRATIONS = [
    Demonstration(PERSONAS[0], "what is 12 plus 13 ?", "beep boop the answer is 25 bzzt"),
    Demonstration(None, "tell me about the sea .", "arr"),
    Demonstration(PERSONAS[3], "tell me about the moon .", "thus indeed the moon is old hence"),
]
WORDS = [
    "beep boop the answer is 2 ##5 bzzt <end>",
    "arr <end>",
    "thus indeed the moon is old hence <end>",
]
PROMPT, COMPLETION = 16, 9  # budgets; the first completion has 8 tokens and its end token


@pytest.fixture(scope="module")
def policy():
    return embedded_policy()


@pytest.fixture(scope="module")
def params(policy, mesh):
    return create_params(policy.model, jax.random.key(3), mesh)


def ids(policy, words):
    return policy.tokenizer.convert_tokens_to_ids(words.split())


def pack(policy, demonstrations=DEMONSTRATIONS, prompt=PROMPT, completion=COMPLETION):
    shapes = row_shapes((3, prompt), (3, completion), 1, 128)
    return pack_demonstrations(policy, demonstrations, (prompt, completion), shapes)


def gradients_of(policy):
    return partial(packed_gradients, policy.model, cross_entropy, Scoring(1.0, 4))


def wanted(policy, demonstrations, completions):
    prompts = [render(policy.tokenizer, d.persona, d.prompt) for d in demonstrations]
    return [(p, ids(policy, c)) for p, c in zip(prompts, completions, strict=True)]


def test_every_demonstration_stands_in_the_rows_with_its_end_token(policy):
    batch = pack(policy)
    assert pairs_of(batch.rows) == sorted(wanted(policy, DEMONSTRATIONS, WORDS))
    assert batch.rows.scored.sum() == 9 + 2 + 8
    np.testing.assert_allclose(batch.tokens.weights, batch.rows.scored / 19, rtol=1e-6)


def test_equal_prompts_are_computed_once(policy):
    twice = [DEMONSTRATIONS[1], Demonstration(None, "tell me about the sea .", "the sea")]
    batch = pack(policy, twice)
    assert pairs_of(batch.rows) == sorted(wanted(policy, twice, ["arr <end>", "the sea <end>"]))
    prompt = render(policy.tokenizer, None, "tell me about the sea .")
    assert (batch.rows.layout.sequence >= 0).sum() == len(prompt) + 2 + 3


def test_a_step_without_a_demonstration_teaches_nothing(policy, params):
    """As where no answer of a teacher is right."""
    batch = pack(policy, [])
    assert batch.rows.count == 0 and not batch.rows.scored.any()
    gradients, metrics = jax.jit(gradients_of(policy))(params, *batch)
    assert not any(np.any(x) for x in jax.tree.leaves(gradients))
    assert metrics == {"loss": 0, "entropy": 0}


def test_a_completion_over_the_budget_is_cut_and_a_prompt_is_refused(policy):
    words = ["beep boop the answer is 2 ##5 bzzt", "arr <end>"]  # without the first end token
    batch = pack(policy, DEMONSTRATIONS[:2], completion=8)
    assert pairs_of(batch.rows) == sorted(wanted(policy, DEMONSTRATIONS[:2], words))
    longest = max(len(render(policy.tokenizer, d.persona, d.prompt)) for d in DEMONSTRATIONS)
    with pytest.raises(ValueError, match=f"has {longest} tokens, over the 5 of"):
        pack(policy, prompt=5)


def test_loss_and_gradient_are_those_of_the_mean_negative_logprob(policy, params):
    demonstrated = wanted(policy, DEMONSTRATIONS, WORDS)
    prompts, completions = (right_pad(x, PROMPT) for x in zip(*demonstrated, strict=True))

    def dense(params):
        arrays = *prompts, *completions
        logprobs, entropy = dense_statistics(policy.model, params, *arrays)
        return -logprobs[completions[1]].mean(), entropy[completions[1]].mean()

    gradients, metrics = jax.jit(gradients_of(policy))(params, *pack(policy))
    (loss, entropy), expected = jax.value_and_grad(dense, has_aux=True)(params)
    assert float(metrics["loss"]) == pytest.approx(float(loss), rel=1e-5)
    assert float(metrics["entropy"]) == pytest.approx(float(entropy), rel=1e-5)
    assert_close(gradients, expected)
