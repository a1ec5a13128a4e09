"""Attention over segments of keys; axes as in `transformer.py`."""

from functools import reduce

import jax
import jax.numpy as jnp

from permix_jax.models.operations import einsum


def attend(
    query: jax.Array, segments: list[tuple[jax.Array, jax.Array, jax.Array]], scale: float
) -> jax.Array:
    """Softmax attention over the union of several segments of keys.

    Args:
      query: [B, T, H, D].
      segments: (keys [U, K, D, C], values [U, K, C, D], mask bool [B, T, C]) with U dividing
        B and K dividing H. Row b of the query reads row b // (B / U) of the segment, which is
        never copied per row.
      scale: multiplies the scores.

    Returns:
      [B, T, H, D] in the query's dtype; 0 for a query that sees no key.
    """
    B, T, H, D = query.shape
    scores = [_scores(query, keys, mask, scale) for keys, _, mask in segments]
    # One softmax: the segments' sums of exponentials, over one common maximum, are added.
    highest = reduce(jnp.maximum, [score.max(axis=-1, initial=-jnp.inf) for score in scores])
    highest = jax.lax.stop_gradient(jnp.maximum(highest, -1e30))[..., None]
    total, out = 0, 0
    for (_, values, _), score in zip(segments, scores, strict=True):
        weights = jnp.exp(score - highest)
        total += weights.sum(axis=-1)
        U, K, C, _ = values.shape
        weights = weights.astype(query.dtype).reshape(U, B // U, K, H // K, T, C)
        part = einsum("uskgtc,ukcd->uksgtd", weights, values)
        out += jnp.moveaxis(part, 1, 2).reshape(B, K, H // K, T, D)
    out /= jnp.maximum(total, 1e-30)[..., None]
    return jnp.moveaxis(out, 3, 1).reshape(B, T, H, D).astype(query.dtype)


def _scores(query: jax.Array, keys: jax.Array, mask: jax.Array, scale: float) -> jax.Array:
    """Scores f32 [B, K, G, T, C]; -inf where the mask is False.

    The queries that read the same keys form one matrix [S * G * T, D]. Times the keys' matrix
    [D, C] it is the scores: one batched matmul, which transposes no keys.
    """
    (B, T, H, D), (U, K, _, C) = query.shape, keys.shape
    query = jnp.einsum("ustkgd->uksgtd", query.reshape(U, B // U, T, K, H // K, D))
    scores = einsum("uksgtd,ukdc->uksgtc", query, keys)
    scores = jnp.moveaxis(scores, 1, 2).reshape(B, K, H // K, T, C) * scale
    return jnp.where(mask[:, None, None], scores, -jnp.inf)
