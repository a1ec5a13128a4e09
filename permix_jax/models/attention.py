"""Attention over segments of keys; axes as in `transformer.py`."""

import jax
import jax.numpy as jnp


def attend(
    query: jax.Array, segments: list[tuple[jax.Array, jax.Array, jax.Array]], scale: float
) -> jax.Array:
    """Softmax attention over the union of several segments of keys.

    Args:
      query: [B, T, H, D].
      segments: (keys [U, C, K, D], values [U, C, K, D], mask bool [B, T, C]) with U dividing
        B and K dividing H. Row b of the query reads row b // (B / U) of the segment, which is
        never copied per row.
      scale: multiplies the scores.

    Returns:
      [B, T, H, D] in the query's dtype.
    """
    B, T, H, D = query.shape
    scores = []
    for keys, _, mask in segments:
        U, C, K, _ = keys.shape
        grouped = query.reshape(U, B // U, T, K, H // K, D)
        score = jnp.einsum("ustkgd,uckd->uskgtc", grouped, keys, preferred_element_type=jnp.float32)
        score = score.reshape(B, K, H // K, T, C) * scale
        scores.append(jnp.where(mask[:, None, None], score, -1e30))
    # One softmax over the concatenated keys: cheaper to read than merging by log-sum-exp, and
    # the scores, unlike the keys, exist once per row anyway.
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(query.dtype)

    out, start = 0, 0
    for keys, values, _ in segments:
        U, C, K, _ = keys.shape
        part = weights[..., start : start + C].reshape(U, B // U, K, H // K, T, C)
        out += jnp.einsum("uskgtc,uckd->ustkgd", part, values).reshape(B, T, H, D)
        start += C
    return out
