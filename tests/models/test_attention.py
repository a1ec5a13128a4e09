"""Attention over segments against NumPy, and packed rows against attention with a whole mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close, normal

from permix_jax.models.attention import Blocks, PackedLayout, attend, attend_packed


def test_attention_is_that_of_numpy():
    """4 rows in 2 prefixes, 6 query heads on 3 key/value heads, random masks."""
    rows, prefixes, queries, heads, kv_heads, size = 4, 2, 3, 6, 3, 4
    query, segments = np.asarray(normal(rows, queries, heads, size, seed=7)), []
    for owners, slots in ((prefixes, 5), (rows, 3)):
        mask = np.random.default_rng(slots).random((rows, queries, slots)) < 0.6
        mask[..., 0] = True
        keys = np.asarray(normal(owners, kv_heads, size, slots, seed=8))
        values = np.asarray(normal(owners, kv_heads, slots, size, seed=9))
        segments.append((keys, values, mask))

    wanted, scale = np.zeros_like(query), 0.7
    for b, t, h in np.ndindex(rows, queries, heads):
        keys, values = [], []
        for k, v, mask in segments:
            owner = b // (rows // len(k))
            keys.append(k[owner, h // (heads // kv_heads)][:, mask[b, t]].T)
            values.append(v[owner, h // (heads // kv_heads), mask[b, t]])
        weights = np.exp(np.concatenate(keys) @ query[b, t, h] * scale)
        wanted[b, t, h] = weights / weights.sum() @ np.concatenate(values)
    assert_close(attend(query, segments, scale), wanted)


@pytest.mark.parametrize("written", [0, 2, 3])
def test_blocks_are_read_as_far_as_they_are_written(written):
    """As one segment of the written keys; what is not written has no value that could be read."""
    rows, heads, size = 4, 6, 5
    query = normal(rows, 1, heads, 4, seed=7)
    keys, values = normal(rows, 3, 4, 3 * size, seed=8), normal(rows, 3, 3 * size, 4, seed=9)
    mask = jnp.asarray(np.random.default_rng(0).random((rows, 1, 3 * size)) < 0.6)
    # The first block is masked in row 0: its maximum is that of no key.
    mask = mask.at[0, :, :size].set(False)
    prompt = normal(2, 3, 4, 7, seed=1), normal(2, 3, 7, 4, seed=2), jnp.ones((rows, 1, 7), bool)
    end = written * size
    part = keys[..., :end], values[:, :, :end], mask[..., :end]
    wanted = attend(query, [prompt, part], 0.7)
    keys, values = keys.at[..., end:].set(jnp.nan), values.at[:, :, end:].set(jnp.nan)
    blocks = Blocks(keys, values, mask, size, jnp.int32(written))
    assert_close(attend(query, [prompt], 0.7, [blocks]), wanted)


@pytest.mark.parametrize("window", [0, 5])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_packed_rows_are_attended_as_with_its_whole_mask(window, dtype):
    """Value and gradients, against `attend`: two prompts in a row, of two completions each."""
    sequence = np.repeat([0, 1, 2, 3, 4, 5, -1], [5, 9, 1, 3, 8, 2, 4])
    prompt = np.repeat([0, 0, 0, 3, 3, 3, -1], [5, 9, 1, 3, 8, 2, 4])
    position = np.concatenate([np.arange(5), 5 + np.arange(9), [5], np.arange(3)])
    position = np.concatenate([position, 3 + np.arange(8), 3 + np.arange(2), np.zeros(4)])
    # Blocks of 4; the fifth begins in the second prompt, at token 15, and ends in its completion.
    reads = [[0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [3, 4], [3, 4, 5], [3, 4, 5, 6], [6, 7]]
    blocks = np.array([[*r, *[-1] * (5 - len(r))] for r in reads])

    def two(x):
        return jnp.asarray(np.stack([x, x]), jnp.int32)

    layout = PackedLayout(*map(two, (position, sequence, prompt, blocks)))

    own = two(sequence)
    distance = two(position)[:, :, None] - two(position)[:, None, :]
    mask = (own[:, None] == own[..., None]) | (own[:, None] == two(prompt)[..., None])
    mask &= (distance >= 0) & (own >= 0)[..., None]
    if window:
        mask &= distance < window

    keys, values = (normal(2, 3, 32, 4, dtype=dtype, seed=seed) for seed in (1, 2))
    arrays = normal(2, 32, 6, 4, dtype=dtype), keys, values
    cotangent = normal(2, 32, 6, 4, dtype=dtype, seed=3) * (own >= 0)[..., None, None]

    def run(attention):
        def total(*arrays):
            out = attention(*arrays)
            return (out * cotangent).astype(jnp.float32).sum(), jnp.where(cotangent != 0, out, 0)

        return jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(*arrays)

    got = run(lambda q, k, v: attend_packed(q, k, v, layout, window, 0.7))
    wanted = run(lambda q, k, v: attend(q, [(jnp.swapaxes(k, 2, 3), v, mask)], 0.7))
    assert {x.dtype for x in jax.tree.leaves((got, wanted))} == {jnp.dtype(dtype)}
    assert_close(got, wanted, 1e-5 if dtype == "float32" else 3e-2)


def test_memory_of_packed_rows_is_linear_in_tokens():
    """Bytes of temporaries of value and gradient: scores of whole rows would grow fourfold."""

    def temporaries(tokens: int) -> int:
        n = tokens // 16
        blocks = np.stack([np.arange(n) - 1, np.arange(n)], axis=1)[None].astype(np.int32)
        at = np.arange(tokens, dtype=np.int32)[None]
        layout = PackedLayout(at, at * 0, at * 0, blocks)
        query = jax.ShapeDtypeStruct((1, tokens, 2, 8), jnp.float32)
        keys = jax.ShapeDtypeStruct((1, 2, tokens, 8), jnp.float32)

        def loss(q, k, v):
            return attend_packed(q, k, v, layout, 0, 1.0).sum()

        compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(query, keys, keys).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    one, two, four = map(temporaries, (1024, 2048, 4096))
    assert (four - two) / (two - one) == pytest.approx(2, rel=0.05)
