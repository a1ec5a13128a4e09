"""Sampling of completions: prompts are prefilled, then tokens are decoded one at a time.

Rows end at different lengths. So the batch is decoded in stages, each half as large as the one
before (`Sampling.halvings`): once half of the rows have ended, only the others are decoded on.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from permix_jax.core.sharding import constrain, row_shards
from permix_jax.models.logprobs import prefill
from permix_jax.models.params import gathered
from permix_jax.models.transformer import Decoder, Segment, empty_segment
from permix_jax.rollout.sampling import Sampling, draw


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
    cache: Segment  # keys and values of the rows' own tokens
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
    cache, number = empty_segment(model.config, B, T), jnp.arange(B) % (B // row_shards())
    rows = _Rows(number, keys, per_row(lengths), per_row(last), cache, written)
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

        def go_on(carry):
            step, rows = carry
            running = _by_shard(~rows.written.done).sum(axis=1).max()
            return (step < self.sampling.max_new_tokens) & (running > until // row_shards())

        def body(carry):
            step, rows = carry
            return step + 1, self._next_token(prefix, rows, step)

        return jax.lax.while_loop(go_on, body, (step, rows))

    @jax.named_scope("decode")
    def _next_token(self, prefix: Segment, rows: _Rows, step) -> _Rows:
        params, ends = {"params": self.params}, self.end_tokens
        tokens, logprobs, done = rows.written
        logits = self.model.apply(params, rows.hidden, method="unembed")
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(rows.keys, step)
        token, logprob = draw(step_keys, logits, self.sampling)
        token = jnp.where(done, ends[0], token)[:, None]
        logprob = jnp.where(done, 0.0, logprob)[:, None]
        positions, seen = (rows.prompt_length + step)[:, None], ~done[:, None]
        hidden, cache = self.model.apply(params, token, positions, seen, prefix, rows.cache, step)
        written = _Written(
            jax.lax.dynamic_update_slice(tokens, token, (0, step)),
            jax.lax.dynamic_update_slice(logprobs, logprob, (0, step)),
            done | jnp.isin(token[:, 0], jnp.array(ends)),
        )
        return rows._replace(hidden=hidden[:, 0], cache=cache, written=written)


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
