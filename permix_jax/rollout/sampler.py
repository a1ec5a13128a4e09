"""Prefill and decode: prompts in, completions with the log-probs of what was sampled out."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from permix_jax.models.logprobs import prefill
from permix_jax.models.transformer import Decoder, Segment, empty_segment
from permix_jax.rollout.sampling import Sampling, draw
from permix_jax.sharding import constrain


class Completions(NamedTuple):
    """What B rows generated, T being the budget `max_new_tokens`.

    tokens int32 [B, T]; mask bool [B, T], True up to and with the end token; logprobs f32 [B, T]
    of the distribution sampled from (0 outside the mask); truncated bool [B], True where the
    budget ran out before an end token.
    """

    tokens: jax.Array
    mask: jax.Array
    logprobs: jax.Array
    truncated: jax.Array


class _State(NamedTuple):
    step: jax.Array  # int32 []
    hidden: jax.Array  # [B, E], the state that predicts the next token
    cache: Segment  # own keys and values of the rows
    done: jax.Array  # bool [B]
    tokens: jax.Array  # int32 [B, T]
    logprobs: jax.Array  # f32 [B, T]


@partial(jax.jit, static_argnames=("model", "sampling", "end_tokens"))
def sample(
    model: Decoder,
    params,
    prompt_tokens: jax.Array,
    prompt_mask: jax.Array,
    keys: jax.Array,
    sampling: Sampling,
    end_tokens: tuple[int, ...],
) -> Completions:
    """Samples completions of right-padded prompts, until every row has ended.

    Args:
      prompt_tokens, prompt_mask: [U, P], each prompt non-empty.
      keys: [B] a key a row, U dividing B; row b continues prompt b // (B / U). A prompt is
        prefilled, and its keys and values kept, once for all its rows.
      end_tokens: ids that end a completion (and belong to it).
    """
    (U, _), B, T = prompt_tokens.shape, keys.shape[0], sampling.max_new_tokens
    last, prefix, lengths = prefill(model, params, prompt_tokens, prompt_mask)
    per_row = lambda x: constrain(jnp.repeat(x, B // U, axis=0), "batch", *[None] * (x.ndim - 1))  # noqa: E731
    lengths = per_row(lengths)

    def body(state: _State) -> _State:
        logits = model.apply({"params": params}, state.hidden, method="unembed")
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, state.step)
        token, logprob = draw(step_keys, logits, sampling)
        token = jnp.where(state.done, end_tokens[0], token)[:, None]
        logprob = jnp.where(state.done, 0.0, logprob)[:, None]
        hidden, cache = model.apply(
            {"params": params},
            token,
            (lengths + state.step)[:, None],
            ~state.done[:, None],
            prefix,
            state.cache,
            state.step,
        )
        return _State(
            state.step + 1,
            hidden[:, 0],
            cache,
            state.done | jnp.isin(token[:, 0], jnp.array(end_tokens)),
            jax.lax.dynamic_update_slice(state.tokens, token, (0, state.step)),
            jax.lax.dynamic_update_slice(state.logprobs, logprob, (0, state.step)),
        )

    start = _State(
        jnp.int32(0),
        per_row(last),
        empty_segment(model.config, B, T),
        jnp.zeros(B, bool),
        jnp.full((B, T), end_tokens[0], jnp.int32),
        jnp.zeros((B, T), jnp.float32),
    )
    end = jax.lax.while_loop(lambda s: (s.step < T) & ~s.done.all(), body, start)

    is_end = jnp.isin(end.tokens, jnp.array(end_tokens))
    ended_before = jnp.cumsum(is_end, axis=1) - is_end > 0
    return Completions(end.tokens, ~ended_before, end.logprobs, ~end.done)
