"""Attention over whole segments of keys, and in packed rows; axes as in `transformer.py`.

In packed rows it goes block by block. A row of T tokens is cut into n blocks. A block of queries
reads the blocks of keys that its `PackedLayout` lists, with a running maximum and sum (Milakov and
Gimelshein 2018, arXiv 1805.02867). The backward pass computes the weights again (FlashAttention:
Dao et al. 2022, arXiv 2205.14135). So memory is linear in T, and work is linear in the number of
listed blocks.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp

from permix_jax.core.sharding import platform
from permix_jax.models.operations import einsum

MASKED = -1e30  # a masked score; finite, so that a query that sees nothing has finite weights


class Blocks(NamedTuple):
    """Keys that are read block by block, as far as they are written.

    keys, values, mask: as a segment of `attend`, of U = B rows; C is a multiple of `size`.
    size: keys of a block.
    written: int32 scalar, how many blocks are read, the first ones. A block costs nothing before.
    """

    keys: jax.Array
    values: jax.Array
    mask: jax.Array
    size: int
    written: jax.Array

    def block(self, i: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Block i as a segment of `attend`."""
        axes = (self.keys, 3), (self.values, 2), (self.mask, 2)
        at = i * self.size
        return tuple(jax.lax.dynamic_slice_in_dim(x, at, self.size, axis) for x, axis in axes)


@jax.named_scope("attend")
def attend(
    query: jax.Array,
    segments: list[tuple[jax.Array, jax.Array, jax.Array]],
    scale: float,
    blocks: Sequence[Blocks] = (),
) -> jax.Array:
    """Softmax attention over the union of several segments of keys.

    Args:
      query: [B, T, H, D].
      segments: (keys [U, K, D, C], values [U, K, C, D], mask bool [B, T, C]) with U dividing
        B and K dividing H. Row b of the query reads row b // (B / U) of the segment, which is
        never copied per row.
      scale: multiplies the scores.
      blocks: further keys. They are read in loops, which have no reverse derivative.

    Returns:
      [B, T, H, D] in the query's dtype; 0 for a query that sees no key.
    """
    B, T, H, D = query.shape
    scores = [_whole_scores(query, keys, mask, scale) for keys, _, mask in segments]
    # One softmax: the segments' sums of exponentials, over one common maximum, are added.
    highest = reduce(jnp.maximum, [score.max(axis=-1, initial=-jnp.inf) for score in scores])
    highest = jax.lax.stop_gradient(jnp.maximum(highest, -1e30))
    total, out = 0, 0
    for (_, values, _), score in zip(segments, scores, strict=True):
        weights = jnp.exp(score - highest[..., None])
        total += weights.sum(axis=-1)
        out += _weighted(weights.astype(query.dtype), values)

    def read(part: Blocks, i, state):
        keys, values, mask = part.block(i)
        scores = _whole_scores(query, keys, mask, scale)
        return _added(state, scores, lambda x: _weighted(x.astype(query.dtype), values))

    for part in blocks:
        start = highest, total, out
        highest, total, out = jax.lax.fori_loop(0, part.written, partial(read, part), start)
    out /= jnp.maximum(total, 1e-30)[..., None]
    return jnp.moveaxis(out, 3, 1).reshape(B, T, H, D).astype(query.dtype)


def _added(state: tuple, scores: jax.Array, weighted: Callable) -> tuple:
    """(maximum, total, output) of a softmax with the scores [..., C] of a further block of keys.

    maximum, total: f32 [...], of the scores and of the sum of their exponentials over it; output:
    f32 [..., D]. `weighted` sums the block's values by weights f32 [..., C].
    """
    maximum, total, out = state
    higher = jnp.maximum(maximum, scores.max(axis=-1))
    weights, rescale = jnp.exp(scores - higher[..., None]), jnp.exp(maximum - higher)
    total = total * rescale + weights.sum(axis=-1)
    return higher, total, out * rescale[..., None] + weighted(weights)


def _weighted(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Sums f32 [B, K, G, T, D] of values [U, K, C, D], by weights [B, K, G, T, C]."""
    (B, _, G, T, C), (U, K, _, D) = weights.shape, values.shape
    part = einsum("uskgtc,ukcd->uksgtd", weights.reshape(U, B // U, K, G, T, C), values)
    return jnp.moveaxis(part, 1, 2).reshape(B, K, G, T, D)


def _whole_scores(query: jax.Array, keys: jax.Array, mask: jax.Array, scale: float) -> jax.Array:
    """Scores f32 [B, K, G, T, C]; -inf where the mask is False.

    The queries that read the same keys form one matrix [S * G * T, D], which is multiplied by the
    keys' matrix [D, C]: one batched matmul, which transposes no keys.
    """
    (B, T, H, D), (U, K, _, C) = query.shape, keys.shape
    query = jnp.einsum("ustkgd->uksgtd", query.reshape(U, B // U, T, K, H // K, D))
    scores = einsum("uksgtd,ukdc->uksgtc", query, keys)
    scores = jnp.moveaxis(scores, 1, 2).reshape(B, K, H // K, T, C) * scale
    return jnp.where(mask[:, None, None], scores, -jnp.inf)


# ---- packed rows ----------------------------------------------------------------------------


class PackedLayout(NamedTuple):
    """What the tokens of packed rows see. A row holds prompts, each followed by its completions.

    positions: int32 [B, T], a token's place in its text; all completions of a prompt start at the
      position after it.
    sequence: int32 [B, T], the number of the token's prompt or completion; -1 for padding.
    prompt: int32 [B, T], the number of the prompt that the token's sequence continues, or is.
    blocks: int32 [B, n, J], n dividing T: which blocks of T / n keys each block of T / n queries
      has to read; -1 fills the list up.
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
    """Softmax attention of each token to its own sequence and to its prompt, up to itself.

    Args:
      query: [B, T, H, D]; keys, values: [B, K, T, D], K dividing H.
      window: how many positions a token sees, itself included; 0: all. May be traced.
      scale: multiplies the scores.

    Returns:
      [B, T, H, D] in the query's dtype; arbitrary where a token is padding.
    """
    return _attend(query, keys, values, layout, window, scale)[0]


@jax.named_scope("attend")
def _attend(query, keys, values, layout, window, scale):
    """(output [B, T, H, D], (blocks of queries, of keys, of values, log-sum-exp of the scores))."""
    queries = _query_blocks(query, keys.shape[1], layout)
    key_blocks, value_blocks = _key_blocks(keys, layout), _key_blocks(values, layout)

    def read(state, index):
        scores = _scores(queries, _take(key_blocks, index), layout, index, window, scale)
        values = _take(value_blocks, index)
        products = partial(einsum, "bnkgqc,bnkcd->bnkgqd")
        return _added(state, scores, lambda x: products(x.astype(query.dtype), values))

    zero = jnp.zeros(queries.shape[:-1], jnp.float32)
    start = zero + MASKED, zero, jnp.zeros(queries.shape, jnp.float32)
    maximum, total, out = _over_blocks(read, start, layout)
    total = jnp.maximum(total, 1e-30)  # 0 where no row holds anything, as 0 / 0 would be NaN
    out = jnp.moveaxis(out / total[..., None], 4, 2).reshape(query.shape)
    return out.astype(query.dtype), (queries, key_blocks, value_blocks, maximum + jnp.log(total))


def _forward(query, keys, values, layout, window, scale):
    out, blocks = _attend(query, keys, values, layout, window, scale)
    return out, (layout, window, out, *blocks)


@jax.named_scope("attend")
def _backward(scale, kept, cotangent):
    layout, window, out, queries, key_blocks, value_blocks, log_sum_exp = kept
    K, dtype = key_blocks.shape[2], queries.dtype
    grad_out = _query_blocks(cotangent, K, layout)
    # The softmax's gradient by a score is its weight times (grad_weight - mean of grad_weights);
    # that mean, under the weights, is the product of the output with its cotangent.
    mean = _query_blocks(einsum("bthd,bthd->bth", cotangent, out), K, layout)

    def read(sums, index):
        key, value = _take(key_blocks, index), _take(value_blocks, index)
        scores = _scores(queries, key, layout, index, window, scale)
        weights = jnp.exp(scores - log_sum_exp[..., None])
        grad_weights = einsum("bnkgqd,bnkcd->bnkgqc", grad_out, value)
        grad_scores = (weights * (grad_weights - mean[..., None]) * scale).astype(dtype)
        grad_query = einsum("bnkgqc,bnkcd->bnkgqd", grad_scores, key)
        grad_key = einsum("bnkgqc,bnkgqd->bnkcd", grad_scores, queries)
        grad_value = einsum("bnkgqc,bnkgqd->bnkcd", weights.astype(dtype), grad_out)
        grad_queries, grad_keys, grad_values = sums
        grad_queries += grad_query
        grad_keys = _add(grad_keys, index, grad_key)
        return grad_queries, grad_keys, _add(grad_values, index, grad_value)

    start = [jnp.zeros(x.shape, jnp.float32) for x in (queries, key_blocks, value_blocks)]
    grad_query, *grad_keys_values = _over_blocks(read, tuple(start), layout)
    grad_query = jnp.moveaxis(grad_query, 4, 2).reshape(cotangent.shape).astype(dtype)
    (B, T, _, D) = cotangent.shape
    rows = [jnp.swapaxes(x, 1, 2).reshape(B, K, T, D).astype(dtype) for x in grad_keys_values]
    return grad_query, *rows, None, None


attend_packed.defvjp(_forward, _backward)


def _over_blocks(read, start, layout: PackedLayout):
    """Calls state = read(state, index) for each entry of the block lists, from the state `start`.

    index [B, n] is which block of keys each block of queries reads. It ends with the longest list,
    but on a GPU, where a condition is read by the host: there all entries are read, and the masks
    hide those of -1.
    """

    def step(state, index):
        if platform() == "gpu":
            return read(state, index), None
        return jax.lax.cond((index >= 0).any(), read, lambda state, _: state, state, index), None

    return jax.lax.scan(step, start, jnp.moveaxis(layout.blocks, -1, 0))[0]


def _scores(queries, keys, layout: PackedLayout, index, window: int, scale: float) -> jax.Array:
    """Scores f32 [B, n, K, G, q, c] of each block of queries with its block of keys."""

    def of_queries(x):
        return x.reshape(*index.shape, -1, 1)

    def of_keys(x):
        return _take(x.reshape(*index.shape, -1), index)[..., None, :]

    distance = of_queries(layout.positions) - of_keys(layout.positions)
    sequence = of_keys(layout.sequence)
    seen = sequence == of_queries(layout.sequence)
    seen |= sequence == of_queries(layout.prompt)
    seen &= (distance >= 0) & (index >= 0)[..., None, None]
    seen &= (window == 0) | (distance < window)
    scores = einsum("bnkgqd,bnkcd->bnkgqc", queries, keys) * scale
    return jnp.where(seen[:, :, None, None], scores, MASKED)


def _query_blocks(x: jax.Array, K: int, layout: PackedLayout) -> jax.Array:
    """[B, T, H, ...] as [B, n, K, G, q, ...]."""
    (B, _, H, *rest), n = x.shape, layout.blocks.shape[1]
    return jnp.moveaxis(x.reshape(B, n, -1, K, H // K, *rest), 2, 4)


def _key_blocks(x: jax.Array, layout: PackedLayout) -> jax.Array:
    """[B, K, T, D] as [B, n, K, c, D]."""
    (B, K, _, D), n = x.shape, layout.blocks.shape[1]
    return jnp.swapaxes(x.reshape(B, K, n, -1, D), 1, 2)


def _take(blocks: jax.Array, index: jax.Array) -> jax.Array:
    """The blocks at index [B, n] of blocks [B, n, ...]; any block where the index is -1."""
    return jax.vmap(lambda blocks, i: blocks[i])(blocks, index)


def _add(sums: jax.Array, index: jax.Array, parts: jax.Array) -> jax.Array:
    """Adds parts [B, n, ...] to the blocks of sums at index [B, n]; none where the index is -1."""
    index = jnp.where(index < 0, index.shape[1], index)
    return jax.vmap(lambda x, i, part: x.at[i].add(part, mode="drop"))(sums, index, parts)
