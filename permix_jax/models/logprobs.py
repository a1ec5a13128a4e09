"""Hidden states that predict completions, and from them log-probs, without a [B, T, V] array.

The prompt goes through the decoder once for all the completions that share it; the LM head goes
over the completions in chunks (`lm_head.py`).
"""

import jax
import jax.numpy as jnp

from permix_jax.models.lm_head import LOGITS_CHUNK, head_logprobs
from permix_jax.models.operations import states_at
from permix_jax.models.packed_attention import PackedLayout
from permix_jax.models.transformer import Decoder


def completion_logprobs(
    model: Decoder,
    params,
    prompt_tokens: jax.Array,
    prompt_mask: jax.Array,
    completion_tokens: jax.Array,
    completion_mask: jax.Array,
    temperature: float = 1.0,
    logits_chunk: int = LOGITS_CHUNK,
) -> jax.Array:
    """Scores completions after right-padded prompts, for arrays as `completion_states` takes them.

    Args:
      temperature: divides the logits, as it did when the completions were sampled.
      logits_chunk: about how many tokens' logits exist at once.

    Returns:
      Log-probs f32 [B, T]; meaningless where the mask is False.
    """
    completions = completion_tokens, completion_mask
    hidden = completion_states(model, params, prompt_tokens, prompt_mask, *completions)
    head = head_weight(model, params)
    return head_logprobs(hidden, head, *completions, temperature, logits_chunk)


def completion_states(
    model: Decoder,
    params,
    prompt_tokens: jax.Array,
    prompt_mask: jax.Array,
    completion_tokens: jax.Array,
    completion_mask: jax.Array,
) -> jax.Array:
    """The states [B, T, E] that predict each completion token.

    Args:
      prompt_tokens, prompt_mask: [U, P]; the mask is True on a non-empty prefix of each row.
      completion_tokens, completion_mask: [B, T], U dividing B; completion b follows prompt
        b // (B / U).
    """
    U, (B, T) = prompt_tokens.shape[0], completion_tokens.shape
    last, prefix, lengths = prefill(model, params, prompt_tokens, prompt_mask)
    per_row = lambda x: jnp.repeat(x, B // U, axis=0)  # noqa: E731

    # The state that predicts token t is that of token t-1; token 0 is predicted by the prompt's
    # last token, and the last completion token predicts nothing.
    inputs, mask = completion_tokens[:, :-1], completion_mask[:, :-1]
    positions = per_row(lengths)[:, None] + jnp.arange(T - 1)
    hidden, _ = model.apply({"params": params}, inputs, positions, mask, prefix)
    # Repeated in f32: the gradient of a prompt's last state is the sum over its rows.
    first = per_row(last.astype(jnp.float32)).astype(last.dtype)
    return jnp.concatenate([first[:, None], hidden], axis=1)


def packed_states(
    model: Decoder, params, tokens: jax.Array, layout: PackedLayout, states: jax.Array
) -> jax.Array:
    """The states [B, X, E] that predict the targets of packed rows.

    Args:
      tokens: int32 [B, L], prompts and completions, where the layout says.
      states: int32 [B, X], where in its row the state stands that predicts each target.
    """
    real = layout.sequence >= 0
    hidden, _ = model.apply({"params": params}, tokens, layout.positions, real, layout=layout)
    return states_at(hidden, states)


def head_weight(model: Decoder, params) -> jax.Array:
    """The LM head [V, E]."""
    return params["embedding" if model.config.tie_embeddings else "head"]


def prefill(model: Decoder, params, prompt_tokens: jax.Array, prompt_mask: jax.Array):
    """Runs right-padded prompts [U, P] through the decoder.

    Returns:
      the hidden state of each prompt's last token [U, E], the prompts' segment, and their
      lengths int32 [U].
    """
    positions = jnp.broadcast_to(jnp.arange(prompt_tokens.shape[1]), prompt_tokens.shape)
    hidden, segment = model.apply({"params": params}, prompt_tokens, positions, prompt_mask)
    lengths = prompt_mask.sum(axis=1)
    last = states_at(hidden, lengths[:, None] - 1)[:, 0]
    return last, segment, lengths
