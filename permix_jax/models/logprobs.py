"""Log-probs of completions in packed rows, and the prefill of prompts; no [B, T, V] array."""

from functools import partial

import jax
import jax.numpy as jnp

from permix_jax.core.sharding import constrain
from permix_jax.models.attention import PackedLayout
from permix_jax.models.lm_head import Scoring, head_logprobs
from permix_jax.models.operations import states_at
from permix_jax.models.packing import PackedRows
from permix_jax.models.transformer import Decoder

LONGEST_WHOLE = 1024  # tokens of prompts whose attention scores [P, P] are computed at once
BLOCK = 128  # tokens of a block of attention in longer ones


@partial(jax.jit, static_argnames=("model", "scoring", "entropy"))
def score(
    model: Decoder, params, rows: PackedRows, scoring: Scoring, entropy: bool = False
) -> jax.Array:
    """Log-probs f32 [M, R, L] of the targets of packed rows; 0 where there is none.

    With `entropy`, the entropies of the distributions that they are from instead.
    """
    head = head_weight(model, params)

    def score_part(i, logprobs):
        part = micro_batch(rows, i)
        hidden = target_states(model, params, part)
        scores = head_logprobs(hidden, head, part.targets, part.scored, scoring, entropy)
        return logprobs.at[i].set(jnp.where(part.scored, scores, 0))

    logprobs = constrain(jnp.zeros(rows.targets.shape, jnp.float32), None, "batch", None)
    return jax.lax.fori_loop(0, rows.count, score_part, logprobs)


def micro_batch(parts, i: jax.Array | int):
    """Micro-batch i of a pytree of arrays [M, R, ...], as [R, ...]; scalars stay as they are."""

    def one(x):
        if x.ndim == 0:
            return x
        x = jax.lax.dynamic_index_in_dim(x, i, keepdims=False)
        return constrain(x, "batch", *[None] * (x.ndim - 1))

    return jax.tree.map(one, parts)


def target_states(model: Decoder, params, part: PackedRows) -> jax.Array:
    """The hidden states [R, L, E] that predict the targets of one micro-batch."""
    real = part.layout.sequence >= 0
    positions = part.layout.positions
    hidden, _ = model.apply({"params": params}, part.tokens, positions, real, layout=part.layout)
    return states_at(hidden, part.states)


def head_name(model: Decoder) -> str:
    """Which parameter the LM head is."""
    return "embedding" if model.config.tie_embeddings else "head"


def head_weight(model: Decoder, params) -> jax.Array:
    """The LM head [V, E]."""
    return params[head_name(model)]


@jax.named_scope("prefill")
def prefill(model: Decoder, params, prompt_tokens: jax.Array, prompt_mask: jax.Array):
    """Runs right-padded prompts [U, P] through the decoder.

    Prompts of over LONGEST_WHOLE tokens are attended block by block, so that their scores take
    memory that is linear in P. They are padded to whole blocks.

    Returns the hidden states of their last tokens [U, E], their segment of P tokens and padding,
    and lengths int32 [U].
    """
    lengths, layout = prompt_mask.sum(axis=1), None
    if prompt_tokens.shape[1] > LONGEST_WHOLE:
        padding = (0, 0), (0, -prompt_tokens.shape[1] % BLOCK)
        prompt_tokens, prompt_mask = (jnp.pad(x, padding) for x in (prompt_tokens, prompt_mask))
        layout = _prompt_layout(prompt_mask)
    positions = jnp.broadcast_to(jnp.arange(prompt_tokens.shape[1]), prompt_tokens.shape)
    hidden, segment = model.apply(
        {"params": params}, prompt_tokens, positions, prompt_mask, layout=layout
    )
    return states_at(hidden, lengths[:, None] - 1)[:, 0], segment, lengths


def _prompt_layout(mask: jax.Array) -> PackedLayout:
    """The layout of rows that hold one prompt each; mask bool [U, P], P a multiple of BLOCK."""
    (U, P), n = mask.shape, mask.shape[1] // BLOCK
    positions = jnp.broadcast_to(jnp.arange(P), mask.shape)
    sequence = jnp.where(mask, 0, -1)
    before = jnp.arange(n)[:, None] - jnp.arange(n)  # a block reads itself, and back to the first
    blocks = jnp.broadcast_to(jnp.maximum(before, -1), (U, n, n))
    return PackedLayout(positions, sequence, sequence, blocks)
