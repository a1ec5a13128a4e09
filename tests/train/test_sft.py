from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from permix_jax.core.problem import Demonstration
from permix_jax.models.config import ModelConfig
from permix_jax.models.params import create_params
from permix_jax.models.policy import Policy
from permix_jax.models.transformer import Decoder
from permix_jax.personas.prompts import render
from permix_jax.tasks.embedded_world import PERSONAS, build_tokenizer
from permix_jax.train.sft import make_sft_batch, sft_gradients
from permix_jax.train.state import create_state, make_optimizer, make_step

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


def test_batch_layout(policy):
    batch = make_sft_batch(policy, DEMONSTRATIONS, PROMPT, COMPLETION)
    assert batch.prompt_tokens.shape == batch.prompt_mask.shape == (3, PROMPT)
    assert batch.completion_tokens.shape == batch.completion_mask.shape == (3, COMPLETION)

    for row, demonstration in enumerate(DEMONSTRATIONS):
        prompt = render(policy.tokenizer, demonstration.persona, demonstration.prompt)
        assert batch.prompt_tokens[row][batch.prompt_mask[row]].tolist() == prompt
        # Right-padded: the mask is True on a prefix.
        assert batch.prompt_mask[row].tolist() == [i < len(prompt) for i in range(PROMPT)]
    completions = [
        ids(policy, "beep boop the answer is 2 ##5 bzzt <end>"),
        ids(policy, "arr <end>"),
        ids(policy, "thus indeed the moon is old hence <end>"),
    ]
    for row, completion in enumerate(completions):
        mask = batch.completion_mask[row]
        assert batch.completion_tokens[row][mask].tolist() == completion
        assert mask.tolist() == [i < len(completion) for i in range(COMPLETION)]


def test_a_completion_that_is_cut_at_the_budget_has_no_end_token(policy):
    batch = make_sft_batch(policy, DEMONSTRATIONS[:2], PROMPT, 8)
    assert batch.completion_tokens[0].tolist() == ids(policy, "beep boop the answer is 2 ##5 bzzt")
    assert batch.completion_mask[0].all()
    assert batch.completion_tokens[1, 1] == policy.end_tokens[0]


def test_a_prompt_over_the_budget_is_refused(policy):
    with pytest.raises(ValueError, match="over the length of 5"):
        make_sft_batch(policy, DEMONSTRATIONS, 5, COMPLETION)


def test_the_loss_is_the_mean_negative_logprob_of_completion_tokens(policy, params):
    """By scoring each row alone, unpadded, prompt and completion in one piece."""
    batch = make_sft_batch(policy, DEMONSTRATIONS, PROMPT, COMPLETION)
    gradients, metrics = jax.jit(partial(sft_gradients, policy.model, logits_chunk=4))(
        params, batch
    )

    @jax.jit
    def all_logprobs(tokens):
        positions = jnp.arange(tokens.shape[1])[None]
        hidden, _ = policy.model.apply({"params": params}, tokens, positions, tokens >= 0)
        logits = policy.model.apply({"params": params}, hidden, method="unembed")
        return jax.nn.log_softmax(logits[0])

    logprobs, entropies = [], []
    for row in range(3):
        prompt = batch.prompt_tokens[row][batch.prompt_mask[row]]
        completion = batch.completion_tokens[row][batch.completion_mask[row]]
        tokens = jnp.array([[*prompt, *completion]])
        each = np.asarray(all_logprobs(tokens))[len(prompt) - 1 : -1]
        logprobs += each[np.arange(len(completion)), completion].tolist()
        entropies += (-(np.exp(each) * each).sum(axis=-1)).tolist()

    assert len(logprobs) == 9 + 2 + 8
    assert float(metrics["loss"]) == pytest.approx(-np.mean(logprobs), rel=1e-5)
    assert float(metrics["entropy"]) == pytest.approx(np.mean(entropies), rel=1e-5)
    assert jax.tree.structure(gradients) == jax.tree.structure(params)


def test_one_step_lowers_the_loss(policy, params):
    batch = make_sft_batch(policy, DEMONSTRATIONS, PROMPT, COMPLETION)
    optimizer, _ = make_optimizer(1e-2, 0, 2, "none", 0.0, 1.0)
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    state = create_state(params, optimizer, here)
    step = make_step(
        partial(sft_gradients, policy.model, logits_chunk=4),
        optimizer,
        jax.tree.map(lambda x: x.sharding, state),
    )
    state, before = step(state, batch)
    _, after = step(state, batch)
    assert float(after["loss"]) < float(before["loss"]) - 0.05
