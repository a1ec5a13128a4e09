"""The oracle of packed rows: one sequence a row and its whole logits; and how arrays are packed."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from permix_jax.models.packing import Packing, Ragged, pack, row_shapes


def pack_arrays(prompts, prompt_mask, completions, mask, tokens=None, rows=1) -> Packing:
    """Prompts [U, P] and completions [N, T] in rows of about `tokens` tokens; None: in one row."""
    U, N = len(prompts), len(completions)
    ragged = Ragged.masked(prompts, prompt_mask), Ragged.masked(completions, mask)
    shapes = row_shapes(prompts.shape, completions.shape, rows, tokens or 10**6)
    shapes = shapes if tokens else shapes[-1:]
    return pack(*ragged, np.repeat(np.arange(U), N // U), shapes)


def unpack(packing: Packing, packed, mask) -> np.ndarray:
    """Numbers [M, R, L] of targets as [N, T]; 0 outside the mask."""
    found = np.zeros(mask.shape, np.float32)
    found[np.asarray(mask)] = packing.collect(np.asarray(packed))
    return found


@partial(jax.jit, static_argnums=0)
def dense_logits(model, params, tokens, positions, valid):
    """Logits f32 [B, T, V] of tokens [B, T]."""
    hidden, _ = model.apply({"params": params}, tokens, positions, valid)
    return model.apply({"params": params}, hidden, method="unembed")


@partial(jax.jit, static_argnums=0)
def dense_statistics(model, params, prompts, prompt_mask, completions, mask, temperature=1.0):
    """(log-probs, entropy) [N, T] of the completions; meaningless outside the mask."""
    (N, T), P = completions.shape, prompts.shape[1]
    repeat = partial(jnp.repeat, repeats=N // prompts.shape[0], axis=0)
    tokens = jnp.concatenate([repeat(prompts), completions], axis=1)
    valid = jnp.concatenate([repeat(prompt_mask), mask], axis=1)
    # Positions count the valid tokens, so that the gap behind a short prompt takes none.
    positions = jnp.cumsum(valid, axis=1) - 1
    every = dense_logits(model, params, tokens, positions, valid) / temperature
    every = jax.nn.log_softmax(every, axis=-1)
    last = repeat(prompt_mask.sum(axis=1))[:, None] - 1
    sources = jnp.concatenate([last, P + jnp.broadcast_to(jnp.arange(T - 1), (N, T - 1))], 1)
    every = jnp.take_along_axis(every, sources[..., None], axis=1)
    chosen = jnp.take_along_axis(every, completions[..., None], axis=-1)[..., 0]
    return chosen, -(jnp.exp(every) * every).sum(axis=-1)


def pairs_of(rows) -> list[tuple[list[int], list[int]]]:
    """The (prompt, completion) pairs that packed rows hold, as tokens, sorted."""
    found = []
    for m, r in np.ndindex(rows.tokens.shape[:2]):
        tokens, sequence, prompt = (
            np.asarray(x)[m, r] for x in (rows.tokens, rows.layout.sequence, rows.layout.prompt)
        )
        for number in set(sequence[sequence != prompt].tolist()):
            own = sequence == number
            of_prompt = sequence == prompt[own][0]
            found.append((tokens[of_prompt].tolist(), tokens[own].tolist()))
    return sorted(found)
