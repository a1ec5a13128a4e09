"""Sampling of completions: prompts are prefilled, then tokens are decoded one at a time.

Rows end at different lengths. So the batch is decoded in stages, each half as large as the one
before (`Sampling.halvings`): once half of the rows have ended, only the others are decoded on.

A token reads the slots of its row that are written, not all T. For this the slots lie in blocks
(`slot_blocks`). Tokens are written into one block, the cache. When it is full it is copied to the
older blocks, of which a layer reads as many as are written (`attention.Blocks`). Each stage is a
loop over blocks around a loop over tokens, so the number of blocks does not make a program larger.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from permix_jax.core.sharding import constrain, platform, row_shards
from permix_jax.models.logprobs import prefill
from permix_jax.models.params import gathered
from permix_jax.models.transformer import Decoder, Older, Segment, empty_segment
from permix_jax.rollout.sampling import Sampling, draw

# A block has at least so many slots: a TPU reads 128 keys at once.
_SLOTS = 128
# At most so many blocks. XLA for a CPU copies a part of an array before it multiplies it. So there
# each block is an array of its own, with its own code in every layer, and there are few. A GPU
# would wait for its host in every layer, to learn how many blocks to read: it reads all slots.
_BLOCKS = {"tpu": 16, "cpu": 4}


class Completions(NamedTuple):
    """What B rows generated; T is `max_new_tokens`."""

    tokens: jax.Array  # int32 [B, T]
    mask: jax.Array  # bool [B, T], True up to the end token, which is included
    logprobs: jax.Array  # f32 [B, T], under the distribution drawn from; 0 outside the mask
    truncated: jax.Array  # bool [B], True for rows with no end token within T


class _Written(NamedTuple):
    """What rows have generated so far."""

    tokens: jax.Array  # int32 [rows, T]
    logprobs: jax.Array  # f32 [rows, T]
    done: jax.Array  # bool [rows]


class _Rows(NamedTuple):
    """The rows that a stage decodes."""

    number: jax.Array  # int32 [rows], the row's number among its shard's rows of the batch
    keys: jax.Array  # [rows]
    prompt_length: jax.Array  # int32 [rows]
    hidden: jax.Array  # [rows, E], the state that predicts the next token
    cache: Segment  # keys and values of the rows' own tokens, in the block that is being written
    older: tuple[Segment, ...]  # those in the blocks before
    written: _Written


@partial(jax.jit, static_argnames=("model", "sampling", "end_tokens"))
def sample(
    model: Decoder,
    params,
    prompts: tuple[jax.Array, jax.Array],
    keys: jax.Array,
    sampling: Sampling,
    end_tokens: tuple[int, ...],
) -> Completions:
    """Samples completions of right-padded prompts, until every row has ended.

    Args:
      prompts: tokens and mask, int32 and bool [U, P]; no prompt is empty.
      keys: [B], a random key for each row, U dividing B. Row b continues prompt b // (B / U). The
        rows of a prompt share its prefill, its keys and its values.
      end_tokens: the ids that end a completion. They belong to it.
    """
    (U, _), B, T = prompts[0].shape, keys.shape[0], sampling.max_new_tokens
    params = gathered(model, params)
    last, prefix, lengths = prefill(model, params, *prompts)

    def per_row(x):
        return constrain(jnp.repeat(x, B // U, axis=0), "batch", *[None] * (x.ndim - 1))

    blank = jnp.full((B, T), end_tokens[0], jnp.int32)
    written = _Written(blank, jnp.zeros((B, T), jnp.float32), jnp.zeros(B, bool))
    cache, older = _empty_blocks(model, B, T)
    number = jnp.arange(B) % (B // row_shards())
    rows = _Rows(number, keys, per_row(lengths), per_row(last), cache, older, written)
    decoding = _Decoding(model, params, sampling, end_tokens)
    step, sizes = jnp.int32(0), _stages(B, sampling.halvings)
    for size, next_size in zip(sizes, [*sizes[1:], 0], strict=True):
        if size < B:
            rows, prefix = _keep_running(rows, prefix, size)
        step, rows = decoding.run(prefix, rows, step, next_size)
        written = _put(written, rows.number, rows.written)

    is_end = jnp.isin(written.tokens, jnp.array(end_tokens))
    ended_before = jnp.cumsum(is_end, axis=1) - is_end > 0
    return Completions(written.tokens, ~ended_before, written.logprobs, ~written.done)


class _Decoding(NamedTuple):
    """What decodes rows, a token of each in a step."""

    model: Decoder
    params: dict
    sampling: Sampling
    end_tokens: tuple[int, ...]

    def run(self, prefix: Segment, rows: _Rows, step, until: int):
        """(step, rows) once no shard has more than its part of `until` rows running, or at T."""
        T = self.sampling.max_new_tokens
        number, size = slot_blocks(T)

        def running(step, rows):
            return (step < T) & (_by_shard(~rows.written.done).sum(axis=1).max() > least)

        # The conditions compare a counter with one constant: so often a plan counts the loops.
        def in_block(carry):
            slot, _, more, _ = carry
            return (slot < size) & more

        def token(carry):
            slot, block, _, rows = carry
            step = block * size + slot
            rows = self._next_token(prefix, rows, step, (block, slot))
            return slot + 1, block, running(step + 1, rows), rows

        def next_block(carry):
            slot, block, more, rows = jax.lax.while_loop(in_block, token, carry)
            full = slot == size
            return jnp.where(full, 0, slot), block + full, more, _with_older(rows, block, full)

        least = until // row_shards()
        start = step % size, step // size, running(step, rows), rows
        if number == 1:
            slot, block, _, rows = jax.lax.while_loop(in_block, token, start)
        else:
            slot, block, _, rows = jax.lax.while_loop(
                lambda carry: (carry[1] < number) & carry[2], next_block, start
            )
        return block * size + slot, rows

    @jax.named_scope("decode")
    def _next_token(self, prefix: Segment, rows: _Rows, step, place: tuple) -> _Rows:
        """Draws and writes the token `step` of each row; place: its block, and the slot there."""
        params, ends, (block, slot) = {"params": self.params}, self.end_tokens, place
        tokens, logprobs, done = rows.written
        logits = self.model.apply(params, rows.hidden, method="unembed")
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(rows.keys, step)
        token, logprob = draw(step_keys, logits, self.sampling)
        token = jnp.where(done, ends[0], token)[:, None]
        logprob = jnp.where(done, 0.0, logprob)[:, None]
        positions, seen = (rows.prompt_length + step)[:, None], ~done[:, None]
        older = Older(rows.older, block) if rows.older else None
        hidden, cache = self.model.apply(
            params, token, positions, seen, prefix, rows.cache, slot, older=older
        )
        written = _Written(
            jax.lax.dynamic_update_slice(tokens, token, (0, step)),
            jax.lax.dynamic_update_slice(logprobs, logprob, (0, step)),
            done | jnp.isin(token[:, 0], jnp.array(ends)),
        )
        return rows._replace(hidden=hidden[:, 0], cache=cache, written=written)


def slot_blocks(slots: int) -> tuple[int, int]:
    """How many blocks the slots of a row lie in, and the slots of a block; the last may have more.

    A token reads the blocks up to its own. (1, slots) if there are few slots, or on a GPU.
    """
    size = -(-slots // _BLOCKS.get(platform(), 1))
    size = -(-size // _SLOTS) * _SLOTS
    return (1, slots) if slots < 2 * size else (-(-slots // size), size)


def older_blocks(slots: int) -> float:
    """How many older blocks a token reads, on average over the blocks."""
    return (slot_blocks(slots)[0] - 1) / 2


def slots_read(slots: int) -> float:
    """How many slots of its row a token reads, on average over a row's tokens."""
    number, size = slot_blocks(slots)
    last = slots - (number - 1) * size
    return size * (size * number * (number - 1) / 2 + last * number) / slots


def _empty_blocks(model: Decoder, rows: int, slots: int) -> tuple[Segment, tuple[Segment, ...]]:
    """The cache of `rows` rows, and the older blocks: in one segment, on a CPU each in its own."""
    number, size = slot_blocks(slots)
    parts = [size] * (number - 1) if platform() == "cpu" else [size * (number - 1)]
    older = tuple(empty_segment(model.config, rows, part) for part in parts if part)
    return empty_segment(model.config, rows, size), older


def _with_older(rows: _Rows, block, full) -> _Rows:
    """If the cache is full, it is copied to the older blocks as number `block`, and emptied.

    The last block has no place there: nothing is decoded after it.
    """
    cache, size, older, first = rows.cache, rows.cache.valid.shape[1], [], 0
    for part in rows.older:
        number = part.valid.shape[1] // size
        here = full & (block >= first) & (block < first + number)
        at = jnp.clip(block - first, 0, number - 1) * size
        older.append(part.with_slots(cache, at, here))
        first += number
    cache = cache._replace(valid=cache.valid & ~full)
    return rows._replace(cache=cache, older=tuple(older))


def _stages(rows: int, halvings: int) -> list[int]:
    """How many rows each stage has: `rows` and its halves, if each shard has as many of them."""
    sizes = [rows >> i for i in range(halvings + 1)]
    return [size for i, size in enumerate(sizes) if rows % (row_shards() << i) == 0]


def _keep_running(rows: _Rows, prefix: Segment, size: int) -> tuple[_Rows, Segment]:
    """Cuts the rows to `size`, with all that still run among them; each gets its own prefix row.

    Every shard keeps as many rows, so no row moves to another device.
    """
    done = _by_shard(rows.written.done)
    kept = jnp.argsort(done, axis=1, stable=True)[:, : size // row_shards()]
    sharing = done.size // prefix.valid.shape[0]
    return _take(rows, kept), _take(prefix, kept // sharing)


def _take(tree, index: jax.Array):
    """The rows at index [shards, n] of each shard, of leaves [rows, ...]: [shards * n, ...]."""
    take = jax.vmap(lambda x, i: x[i])
    return jax.tree.map(lambda x: _joined(take(_by_shard(x), index)), tree)


def _put(tree, index: jax.Array, new):
    """`tree` with its rows at index [len(new)], counted within a shard, replaced by `new`."""
    put = jax.vmap(lambda x, i, new: x.at[i].set(new))
    return jax.tree.map(lambda x, new: _joined(put(*map(_by_shard, (x, index, new)))), tree, new)


def _by_shard(x: jax.Array) -> jax.Array:
    """[rows, ...] as [shards, rows of a shard, ...]."""
    return x.reshape(row_shards(), -1, *x.shape[1:])


def _joined(x: jax.Array) -> jax.Array:
    return x.reshape(-1, *x.shape[2:])
