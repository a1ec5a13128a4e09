"""Attention against NumPy."""

import numpy as np

from permix_jax.models.attention import attend


def test_attention_is_that_of_numpy():
    """4 rows in 2 prefixes, 6 query heads on 3 key/value heads, random masks."""
    rows, prefixes, queries, heads, kv_heads, size = 4, 2, 3, 6, 3, 4
    rng = np.random.default_rng(7)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    query = normal(rows, queries, heads, size)
    segments = []
    for owners, slots in ((prefixes, 5), (rows, 3)):
        mask = rng.random((rows, queries, slots)) < 0.6
        mask[..., 0] = True
        keys = normal(owners, kv_heads, size, slots)
        segments.append((keys, normal(owners, kv_heads, slots, size), mask))

    wanted, scale = np.zeros_like(query), 0.7
    for b, t, h in np.ndindex(rows, queries, heads):
        keys, values = [], []
        for k, v, mask in segments:
            owner = b // (rows // len(k))
            keys.append(k[owner, h // (heads // kv_heads)][:, mask[b, t]].T)
            values.append(v[owner, h // (heads // kv_heads), mask[b, t]])
        weights = np.exp(np.concatenate(keys) @ query[b, t, h] * scale)
        wanted[b, t, h] = weights / weights.sum() @ np.concatenate(values)
    np.testing.assert_allclose(attend(query, segments, scale), wanted, rtol=1e-5, atol=1e-5)
