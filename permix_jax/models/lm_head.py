"""The LM head over many tokens, without their logits: a chunk of tokens at a time, both ways.

The forward pass keeps one number a token, the log of the sum of exponentials. The backward pass
makes each chunk's logits once more, and adds up the gradient of the head in f32, in place.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from permix_jax.sharding import constrain


class TokenStatistics(NamedTuple):
    """Per completion token, f32 [B, T]: its log-prob, and the entropy of what it was drawn from."""

    logprobs: jax.Array
    entropy: jax.Array


def logits(hidden: jax.Array, head: jax.Array) -> jax.Array:
    """Logits f32 [..., V] of hidden states [..., E] under a head [V, E] of the same dtype."""
    return jnp.einsum("...e,ve->...v", hidden, head, preferred_element_type=jnp.float32)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def head_statistics(
    hidden: jax.Array,
    weight: jax.Array,
    targets: jax.Array,
    mask: jax.Array,
    temperature: float,
    chunk_tokens: int,
) -> TokenStatistics:
    """Log-probs and entropy of targets [B, T] given states [B, T, E] and a head [V, E].

    Chunks are cut along T, so that the rows stay where the mesh has them, and hold about
    `chunk_tokens` tokens; one without a token in the bool mask [B, T] is skipped. Meaningless
    where the mask is False.

    Differentiable in hidden and weight, by the log-probs: the entropy is a metric and has no
    gradient. Where the weight is not differentiated, no gradient of it is made.
    """
    return _statistics(hidden, weight, targets, mask, temperature, chunk_tokens)[0]


def _statistics(hidden, weight, targets, mask, temperature, chunk_tokens):
    """The statistics, and each token's normaliser: log sum exp of its logits, f32 [B, T]."""
    head = _gathered(weight, hidden.dtype)

    def one_chunk(chunk):
        states, tokens, _ = chunk
        scaled = _scaled_logits(states, head, temperature)
        largest = scaled.max(axis=-1, keepdims=True)
        exponentials = jnp.exp(scaled - largest)
        total = exponentials.sum(axis=-1)
        normaliser = largest[..., 0] + jnp.log(total)
        entropy = normaliser - (exponentials * scaled).sum(axis=-1) / total
        # A sum with one term, for a lookup would gather a vocabulary that is cut over the mesh.
        chosen = jnp.where(_is_target(scaled, tokens), scaled, 0).sum(axis=-1)
        return TokenStatistics(chosen - normaliser, entropy), normaliser

    def skip(chunk):
        nothing = jnp.zeros(chunk[1].shape, jnp.float32)
        return TokenStatistics(nothing, nothing), nothing

    def step(_, chunk):
        return None, jax.lax.cond(chunk[2].any(), one_chunk, skip, chunk)

    _, found = jax.lax.scan(step, None, _cut((hidden, targets, mask), chunk_tokens))
    return _join(found, hidden.shape[1])


def _forward(hidden, weight, targets, mask, temperature, chunk_tokens):
    arrays = hidden.value, weight.value, targets.value, mask.value
    statistics, normaliser = _statistics(*arrays, temperature, chunk_tokens)
    # What is kept of a trained weight and of a frozen one differs in structure, which is static.
    return statistics, (*arrays, normaliser, () if weight.perturbed else None)


def _backward(temperature, chunk_tokens, kept, cotangents):
    hidden, weight, targets, mask, normaliser, trained = kept
    if isinstance(cotangents.logprobs, SymbolicZero):
        return None, None, None, None
    head = _gathered(weight, hidden.dtype)

    def one_chunk(weight_gradient, chunk):
        states, tokens, _, normaliser, slope = chunk
        scaled = _scaled_logits(states, head, temperature)
        gradient = _is_target(scaled, tokens) - jnp.exp(scaled - normaliser[..., None])
        gradient = (gradient * (slope / temperature)[..., None]).astype(hidden.dtype)
        state_gradient = jnp.einsum("btv,ve->bte", gradient, head)
        if trained is not None:
            weight_gradient += jnp.einsum(
                "bte,btv->ev", states, gradient, preferred_element_type=jnp.float32
            )
        return weight_gradient, state_gradient

    def skip(weight_gradient, chunk):
        return weight_gradient, jnp.zeros_like(chunk[0])

    def step(weight_gradient, chunk):
        return jax.lax.cond(chunk[2].any(), one_chunk, skip, weight_gradient, chunk)

    chunks = _cut((hidden, targets, mask, normaliser, cotangents.logprobs), chunk_tokens)
    # Transposed: what has a vocabulary for every token is not to be.
    start = None if trained is None else jnp.zeros(weight.shape[::-1], jnp.float32)
    weight_gradient, state_gradients = jax.lax.scan(step, start, chunks)
    if trained is not None:
        weight_gradient = weight_gradient.T.astype(weight.dtype)
    return _join(state_gradients, hidden.shape[1]), weight_gradient, None, None


head_statistics.defvjp(_forward, _backward, symbolic_zeros=True)


def _gathered(weight: jax.Array, dtype) -> jax.Array:
    """The head as the chunks read it: gathered over `fsdp` once, not once a chunk."""
    return constrain(weight.astype(dtype), "vocab", None)


def _scaled_logits(states: jax.Array, head: jax.Array, temperature: float) -> jax.Array:
    return constrain(logits(states, head) / temperature, "batch", None, "vocab")


def _is_target(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Bool [B, T, V]: where each token's target stands."""
    return jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == targets[..., None]


def _cut(tree, chunk_tokens: int):
    """Arrays [B, T, ...] as [chunks, B, width, ...], padded with 0."""
    B, T = jax.tree.leaves(tree)[0].shape[:2]
    width = max(1, min(T, chunk_tokens // B))
    chunks = -(-T // width)

    def one(x):
        rest = x.shape[2:]
        x = jnp.pad(x, ((0, 0), (0, chunks * width - T), *((0, 0) for _ in rest)))
        return jnp.moveaxis(x.reshape(B, chunks, width, *rest), 1, 0)

    return jax.tree.map(one, tree)


def _join(tree, length: int):
    """The inverse of `_cut`."""

    def one(x):
        chunks, B, width = x.shape[:3]
        return jnp.moveaxis(x, 0, 1).reshape(B, chunks * width, *x.shape[3:])[:, :length]

    return jax.tree.map(one, tree)
