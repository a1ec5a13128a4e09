"""The decoder against NumPy, and against itself by every route to the same states."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from permix_jax.core.sharding import LOGICAL_TO_MESH, spec
from permix_jax.models.config import Rope
from permix_jax.models.logprobs import prefill
from permix_jax.models.params import init_params
from permix_jax.models.transformer import (
    Decoder,
    RMSNorm,
    _linear,
    apply_rope,
    empty_segment,
    rope_angles,
)

B, T = 3, 8
LENGTHS = np.array([8, 3, 5])


@partial(jax.jit, static_argnames="model")
def forward(model, params, tokens, positions, valid, prefix=None, cache=None, index=0):
    return model.apply({"params": params}, tokens, positions, valid, prefix, cache, index)


jitted_prefill = jax.jit(prefill, static_argnums=0)


def random_tokens(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 48, shape, np.int32)


def arange_rows(rows: int, length: int) -> np.ndarray:
    return np.broadcast_to(np.arange(length), (rows, length))


def assert_close(actual, wanted, tolerance=1e-5):
    np.testing.assert_allclose(actual, wanted, rtol=tolerance, atol=tolerance)


def test_a_later_token_does_not_change_earlier_states(tiny_model, tiny_params):
    tokens, rest = random_tokens(0, B, T), (arange_rows(B, T), np.ones((B, T), bool))
    hidden, _ = forward(tiny_model, tiny_params, tokens, *rest)
    for t in range(T):
        changed = tokens.copy()
        changed[:, t:] = (changed[:, t:] + 1) % 48
        other, _ = forward(tiny_model, tiny_params, changed, *rest)
        np.testing.assert_array_equal(other[:, :t], hidden[:, :t])
        assert not np.allclose(other[:, t], hidden[:, t])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_never_seen(tiny_model, tiny_params, side):
    valid = arange_rows(B, T) < LENGTHS[:, None]
    positions = arange_rows(B, T)
    if side == "left":
        valid, positions = valid[:, ::-1], np.maximum(positions - (T - LENGTHS)[:, None], 0)
    tokens = random_tokens(1, B, T)
    hidden, _ = forward(tiny_model, tiny_params, tokens, positions, valid)
    junk = np.where(valid, tokens, random_tokens(2, B, T))
    elsewhere = np.where(valid, positions, 77)
    other, _ = forward(tiny_model, tiny_params, junk, elsewhere, valid)
    np.testing.assert_array_equal(other[valid], hidden[valid])
    assert np.isfinite(hidden).all()


def test_left_and_right_padding_agree_in_value_and_gradient(tiny_model, tiny_params):
    right = arange_rows(B, T) < LENGTHS[:, None]
    left = right[:, ::-1]
    tokens = random_tokens(3, B, T)
    moved = np.zeros_like(tokens)
    moved[left] = tokens[right]
    moved_positions = np.zeros((B, T), np.int32)
    moved_positions[left] = arange_rows(B, T)[right]

    def loss(params, tokens, positions, valid):
        hidden, _ = forward(tiny_model, params, tokens, positions, valid)
        return (jnp.sin(hidden) * valid[..., None]).sum(), hidden

    run = jax.jit(jax.grad(loss, has_aux=True))
    right_grads, right_hidden = run(tiny_params, tokens, arange_rows(B, T), right)
    left_grads, left_hidden = run(tiny_params, moved, moved_positions, left)
    assert_close(left_hidden[left], right_hidden[right])
    jax.tree.map(partial(assert_close, tolerance=1e-4), left_grads, right_grads)


def test_decoding_with_a_cache_is_one_forward_pass(tiny_model, tiny_params):
    tokens, positions = random_tokens(4, B, T), arange_rows(B, T)
    valid = np.ones((B, T), bool)
    valid[1, 2] = valid[2, 5] = False
    whole, own = forward(tiny_model, tiny_params, tokens, positions, valid)

    # Slots that were not written yet hold junk here, which must not show.
    cache = empty_segment(tiny_model.config, B, T + 2)
    cache = cache._replace(layers=jax.tree.map(lambda x: x + 100.0, cache.layers))
    parts, index = [], 0
    for width in (3, 1, 1, 1, 1, 1):
        new = np.s_[:, index : index + width]
        part = (x[new] for x in (tokens, positions, valid))
        hidden, cache = forward(tiny_model, tiny_params, *part, cache=cache, index=index)
        parts.append(hidden)
        index += width
    assert index == T
    assert_close(np.concatenate(parts, axis=1), whole)
    np.testing.assert_array_equal(cache.valid[:, :T], valid)
    assert not cache.valid[:, T:].any()
    assert_close(cache.layers[1][0][..., :T], own.layers[1][0])


def test_shared_prefix_is_repeated_prefix_is_one_sequence(tiny_model, tiny_params):
    U, S, P = 2, 3, 5
    prompts, lengths = random_tokens(5, U, P), np.array([3, 5])
    mask = arange_rows(U, P) < lengths[:, None]
    tokens, valid = random_tokens(6, U * S, T), np.ones((U * S, T), bool)
    repeat = partial(np.repeat, repeats=S, axis=0)
    positions = repeat(lengths)[:, None] + arange_rows(U * S, T)

    states = []
    for rows in (lambda x: x, repeat):
        _, prefix, _ = jitted_prefill(tiny_model, tiny_params, rows(prompts), rows(mask))
        assert prefix.layers[0][0].shape[0] == len(rows(prompts))
        states.append(forward(tiny_model, tiny_params, tokens, positions, valid, prefix)[0])
    assert_close(states[0], states[1])

    # One sequence a row, prompt and continuation without a gap.
    sequences = np.zeros((U * S, P + T), np.int32)
    starts = repeat(lengths)
    for b, start in enumerate(starts):
        sequences[b, : start + T] = [*prompts[b // S, :start], *tokens[b]]
    filled = arange_rows(U * S, P + T) < starts[:, None] + T
    whole, _ = forward(tiny_model, tiny_params, sequences, arange_rows(U * S, P + T), filled)
    for b, start in enumerate(starts):
        assert_close(states[0][b], whole[b, start : start + T])


def test_rope_is_multiplication_by_a_complex_phase():
    size, theta, positions = 6, 500.0, np.array([[0, 1, 40, 300]])
    x = np.random.default_rng(8).normal(size=(1, 4, 2, size)).astype(np.float32)
    phase = np.exp(1j * positions[0][:, None] * theta ** (-np.arange(3) / 3))
    turned = (x[..., :3] + 1j * x[..., 3:]) * phase[None, :, None]
    actual = apply_rope(x, *rope_angles(positions, size, Rope(theta)))
    assert_close(actual, np.concatenate([turned.real, turned.imag], axis=-1), 1e-4)
    np.testing.assert_array_equal(actual[:, 0], x[:, 0])


def test_states_depend_on_relative_positions_alone(tiny_model, tiny_params):
    tokens, valid = random_tokens(10, B, T), np.ones((B, T), bool)
    near, _ = forward(tiny_model, tiny_params, tokens, arange_rows(B, T), valid)
    far, _ = forward(tiny_model, tiny_params, tokens, arange_rows(B, T) + 100, valid)
    stretched, _ = forward(tiny_model, tiny_params, tokens, arange_rows(B, T) * 3, valid)
    assert_close(far, near, 1e-4)
    assert not np.allclose(stretched, near, atol=1e-2)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rms_norm_is_that_of_numpy_in_f32(tiny_model, dtype):
    config = dataclasses.replace(tiny_model.config, norm_eps=1e-3)
    rng = np.random.default_rng(11)
    # Small enough for eps to matter, and large enough to overflow nothing but lose bf16 sums.
    x = jnp.asarray(rng.normal(size=(4, 16)) * [[1e-2], [1], [30], [1e3]], dtype)
    scale = rng.normal(size=16).astype(np.float32)
    actual = RMSNorm(config).apply({"params": {"scale": scale}}, x)
    x64 = np.asarray(x, np.float64)
    wanted = x64 / np.sqrt((x64**2).mean(axis=-1, keepdims=True) + 1e-3) * scale
    assert_close(actual, wanted)


def test_bf16_compute_keeps_parameters_gradients_and_logits_in_f32(tiny_model, tiny_params):
    model = Decoder(dataclasses.replace(tiny_model.config, dtype="bfloat16"))
    fresh = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    assert {x.dtype for x in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
    tokens = random_tokens(12, B, T)
    args = tokens, arange_rows(B, T), np.ones((B, T), bool)

    def loss(params, model):
        hidden, segment = forward(model, params, *args)
        logits = model.apply({"params": params}, hidden, method="unembed")
        return jax.nn.logsumexp(logits, axis=-1).sum(), (hidden, segment, logits)

    run = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    grads, (hidden, segment, logits) = run(tiny_params, model)
    assert logits.dtype == jnp.float32
    assert {x.dtype for x in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    assert hidden.dtype == segment.layers[0][0].dtype == jnp.bfloat16
    assert empty_segment(model.config, 1, 1).layers[0][1].dtype == jnp.bfloat16
    _, (_, _, exact) = run(tiny_params, tiny_model)
    assert 1e-5 < np.abs(logits - exact).max() < 0.15


def test_parameter_dtype_is_that_of_the_config(tiny_model):
    model = Decoder(dataclasses.replace(tiny_model.config, param_dtype="bfloat16"))
    shapes = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize("what", ["dots", "full"])
def test_remat_changes_neither_values_nor_gradients(tiny_model, tiny_params, what):
    remat = Decoder(dataclasses.replace(tiny_model.config, remat=what))
    args = random_tokens(13, B, T), arange_rows(B, T), np.ones((B, T), bool)

    def loss(params, model):
        hidden, _ = model.apply({"params": params}, *args)
        return jnp.sin(hidden).sum()

    grad = jax.jit(jax.value_and_grad(loss), static_argnums=1)
    value, gradient = grad(tiny_params, tiny_model)
    other_value, other_gradient = grad(tiny_params, remat)
    assert_close(other_value, value)
    jax.tree.map(assert_close, other_gradient, gradient)


def test_an_untied_head_is_used_and_the_embedding_is_not(tiny_model, tiny_params):
    model = Decoder(dataclasses.replace(tiny_model.config, tie_embeddings=False))
    rng = np.random.default_rng(14)
    hidden, head = (rng.normal(size=(n, 16)).astype(np.float32) for n in (2, 48))
    params = {**tiny_params, "head": head}
    logits = model.apply({"params": params}, hidden, method="unembed")
    assert_close(logits, hidden @ head.T)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_bias_is_added_and_its_gradient_is_summed_in_f32(tiny_model, dtype):
    """4,001 equal terms: bf16 has no such number."""

    class Biased(nn.Module):
        config = tiny_model.config

        @nn.compact
        def __call__(self, x):
            return _linear(self, "query", x, {"embed": 3}, {"heads": 2, "head_dim": 4}, True)

    rng = np.random.default_rng(15)
    weight, bias = (rng.normal(size=s).astype(np.float32) for s in ((3, 2, 4), (8,)))
    x = jnp.asarray(rng.normal(size=(4001, 3)), dtype)
    fresh = nn.unbox(Biased().init(jax.random.key(0), x))["params"]
    assert fresh["query_bias"].shape == (8,) and not fresh["query_bias"].any()

    def total(params):
        out = Biased().apply({"params": params}, x)
        return out.astype(jnp.float32).sum(), out

    gradients, out = jax.grad(total, has_aux=True)({"query": weight, "query_bias": bias})
    assert out.dtype == dtype
    wanted = np.tensordot(np.asarray(x, np.float32), weight, 1) + bias.reshape(2, 4)
    assert_close(np.asarray(out, np.float32), wanted, 1e-5 if dtype == "float32" else 2**-5)
    np.testing.assert_array_equal(gradients["query_bias"], np.full(8, 4001.0))


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("biased", [True, False])
def test_every_parameter_has_logical_axes_that_the_table_knows(tiny_model, tied, biased):
    config = dataclasses.replace(tiny_model.config, tie_embeddings=tied, qkv_bias=biased)
    model = Decoder(config)
    boxed = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    leaves = jax.tree.leaves(boxed, is_leaf=lambda x: isinstance(x, nn.Partitioned))
    assert len(leaves) == 2 * (9 + 3 * biased) + 2 + (not tied)
    for leaf in leaves:
        assert isinstance(leaf, nn.Partitioned)
        assert len(leaf.names) == leaf.value.ndim
        assert None not in leaf.names and set(leaf.names) <= set(LOGICAL_TO_MESH)
        used = [axis for axis in spec(*leaf.names) if axis]
        assert len(used) == len(set(used)), f"{leaf.names} cuts two axes over one mesh axis"


def test_an_empty_cache_has_a_slot_per_token_and_nothing_valid(tiny_model):
    cache = empty_segment(tiny_model.config, 3, 7)
    assert jax.tree.map(jnp.shape, cache.layers) == (((3, 2, 8, 7), (3, 2, 7, 8)),) * 2
    assert cache.valid.shape == (3, 7) and not cache.valid.any()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"num_kv_heads": 3}, "num_heads = 4 is not a multiple"), ({"head_dim": 7}, "must be even")],
)
def test_impossible_shapes_are_refused(tiny_model, change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny_model.config, **change)


def test_what_remat_makes_again_is_not_kept(tiny_model):
    """Bytes of activations that a further layer's forward pass keeps for its backward pass."""
    B, T, E = 3, 7, tiny_model.config.embed_dim
    tokens = np.ones((B, T), np.int32)

    def kept(remat, layers):
        model = Decoder(dataclasses.replace(tiny_model.config, num_layers=layers, remat=remat))
        arguments = tokens, np.tile(np.arange(T), (B, 1)), tokens > 0

        def forward(params):
            return model.apply({"params": params}, *arguments)[0]

        params = jax.eval_shape(lambda: nn.unbox(init_params(model, jax.random.key(0))))
        backward = jax.eval_shape(lambda params: jax.vjp(forward, params)[1], params)
        return sum(
            x.size * x.dtype.itemsize for x in jax.tree.leaves(backward) if x.shape[:1] == (B,)
        )

    none, dots, full = (kept(remat, 3) - kept(remat, 2) for remat in ("none", "dots", "full"))
    assert full == B * T * E * 4, "a layer's input, and nothing else"
    assert full < dots < none
