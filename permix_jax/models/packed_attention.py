"""Attention in packed rows, by blocks: memory linear in tokens; axes as in `transformer.py`."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from permix_jax.models.operations import einsum

_MASKED = -1e30  # a score of what is not seen: finite, so that a query that sees nothing is too


class PackedLayout(NamedTuple):
    """Rows of T tokens that each hold several prompts, every one followed by its completions.

    positions: int32 [B, T], a token's place in its text: completions all go on from their prompt.
    sequence: int32 [B, T], which prompt or completion of the row a token belongs to; -1: padding.
    prompt: int32 [B, T], the sequence that a token's sequence continues; a prompt's own is itself.
    blocks: int32 [B, n, J], n dividing T: the blocks of T / n keys that each block of as many
      queries has to read, -1 behind the last of them.
    """

    positions: jax.Array
    sequence: jax.Array
    prompt: jax.Array
    blocks: jax.Array


@partial(jax.custom_vjp, nondiff_argnums=(5,))
def attend_packed(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    layout: PackedLayout,
    window: int,
    scale: float,
) -> jax.Array:
    """Softmax attention of each token to its sequence and its prompt, up to itself.

    Block by block, with a running maximum and sum (Milakov and Gimelshein 2018, arXiv 1805.02867);
    the backward pass makes the weights once more (FlashAttention: Dao et al. 2022, arXiv
    2205.14135). So memory is linear in T, and work in the blocks that a query has to read.

    Args:
      query: [B, T, H, D]; keys, values: [B, K, T, D], K dividing H.
      window: how many positions a token sees, itself included; 0: all. May be traced.
      scale: multiplies the scores.

    Returns:
      [B, T, H, D] in the query's dtype; arbitrary where a token is padding.
    """
    return _attend_packed(query, keys, values, layout, window, scale)[0]


def _attend_packed(query, keys, values, layout, window, scale):
    """The output [B, T, H, D]; and what it was made of, as the backward pass takes it: blocks of
    queries, keys and values, and the weights' common denominator, log sum exp of the scores."""
    queries = _query_blocks(query, keys.shape[1], layout)
    key_blocks, value_blocks = _key_blocks(keys, layout), _key_blocks(values, layout)

    def read(state, index):
        maximum, total, out = state
        scores = _scores(queries, _at(key_blocks, index), layout, index, window, scale)
        higher = jnp.maximum(maximum, scores.max(axis=-1))
        weights, rescale = jnp.exp(scores - higher[..., None]), jnp.exp(maximum - higher)
        part = einsum("bnkgqc,bnkcd->bnkgqd", weights.astype(query.dtype), _at(value_blocks, index))
        total = total * rescale + weights.sum(axis=-1)
        return higher, total, out * rescale[..., None] + part

    of_query = jnp.zeros(queries.shape[:-1], jnp.float32)
    start = of_query + _MASKED, of_query, jnp.zeros(queries.shape, jnp.float32)
    maximum, total, out = _over_blocks(read, start, layout)
    out = jnp.moveaxis(out / total[..., None], 4, 2).reshape(query.shape)
    return out.astype(query.dtype), (queries, key_blocks, value_blocks, maximum + jnp.log(total))


def _forward(query, keys, values, layout, window, scale):
    out, blocks = _attend_packed(query, keys, values, layout, window, scale)
    return out, (layout, window, out, *blocks)


def _backward(scale, kept, gradient):
    layout, window, out, queries, key_blocks, value_blocks, normaliser = kept
    K, dtype = key_blocks.shape[2], queries.dtype
    cotangent = _query_blocks(gradient, K, layout)
    # Of the softmax: the mean of a query's cotangent, under its weights.
    mean = _query_blocks(einsum("bthd,bthd->bth", gradient, out), K, layout)

    def read(sums, index):
        key, value = _at(key_blocks, index), _at(value_blocks, index)
        scores = _scores(queries, key, layout, index, window, scale)
        weights = jnp.exp(scores - normaliser[..., None])
        grad_weights = einsum("bnkgqd,bnkcd->bnkgqc", cotangent, value)
        grad_scores = (weights * (grad_weights - mean[..., None]) * scale).astype(dtype)
        grad_query = einsum("bnkgqc,bnkcd->bnkgqd", grad_scores, key)
        grad_key = einsum("bnkgqc,bnkgqd->bnkcd", grad_scores, queries)
        grad_value = einsum("bnkgqc,bnkgqd->bnkcd", weights.astype(dtype), cotangent)
        return (
            sums[0] + grad_query,
            _add(sums[1], index, grad_key),
            _add(sums[2], index, grad_value),
        )

    zeros = lambda x: jnp.zeros(x.shape, jnp.float32)  # noqa: E731
    start = zeros(queries), zeros(key_blocks), zeros(value_blocks)
    grad_query, grad_key, grad_value = _over_blocks(read, start, layout)
    grad_query = jnp.moveaxis(grad_query, 4, 2).reshape(gradient.shape).astype(dtype)
    (B, T, _, D) = gradient.shape
    whole = lambda x: jnp.swapaxes(x, 1, 2).reshape(B, K, T, D).astype(dtype)  # noqa: E731
    return grad_query, whole(grad_key), whole(grad_value), None, None


attend_packed.defvjp(_forward, _backward)


def _over_blocks(read, start, layout: PackedLayout):
    """`read(state, index)` from `start`, over the blocks [B, n] that queries read, up to the end of
    the longest list."""

    def step(state, index):
        return jax.lax.cond((index >= 0).any(), read, lambda state, _: state, state, index), None

    return jax.lax.scan(step, start, jnp.moveaxis(layout.blocks, -1, 0))[0]


def _scores(queries, keys, layout: PackedLayout, index, window: int, scale: float) -> jax.Array:
    """Scores f32 [B, n, K, G, q, c] of each block of queries with its block of keys."""
    in_blocks = lambda x: x.reshape(*index.shape, -1)  # noqa: E731
    own = lambda x: in_blocks(x)[..., :, None]  # noqa: E731
    read = lambda x: _at(in_blocks(x), index)[..., None, :]  # noqa: E731
    distance = own(layout.positions) - read(layout.positions)
    sequence = read(layout.sequence)
    seen = (sequence == own(layout.sequence)) | (sequence == own(layout.prompt))
    seen &= (distance >= 0) & (index >= 0)[..., None, None]
    seen &= (window == 0) | (distance < window)
    scores = einsum("bnkgqd,bnkcd->bnkgqc", queries, keys) * scale
    return jnp.where(seen[:, :, None, None], scores, _MASKED)


def _query_blocks(x: jax.Array, K: int, layout: PackedLayout) -> jax.Array:
    """[B, T, H, ...] as [B, n, K, G, q, ...]."""
    (B, _, H, *rest), n = x.shape, layout.blocks.shape[1]
    return jnp.moveaxis(x.reshape(B, n, -1, K, H // K, *rest), 2, 4)


def _key_blocks(x: jax.Array, layout: PackedLayout) -> jax.Array:
    """[B, K, T, D] as [B, n, K, c, D]."""
    (B, K, _, D), n = x.shape, layout.blocks.shape[1]
    return jnp.swapaxes(x.reshape(B, K, n, -1, D), 1, 2)


def _at(blocks: jax.Array, index: jax.Array) -> jax.Array:
    """Blocks index [B, n] of blocks [B, n, ...]; any block for index -1."""
    return jax.vmap(lambda blocks, i: blocks[i])(blocks, index)


def _add(sums: jax.Array, index: jax.Array, parts: jax.Array) -> jax.Array:
    """Adds parts [B, n, ...] to the blocks index [B, n] of sums; index -1 adds nothing."""
    index = jnp.where(index < 0, index.shape[1], index)
    return jax.vmap(lambda x, i, part: x.at[i].add(part, mode="drop"))(sums, index, parts)
