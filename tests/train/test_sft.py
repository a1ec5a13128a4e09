from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import pairs_of

from permix_jax.core.problem import Demonstration
from permix_jax.models.config import ModelConfig
from permix_jax.models.lm_head import Scoring
from permix_jax.models.packing import row_shapes
from permix_jax.models.params import create_params
from permix_jax.models.policy import Policy
from permix_jax.models.transformer import Decoder
from permix_jax.personas.prompts import render
from permix_jax.tasks.embedded_world import PERSONAS, build_tokenizer
from permix_jax.train.gradients import cross_entropy, packed_gradients
from permix_jax.train.state import create_state, make_optimizer, make_step
from permix_jax.train.supervised import pack_demonstrations

DEMONSTRATIONS = [
    Demonstration(PERSONAS[0], "what is 12 plus 13 ?", "beep boop the answer is 25 bzzt"),
    Demonstration(None, "tell me about the sea .", "arr"),
    Demonstration(PERSONAS[3], "tell me about the moon .", "thus indeed the moon is old hence"),
]
PROMPT, COMPLETION = 16, 9  # budgets; the first completion has 8 tokens and its end token


@pytest.fixture(scope="module")
def policy():
    tokenizer = build_tokenizer()
    shape = ModelConfig(
        vocab_size=len(tokenizer),
        embed_dim=16,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        head_dim=8,
        mlp_dim=16,
    )
    return Policy(Decoder(shape), tokenizer, (tokenizer.eos_token_id,))


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


WORDS = ["beep boop the answer is 2 ##5 bzzt <end>", "arr <end>"]
WORDS.append("thus indeed the moon is old hence <end>")


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


def test_a_completion_that_is_cut_at_the_budget_has_no_end_token(policy):
    words = ["beep boop the answer is 2 ##5 bzzt", "arr <end>"]
    batch = pack(policy, DEMONSTRATIONS[:2], completion=8)
    assert pairs_of(batch.rows) == sorted(wanted(policy, DEMONSTRATIONS[:2], words))


def test_a_prompt_over_the_budget_is_refused(policy):
    longest = max(len(render(policy.tokenizer, d.persona, d.prompt)) for d in DEMONSTRATIONS)
    with pytest.raises(ValueError, match=f"has {longest} tokens, over the 5 of"):
        pack(policy, prompt=5)


def test_the_loss_is_the_mean_negative_logprob_of_completion_tokens(policy, params):
    """By scoring each row alone, unpadded, prompt and completion in one piece."""
    gradients, metrics = jax.jit(gradients_of(policy))(params, *pack(policy))

    @jax.jit
    def all_logprobs(tokens):
        positions = jnp.arange(tokens.shape[1])[None]
        hidden, _ = policy.model.apply({"params": params}, tokens, positions, tokens >= 0)
        logits = policy.model.apply({"params": params}, hidden, method="unembed")
        return jax.nn.log_softmax(logits[0])

    logprobs, entropies = [], []
    for prompt, completion in wanted(policy, DEMONSTRATIONS, WORDS):
        tokens = jnp.array([[*prompt, *completion]])
        each = np.asarray(all_logprobs(tokens))[len(prompt) - 1 : -1]
        logprobs += each[np.arange(len(completion)), completion].tolist()
        entropies += (-(np.exp(each) * each).sum(axis=-1)).tolist()

    assert len(logprobs) == 9 + 2 + 8
    assert float(metrics["loss"]) == pytest.approx(-np.mean(logprobs), rel=1e-5)
    assert float(metrics["entropy"]) == pytest.approx(np.mean(entropies), rel=1e-5)
    assert jax.tree.structure(gradients) == jax.tree.structure(params)


def test_one_step_lowers_the_loss(policy, params):
    batch = pack(policy)
    optimizer, _ = make_optimizer(1e-2, 0, 2, "none", 0.0, 1.0)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state = create_state(params, optimizer, here)
    step = make_step(
        gradients_of(policy),
        optimizer,
        jax.tree.map(lambda x: x.sharding, state),
    )
    state, before = step(state, *batch)
    _, after = step(state, *batch)
    assert float(after["loss"]) < float(before["loss"]) - 0.05
