"""Chunked, prompt-shared log-probs of packed rows against log_softmax of the full logits."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import dense_statistics, pack_arrays, unpack
from flax import linen as nn
from jaxprs import array_shapes

from permix_jax.models.config import ModelConfig
from permix_jax.models.lm_head import Scoring, TokenLoss, TokenStatistics, head_loss
from permix_jax.models.logprobs import head_weight, micro_batch, prefill, score, target_states
from permix_jax.models.params import init_params
from permix_jax.models.transformer import Decoder

U, S, P, T = 2, 2, 5, 6
PROMPT_LENGTHS = np.array([3, 5])


def make_batch(U=U, S=S, P=P, T=T, vocab=48):
    """(prompt_tokens, prompt_mask, completion_tokens, completion_mask), ragged at both ends."""
    rng = np.random.default_rng(0)
    prompt_lengths = np.resize(PROMPT_LENGTHS, U)
    lengths = 1 + rng.permutation(U * S) % T
    return (
        rng.integers(0, vocab, (U, P), np.int32),
        np.arange(P) < prompt_lengths[:, None],
        rng.integers(0, vocab, (U * S, T), np.int32),
        np.arange(T) < lengths[:, None],
    )


BATCH = make_batch()


def token_weights(batch):
    """Those of the loss that is differentiated: they differ from token to token."""
    mask = batch[3]
    return np.cos(np.arange(mask.size, dtype=np.float32)).reshape(mask.shape)


@partial(jax.jit, static_argnames=("model", "temperature", "logits_chunk"))
def _chunked(model, params, rows, weights, index, temperature, logits_chunk):
    part = micro_batch(rows, 0)
    hidden, head = target_states(model, params, part), head_weight(model, params)
    tokens = part.targets, part.scored, weights[0]
    weighted = TokenLoss(jnp.multiply, Scoring(temperature, logits_chunk))
    loss, found = head_loss(weighted, hidden, head, *tokens)
    return loss, TokenStatistics(*(jnp.append(x.reshape(-1), 0)[index] for x in found))


def chunked(model, params, batch, temperature=1.0, logits_chunk=8):
    """(loss, statistics [N, T]), of one packed row; 0 outside the mask."""
    packing = pack_arrays(*batch)
    assert packing.rows.tokens.shape[:2] == (1, 1)
    source, mask = packing.source[0, 0], batch[3]
    index = np.full(mask.shape, source.size)
    index[mask] = np.flatnonzero(source >= 0)[np.argsort(source[source >= 0])]
    weights = packing.spread(np.asarray(token_weights(batch))[mask])
    return _chunked(model, params, packing.rows, weights, index, temperature, logits_chunk)


@partial(jax.jit, static_argnames=("model", "temperature"))
def naive(model, params, batch, temperature=1.0):
    """As `chunked`."""
    statistics = dense_statistics(model, params, *batch, temperature)
    return (token_weights(batch) * batch[3] * statistics[0]).sum(), statistics


def assert_close(actual, wanted, tolerance=1e-5):
    np.testing.assert_allclose(actual, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_values_are_those_of_log_softmax(model, params, temperature):
    loss, statistics = chunked(model, params, BATCH, temperature)
    wanted, (logprobs, entropy) = naive(model, params, BATCH, temperature)
    mask = BATCH[3]
    assert_close(loss, wanted)
    packing = pack_arrays(*BATCH)
    scores = score(model, params, packing.rows, Scoring(temperature, 8))
    assert_close(unpack(packing, scores, mask)[mask], logprobs[mask])
    assert statistics.logprobs.shape == statistics.entropy.shape == mask.shape
    assert statistics.logprobs.dtype == statistics.entropy.dtype == jnp.float32
    assert_close(statistics.logprobs[mask], logprobs[mask])
    assert_close(statistics.entropy[mask], entropy[mask])


def values_and_gradients(loss_of, **kwargs):
    """(statistics, gradients) of loss_of(model, params, batch, ...)."""

    def run(model, params, batch):
        gradients, statistics = jax.grad(loss_of, 1, has_aux=True)(model, params, batch, **kwargs)
        return statistics, gradients

    return run


chunked_gradients, naive_gradients = values_and_gradients(chunked), values_and_gradients(naive)


def assert_same(actual, wanted, mask):
    """Equal (statistics, gradients), statistics inside the mask."""
    for mine, theirs in zip(actual[0], wanted[0], strict=True):
        assert_close(mine[mask], theirs[mask])
    jax.tree.map(partial(assert_close, tolerance=1e-4), actual[1], wanted[1])


@pytest.fixture(scope="module")
def model(tiny_model):
    """One layer: enough here, and quick to compile."""
    return Decoder(dataclasses.replace(tiny_model.config, num_layers=1))


@pytest.fixture(scope="module")
def params(tiny_params):
    return {name: value for name, value in tiny_params.items() if name != "layers_1"}


@pytest.fixture(scope="module")
def wanted(model, params):
    return naive_gradients(model, params, BATCH)


# Widths of 2 and of all 6 tokens, for 4 rows.
@pytest.mark.parametrize("logits_chunk", [8, 1000])
def test_the_chunk_size_changes_nothing(model, params, logits_chunk, wanted):
    run = values_and_gradients(chunked, logits_chunk=logits_chunk)
    assert_same(run(model, params, BATCH), wanted, BATCH[3])


def test_repeated_prompts_are_shared_prompts(model, params, wanted):
    prompts, prompt_mask, completions, mask = BATCH
    repeated = np.repeat(prompts, S, axis=0), np.repeat(prompt_mask, S, axis=0), completions, mask
    assert_same(chunked_gradients(model, params, repeated), wanted, mask)


def test_one_completion_token(model, params):
    batch = (*BATCH[:2], BATCH[2][:, :1], np.ones((U * S, 1), bool))
    assert_same(
        chunked_gradients(model, params, batch),
        naive_gradients(model, params, batch),
        batch[3],
    )


def test_what_lies_outside_the_masks_changes_nothing_inside(model, params):
    prompts, prompt_mask, completions, mask = BATCH
    junk = np.where(prompt_mask, prompts, 47), prompt_mask, np.where(mask, completions, 47), mask
    _, statistics = chunked(model, params, BATCH)
    _, other = chunked(model, params, junk)
    np.testing.assert_array_equal(other.logprobs[mask], statistics.logprobs[mask])
    np.testing.assert_array_equal(other.entropy[mask], statistics.entropy[mask])


def test_prefill_gives_the_state_of_each_prompts_last_token(model, params):
    last, segment, lengths = jax.jit(prefill, static_argnums=0)(model, params, *BATCH[:2])
    np.testing.assert_array_equal(lengths, PROMPT_LENGTHS)
    np.testing.assert_array_equal(segment.valid, BATCH[1])
    hidden, _ = jax.jit(model.apply)(
        {"params": params}, BATCH[0], np.tile(np.arange(P), (U, 1)), np.ones((U, P), bool)
    )
    assert_close(last, hidden[np.arange(U), PROMPT_LENGTHS - 1])


def test_the_vocabulary_is_never_materialised_over_the_sequence():
    """Neither in the jaxpr of value and gradient, nor in the memory of what is compiled."""
    vocab, rows, length, logits_chunk = 4099, 4, 64, 16
    model = Decoder(ModelConfig(vocab, 8, 1, 2, 1, 4, 8))
    params = jax.eval_shape(lambda: nn.unbox(init_params(model, jax.random.key(0))))
    batch = make_batch(U=2, S=2, P=5, T=length, vocab=vocab)
    whole = rows * length * vocab

    def by_chunks(params):
        return chunked(model, params, batch, 0.9, logits_chunk)[0]

    def at_once(params):
        return naive(model, params, batch, 0.9)[0]

    largest, memory = {}, {}
    for loss in (by_chunks, at_once):
        run = jax.value_and_grad(loss)
        shapes = array_shapes(run, params)
        largest[loss] = max(int(np.prod(s)) for s in shapes if vocab in s)
        compiled = jax.jit(run).lower(params).compile()
        memory[loss] = compiled.memory_analysis().temp_size_in_bytes
    assert largest[at_once] >= whole
    assert largest[by_chunks] == logits_chunk * vocab
    assert memory[at_once] >= whole * 4
    assert memory[by_chunks] < whole * 4 / 2
