"""Attention in packed rows against attention with the whole mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from permix_jax.models.attention import PackedLayout, attend, attend_packed


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

    own, keys = (two(x) for x in (sequence, sequence))
    distance = two(position)[:, :, None] - two(position)[:, None, :]
    mask = (keys[:, None] == own[..., None]) | (keys[:, None] == two(prompt)[..., None])
    mask &= (distance >= 0) & (own >= 0)[..., None]
    if window:
        mask &= distance < window

    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), dtype)

    arrays = normal(2, 32, 6, 4), normal(2, 3, 32, 4), normal(2, 3, 32, 4)
    cotangent = normal(2, 32, 6, 4) * (own >= 0)[..., None, None]

    def run(attention):
        def total(*arrays):
            out = attention(*arrays)
            return (out * cotangent).astype(jnp.float32).sum(), jnp.where(cotangent != 0, out, 0)

        return jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(*arrays)

    got = run(lambda q, k, v: attend_packed(q, k, v, layout, window, 0.7))
    wanted = run(lambda q, k, v: attend(q, [(jnp.swapaxes(k, 2, 3), v, mask)], 0.7))
    tolerance = 1e-5 if dtype == "float32" else 3e-2
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert mine.dtype == theirs.dtype
        mine, theirs = np.asarray(mine, np.float32), np.asarray(theirs, np.float32)
        np.testing.assert_allclose(mine, theirs, atol=tolerance * np.abs(theirs).max(), rtol=0)


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
