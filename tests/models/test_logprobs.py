"""Chunked, prompt-shared log-probs of packed rows against log_softmax of the full logits."""

import dataclasses
from functools import partial

import closeness
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import dense_statistics, pack_arrays, unpack
from flax import linen as nn
from jaxprs import array_shapes

from permix_jax.models.config import ModelConfig
from permix_jax.models.lm_head import Scoring, TokenLoss, head_loss
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


def token_weights(mask):
    """Those of the loss that is differentiated: they differ from token to token."""
    return np.cos(np.arange(mask.size, dtype=np.float32)).reshape(mask.shape)


@partial(jax.jit, static_argnums=(0, 4, 5))
def chunked_gradient(model, params, rows, weights, temperature, logits_chunk):
    @partial(jax.value_and_grad, has_aux=True)
    def run(params):
        part = micro_batch(rows, 0)
        hidden, head = target_states(model, params, part), head_weight(model, params)
        loss = TokenLoss(jnp.multiply, Scoring(temperature, logits_chunk))
        return head_loss(loss, hidden, head, part.targets, part.scored, weights[0])

    return run(params)


def chunked(model, params, batch, temperature=1.0):
    """((loss, statistics [N, T]), gradients), of one packed row; 0 outside the mask."""
    packing, mask = pack_arrays(*batch), batch[3]
    assert packing.rows.tokens.shape[:2] == (1, 1)
    arguments = packing.rows, packing.spread(token_weights(mask)[mask]), temperature, 8
    (loss, found), gradients = chunked_gradient(model, params, *arguments)
    assert found.logprobs.dtype == found.entropy.dtype == jnp.float32
    return (loss, [unpack(packing, x[None], mask) for x in found]), gradients


@partial(jax.jit, static_argnums=(0, 3))
def naive(model, params, batch, temperature=1.0):
    """As `chunked`."""

    @partial(jax.value_and_grad, has_aux=True)
    def run(params):
        statistics = dense_statistics(model, params, *batch, temperature)
        return (token_weights(batch[3]) * batch[3] * statistics[0]).sum(), statistics

    return run(params)


def assert_close(actual, wanted, tolerance=1e-5):
    np.testing.assert_allclose(actual, wanted, rtol=tolerance, atol=tolerance)


def assert_same(actual, wanted, mask):
    """Equal ((loss, statistics), gradients), statistics inside the mask."""
    (loss, statistics), gradients = actual
    assert_close(loss, wanted[0][0])
    for mine, theirs in zip(statistics, wanted[0][1], strict=True):
        assert_close(mine[mask], theirs[mask])
    jax.tree.map(partial(assert_close, tolerance=1e-4), gradients, wanted[1])


@pytest.fixture(scope="module")
def model(tiny_model):
    """One layer: enough here, and quick to compile."""
    return Decoder(dataclasses.replace(tiny_model.config, num_layers=1))


@pytest.fixture(scope="module")
def params(tiny_params):
    return {name: value for name, value in tiny_params.items() if name != "layers_1"}


@pytest.mark.parametrize("temperature", [0.6, 1.7])
def test_values_and_gradients_are_those_of_log_softmax(model, params, temperature):
    wanted, mask = naive(model, params, BATCH, temperature), BATCH[3]
    assert_same(chunked(model, params, BATCH, temperature), wanted, mask)
    packing = pack_arrays(*BATCH)
    scores = score(model, params, packing.rows, Scoring(temperature, 8))
    assert_close(unpack(packing, scores, mask)[mask], wanted[0][1][0][mask])


def test_repeated_prompts_are_shared_prompts(model, params):
    prompts, prompt_mask, completions, mask = BATCH
    repeated = np.repeat(prompts, S, axis=0), np.repeat(prompt_mask, S, axis=0), completions, mask
    assert_same(chunked(model, params, repeated), chunked(model, params, BATCH), mask)


def test_what_lies_outside_the_masks_changes_nothing_inside(model, params):
    prompts, prompt_mask, completions, mask = BATCH
    junk = np.where(prompt_mask, prompts, 47), prompt_mask, np.where(mask, completions, 47), mask
    same, other = (chunked(model, params, batch)[0][1] for batch in (BATCH, junk))
    np.testing.assert_array_equal(same, other)


def test_prefill_gives_the_state_of_each_prompts_last_token(model, params):
    last, segment, lengths = jax.jit(prefill, static_argnums=0)(model, params, *BATCH[:2])
    np.testing.assert_array_equal(lengths, PROMPT_LENGTHS)
    np.testing.assert_array_equal(segment.valid, BATCH[1])
    hidden, _ = jax.jit(model.apply)(
        {"params": params}, BATCH[0], np.tile(np.arange(P), (U, 1)), np.ones((U, P), bool)
    )
    assert_close(last, hidden[np.arange(U), PROMPT_LENGTHS - 1])


FAMILIES = {
    "llama": {},
    "gemma": {"local_layers": (0,), "window": 5, "post_norms": True, "query_scale": 0.3},
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_long_prompt_is_attended_in_blocks_as_it_is_whole(family, dtype, monkeypatch):
    """Prompts of 22 tokens at most, one of them in its first block of 8, one at a block's end."""
    model = Decoder(ModelConfig(48, 8, 2, 4, 2, 4, 16, **FAMILIES[family], dtype=dtype))
    params = nn.unbox(init_params(model, jax.random.key(0)))
    tokens = np.random.default_rng(0).integers(0, 48, (4, 22), np.int32)
    mask = np.arange(22) < np.array([[22], [3], [16], [17]])

    def run():
        return jax.jit(partial(prefill, model))(params, tokens, mask)

    whole = run()
    monkeypatch.setattr("permix_jax.models.logprobs.LONGEST_WHOLE", 21)
    monkeypatch.setattr("permix_jax.models.logprobs.BLOCK", 8)
    last, segment, lengths = run()
    assert segment.valid.shape == (4, 24) and not segment.valid[:, 22:].any()
    np.testing.assert_array_equal(segment.valid[:, :22], mask)
    np.testing.assert_array_equal(segment.positions, np.tile(np.arange(24), (4, 1)))
    np.testing.assert_array_equal(lengths, mask.sum(axis=1))

    def of_tokens(layers, size):
        """What is no padding."""
        keys = [jnp.swapaxes(keys, 2, 3) for keys, _ in layers]
        return [x[:, :, :size].swapaxes(1, 2)[mask] for x in [*keys, *(v for _, v in layers)]]

    got, wanted = (last, of_tokens(segment.layers, 22)), (whole[0], of_tokens(whole[1].layers, 22))
    closeness.assert_close(got, wanted, 1e-5 if dtype == "float32" else 3e-2)


@pytest.mark.parametrize(("length", "whole"), [(1024, True), (1025, False), (8192, False)])
def test_no_scores_of_a_whole_long_prompt_exist(length, whole):
    model = Decoder(ModelConfig(48, 8, 1, 2, 1, 4, 16))
    params = jax.eval_shape(lambda: nn.unbox(init_params(model, jax.random.key(0))))
    prompts = [jax.ShapeDtypeStruct((2, length), dtype) for dtype in (jnp.int32, bool)]
    shapes = array_shapes(partial(prefill, model), params, *prompts)
    assert any(sorted(shape)[-2] >= length for shape in shapes if len(shape) > 1) == whole


def test_the_vocabulary_is_never_materialised_over_the_sequence():
    """Neither in the jaxpr of value and gradient, nor in the memory of what is compiled."""
    vocab, rows, length, logits_chunk = 4099, 4, 64, 16
    model = Decoder(ModelConfig(vocab, 8, 1, 2, 1, 4, 8))
    params = jax.eval_shape(lambda: nn.unbox(init_params(model, jax.random.key(0))))
    batch = make_batch(U=2, S=2, P=5, T=length, vocab=vocab)
    packing, whole = pack_arrays(*batch), rows * length * vocab

    def by_chunks(params):
        weights = packing.rows.scored.astype(np.float32)
        return chunked_gradient(model, params, packing.rows, weights, 0.9, logits_chunk)

    def at_once(params):
        return naive(model, params, batch, 0.9)

    largest, memory = {}, {}
    for run in (by_chunks, at_once):
        largest[run] = max(int(np.prod(s)) for s in array_shapes(run, params) if vocab in s)
        compiled = jax.jit(run).lower(params).compile()
        memory[run] = compiled.memory_analysis().temp_size_in_bytes
    assert largest[at_once] >= whole
    assert largest[by_chunks] == logits_chunk * vocab
    assert memory[at_once] >= whole * 4
    assert memory[by_chunks] < whole * 4 / 2
