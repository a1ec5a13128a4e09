"""Attention in packed rows as Pallas kernels for TPUs; axes as in `transformer.py`.

A row of T tokens is cut into n tiles. A kernel visits pairs of a tile of queries and a tile of
keys: those that hold tokens which see each other, and no other. Which pairs these are is data, so
their list is an operand that is there before the kernel begins (a scalar prefetch), and the grid
ends with the longest list. The scores of a pair stay in the core's memory (FlashAttention: Dao et
al. 2022, arXiv 2205.14135).

All kernels compute scores with keys along the rows and queries along the columns. So what belongs
to a query (the log-sum-exp, its position) is a row vector, and is stored without padding.
"""

from collections.abc import Callable
from functools import partial
from math import prod
from typing import NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from permix_jax.core.sharding import constrain, shards, spec
from permix_jax.models.attention import MASKED, PackedLayout
from permix_jax.models.operations import einsum, precision

_TILES = (512, 256, 128)  # tokens; a TPU's registers are 128 wide
_HEAD_SIZES = (64, 128, 256)
_MOST_BYTES = 2**20  # of a tile of queries of one key/value head
_MOST_TILES = 128  # of a row, whose pairs must fit the memory of scalars
_VMEM = 64 * 2**20  # bytes; more than any kernel here takes


@flax.struct.dataclass
class Visits:
    """Which pairs of tiles the kernels visit, and what each token sees in them.

    by_query: int32 [B, S], tile of queries * n + tile of keys, in ascending order.
    by_key: int32 [B, S], tile of keys * n + tile of queries, in ascending order.
    count: int32 [B], how many of a row's S entries are pairs; they are the first ones.
    marks: int32 [B, n, 8, T / n], of each token its sequence, prompt and position; the rest is 0.
    window: int32 [1], how many positions a token sees, itself included; 0: all.
    most: a bound of the visits of a row. It decides nothing but what the planner is told.
    """

    by_query: jax.Array
    by_key: jax.Array
    count: jax.Array
    marks: jax.Array
    window: jax.Array
    most: float = flax.struct.field(pytree_node=False)


def tile_of(layout: PackedLayout, group: int, head_dim: int, dtype) -> int:
    """Tokens of a tile; 0 if the kernels do not take such rows or heads.

    `group`: query heads of a key/value head.
    """
    T = layout.positions.shape[1]
    block, size = T // layout.blocks.shape[1], group * head_dim * jnp.dtype(dtype).itemsize
    divides = (t for t in _TILES if not T % t and not t % block and T // t <= _MOST_TILES)
    fits = (t for t in divides if t * size <= _MOST_BYTES)
    return next(fits, 0) if head_dim in _HEAD_SIZES else 0


def visits(layout: PackedLayout, window: int | jax.Array, tile: int) -> Visits:
    """The pairs of tiles that hold a pair of blocks which the layout lists and the window spans.

    It is the same for all layers with one window, so a model computes it once for them.
    """
    (B, T), blocks = layout.positions.shape, layout.blocks.shape[1]
    n = T // tile
    listed = jax.nn.one_hot(layout.blocks, blocks, dtype=jnp.int32).sum(axis=2) > 0
    # The nearest that a query of one block and a key of another can be, by their positions.
    first = layout.positions.reshape(B, blocks, -1).min(axis=-1)
    last = layout.positions.reshape(B, blocks, -1).max(axis=-1)
    listed &= (first[:, :, None] - last[:, None, :] < window) | (window == 0)
    paired = listed.reshape(B, n, blocks // n, n, blocks // n).any(axis=(2, 4))
    # No query sees a later tile of its row. Each tile is read and written once at least, so that
    # nothing is left as it was in memory.
    paired = jnp.tril(paired) | jnp.eye(n, dtype=bool)

    def in_order(paired: jax.Array) -> jax.Array:
        numbers = partial(jnp.flatnonzero, size=n * (n + 1) // 2)
        return jax.vmap(numbers)(paired).astype(jnp.int32)

    tokens = jnp.stack([layout.sequence, layout.prompt, layout.positions], axis=1)
    marks = jnp.pad(tokens, ((0, 0), (0, 5), (0, 0))).reshape(B, 8, n, tile)
    return Visits(
        in_order(paired),
        in_order(jnp.swapaxes(paired, 1, 2)),
        paired.sum(axis=(1, 2), dtype=jnp.int32),
        jnp.swapaxes(marks, 1, 2),
        jnp.asarray(window, jnp.int32).reshape(1),
        most=n * min((n + 1) / 2, layout.blocks.shape[2] * n / blocks + 1),
    )


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def attend_tiles(
    query: jax.Array,
    keys: jax.Array,
    values: jax.Array,
    seen: Visits,
    scale: float,
    interpret: bool = False,
) -> jax.Array:
    """As `attention.attend_packed`, with f32 sums whatever the dtype; T a multiple of 128.

    On a mesh each device computes its own rows and key/value heads. `interpret` runs the kernels
    on any platform, slowly.
    """
    return _forward(query, keys, values, seen, scale, interpret)[0]


@jax.named_scope("attend")
def _forward(query, keys, values, seen, scale, interpret):
    queries = _by_head(query, keys.shape[1])
    run = partial(_forward_kernels, scale=scale, interpret=interpret)
    out, log_sum_exp = _on_mesh(run, seen, (queries, keys, values), 2)
    out = _by_token(out)
    return out, (queries, keys, values, seen, out, log_sum_exp)


@jax.named_scope("attend")
def _backward(scale, interpret, kept, cotangent):
    queries, keys, values, seen, out, log_sum_exp = kept
    # See `attention._backward` for this mean.
    mean = _by_head(einsum("bthd,bthd->bth", cotangent, out), keys.shape[1])
    arrays = queries, keys, values, _by_head(cotangent, keys.shape[1]), log_sum_exp, mean
    run = partial(_backward_kernels, scale=scale, interpret=interpret)
    grad_query, grad_keys, grad_values = _on_mesh(run, seen, arrays, 3)
    return _by_token(grad_query), grad_keys, grad_values, None


attend_tiles.defvjp(_forward, _backward)


def _by_head(x: jax.Array, K: int) -> jax.Array:
    """[B, T, H, ...] as [B, K, G, T, ...]."""
    B, T, H, *rest = x.shape
    x = jnp.moveaxis(x.reshape(B, T, K, H // K, *rest), 1, 3)
    return constrain(x, "batch", "kv_heads", *[None] * (x.ndim - 2))


def _by_token(x: jax.Array) -> jax.Array:
    """[B, K, G, T, D] as [B, T, H, D]."""
    B, K, G, T, D = x.shape
    return jnp.moveaxis(x, 3, 1).reshape(B, T, K * G, D)


def _on_mesh(run: Callable, seen: Visits, arrays: tuple, outputs: int):
    """run(seen, *arrays), by each device on its rows and its key/value heads."""
    if shards("batch") * shards("kv_heads") == 1:
        return run(seen, *arrays)
    by_row, by_head = spec("batch"), spec("batch", "kv_heads")
    where = Visits(by_row, by_row, by_row, by_row, spec(), seen.most)
    run = jax.shard_map(
        run,
        in_specs=(where, *[by_head] * len(arrays)),
        out_specs=(by_head,) * outputs,
        check_vma=False,
    )
    return run(seen, *arrays)


# ---- calls of the kernels -------------------------------------------------------------------


class _Array(NamedTuple):
    """An array of which a kernel sees one tile of one row and key/value head at once."""

    array: jax.Array | jax.ShapeDtypeStruct
    axis: int  # of tokens


class _Kernel(NamedTuple):
    """A kernel, and what a visit of it takes."""

    run: Callable
    scratch: list[tuple[int, ...]]  # shapes of f32 arrays that last from one visit to the next
    products: int  # how many a visit computes, of a tile of scores and a head


_of_queries = partial(_Array, axis=3)  # [B, K, G, T, ...]
_of_keys = partial(_Array, axis=2)  # [B, K, T, D]


def _forward_kernels(seen, queries, keys, values, scale, interpret):
    """(output as `queries`, log-sum-exp of the scores f32 [B, K, G, T])."""
    G, D, tile = queries.shape[2], queries.shape[4], seen.marks.shape[3]
    inputs = [_of_queries(queries), _of_keys(keys), _of_keys(values)]
    sums = jax.ShapeDtypeStruct(queries.shape[:4], jnp.float32)
    outputs, scratch = [inputs[0], _of_queries(sums)], [(G, tile), (G, tile), (G, D, tile)]
    kernel = _Kernel(partial(_forward_kernel, scale=scale), scratch, products=2)
    return _call(kernel, seen, inputs, outputs, interpret)


def _backward_kernels(seen, *arrays, scale, interpret):
    """The gradients of queries, keys and values, each in its dtype.

    `arrays`: queries, keys, values, the cotangent as `queries`, log-sum-exp and mean.
    """
    G, D, tile = arrays[0].shape[2], arrays[0].shape[4], seen.marks.shape[3]
    queries, keys, values = _of_queries(arrays[0]), *map(_of_keys, arrays[1:3])
    inputs = [queries, keys, values, *map(_of_queries, arrays[3:])]
    kernel = _Kernel(partial(_query_kernel, scale=scale), [(G, D, tile)], products=3)
    (grad_query,) = _call(kernel, seen, inputs, [queries], interpret)
    kernel = _Kernel(partial(_key_kernel, scale=scale), [(tile, D)] * 2, products=4)
    by_key = seen.replace(by_query=None)
    return grad_query, *_call(kernel, by_key, inputs, [keys, values], interpret)


def _call(kernel: _Kernel, seen: Visits, inputs, outputs, interpret: bool):
    """Runs a kernel over rows, key/value heads and visits.

    Without `by_query`, the pairs of `seen` are visited by key.
    """
    pairs = seen.by_key if seen.by_query is None else seen.by_query
    first_axis = 2 if seen.by_query is None else 3
    (B, n, _, tile), K = seen.marks.shape, inputs[0].array.shape[1]

    def tile_at(b, s, pairs, counts, axis):
        """Which tile along an axis is visited; behind the last visit it stays that of the last."""
        which = jax.lax.div if axis == first_axis else jax.lax.rem
        return which(pairs[b, jnp.minimum(s, counts[b] - 1)], n)

    def block(x: _Array) -> pl.BlockSpec:
        shape = [None, None, *x.array.shape[2:]]
        shape[x.axis] = tile

        def place(b, k, s, pairs, counts, _):
            at = [b, k, *[0] * (len(shape) - 2)]
            at[x.axis] = tile_at(b, s, pairs, counts, x.axis)
            return tuple(at)

        return pl.BlockSpec(tuple(shape), place)

    def marks(axis: int) -> pl.BlockSpec:
        def place(b, k, s, pairs, counts, _):
            return b, tile_at(b, s, pairs, counts, axis), 0, 0

        return pl.BlockSpec((None, None, 8, tile), place)

    grid = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=3,
        grid=(B, K, seen.count.max()),
        in_specs=[marks(3), marks(2), *map(block, inputs)],
        out_specs=[block(x) for x in outputs],
        scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in kernel.scratch],
    )
    arrays = [x.array for x in inputs]
    return pl.pallas_call(
        partial(kernel.run, n=n),
        out_shape=[jax.ShapeDtypeStruct(x.array.shape, x.array.dtype) for x in outputs],
        grid_spec=grid,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=_VMEM
        ),
        cost_estimate=_cost(seen, inputs, outputs, first_axis, kernel.products),
        interpret=interpret,
        name=kernel.run.func.__name__.strip("_"),
    )(pairs, seen.count, seen.window, seen.marks, seen.marks, *arrays)


def _cost(seen: Visits, inputs, outputs, first_axis: int, products: int) -> pl.CostEstimate:
    """What a kernel takes with `seen.most` visits of each row."""
    (B, n, _, tile), (_, K, G, _, D) = seen.marks.shape, inputs[0].array.shape
    visited, scores = B * K * seen.most, G * tile**2

    def size(x: _Array) -> float:
        """Bytes: the first tile of a pair is read or written once, the second at every visit."""
        whole = prod(x.array.shape) * x.array.dtype.itemsize
        return whole * (1 if x.axis == first_axis else seen.most / n)

    return pl.CostEstimate(
        flops=int(products * 2 * D * scores * visited),
        transcendentals=int(scores * visited),
        bytes_accessed=int(sum(map(size, [*inputs, *outputs]))),
    )


# ---- the kernels ----------------------------------------------------------------------------


def _forward_kernel(pairs, counts, window, *refs, scale, n):
    query_marks, key_marks, query, keys, values, out, log_sum_exp, maximum, total, sums = refs
    live, first, last = _visit(pairs, counts, n)

    @pl.when(first)
    def _():
        maximum[...] = jnp.full(maximum.shape, MASKED, jnp.float32)
        total[...] = jnp.zeros(total.shape, jnp.float32)
        sums[...] = jnp.zeros(sums.shape, jnp.float32)

    @pl.when(live)
    def _():
        seen = _seen(query_marks[...], key_marks[...], window[0])
        key, value = keys[...], values[...].T
        for g in range(query.shape[0]):
            row = slice(g, g + 1)
            scores = jnp.where(seen, _product(key, query[g], 1, 1) * scale, MASKED)
            higher = jnp.maximum(maximum[row], scores.max(axis=0, keepdims=True))
            weights, rescale = jnp.exp(scores - higher), jnp.exp(maximum[row] - higher)
            total[row] = total[row] * rescale + weights.sum(axis=0, keepdims=True)
            sums[g] = sums[g] * rescale + _product(value, weights.astype(value.dtype), 1, 0)
            maximum[row] = higher

    @pl.when(last)
    def _():
        for g in range(query.shape[0]):
            out[g] = (sums[g] / total[g : g + 1]).T.astype(out.dtype)
        log_sum_exp[...] = maximum[...] + jnp.log(total[...])


def _query_kernel(pairs, counts, window, *refs, scale, n):
    query_marks, key_marks, *inputs, out, sums = refs
    query, keys, *_ = inputs
    live, first, last = _visit(pairs, counts, n)

    @pl.when(first)
    def _():
        sums[...] = jnp.zeros(sums.shape, jnp.float32)

    @pl.when(live)
    def _():
        seen, key = _seen(query_marks[...], key_marks[...], window[0]), keys[...].T
        for g in range(query.shape[0]):
            _, grad_scores = _score_gradients(seen, inputs, g, scale)
            sums[g] += _product(key, grad_scores, 1, 0)

    @pl.when(last)
    def _():
        for g in range(query.shape[0]):
            out[g] = sums[g].T.astype(out.dtype)


def _key_kernel(pairs, counts, window, *refs, scale, n):
    query_marks, key_marks, *inputs, grad_keys, grad_values, key_sums, value_sums = refs
    query, _, _, cotangent, *_ = inputs
    live, first, last = _visit(pairs, counts, n)

    @pl.when(first)
    def _():
        key_sums[...] = jnp.zeros(key_sums.shape, jnp.float32)
        value_sums[...] = jnp.zeros(value_sums.shape, jnp.float32)

    @pl.when(live)
    def _():
        seen = _seen(query_marks[...], key_marks[...], window[0])
        for g in range(query.shape[0]):
            weights, grad_scores = _score_gradients(seen, inputs, g, scale)
            key_sums[...] += _product(grad_scores, query[g], 1, 0)
            value_sums[...] += _product(weights, cotangent[g], 1, 0)

    @pl.when(last)
    def _():
        grad_keys[...] = key_sums[...].astype(grad_keys.dtype)
        grad_values[...] = value_sums[...].astype(grad_values.dtype)


def _visit(pairs, counts, n: int) -> tuple:
    """Whether there is a visit, and whether it is the first or the last of its first tile."""
    b, s = pl.program_id(0), pl.program_id(2)
    end = counts[b] - 1

    def tile_at(s):  # `//` would ask which TPU is here
        return jax.lax.div(pairs[b, jnp.clip(s, 0, end)], n)

    live, own = s <= end, tile_at(s)
    first = (s == 0) | (tile_at(s - 1) != own)
    last = (s == end) | (tile_at(s + 1) != own)
    return live, live & first, live & last


def _seen(query_marks, key_marks, window) -> jax.Array:
    """Bool [keys, queries]; as `attention._scores` has it."""
    sequence, prompt, position = (query_marks[i : i + 1] for i in range(3))
    key_marks = key_marks.T
    key_sequence, key_position = key_marks[:, 0:1], key_marks[:, 2:3]
    distance = position - key_position
    seen = (key_sequence == sequence) | (key_sequence == prompt)
    return seen & (distance >= 0) & (distance < jnp.where(window == 0, 2**30, window))


def _score_gradients(seen, inputs, g: int, scale: float):
    """(weights, gradients of the scores) [keys, queries] of head g, in the dtype of the matmuls.

    `inputs`: those of `_backward_kernels`, a tile of each.
    """
    query, keys, values, cotangent, log_sum_exp, mean = inputs
    row, key = slice(g, g + 1), keys[...]
    scores = _product(key, query[g], 1, 1) * scale
    weights = jnp.where(seen, jnp.exp(scores - log_sum_exp[row]), 0.0)
    grad_weights = _product(values[...], cotangent[g], 1, 1)
    grad_scores = weights * (grad_weights - mean[row]) * scale
    return weights.astype(key.dtype), grad_scores.astype(key.dtype)


def _product(x: jax.Array, y: jax.Array, x_axis: int, y_axis: int) -> jax.Array:
    """The matrix product f32 that sums over these two axes."""
    axes = (((x_axis,), (y_axis,)), ((), ()))
    kind = {"precision": precision(x, y), "preferred_element_type": jnp.float32}
    return jax.lax.dot_general(x, y, axes, **kind)
