"""The LM head over many tokens, without their logits: a chunk of tokens at a time.

Where a loss is trained on, its gradient is computed with it, while a chunk's logits are there: they
are made once, and what is kept is the gradient of the states, and that of the head, summed in f32
in place. (Liger Kernel: Hsu et al. 2024, arXiv 2410.10989.)
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from permix_jax.core.sharding import constrain, gather_as
from permix_jax.models.operations import einsum


class TokenStatistics(NamedTuple):
    """Per completion token, f32 [B, T]: its log-prob, and the entropy of what it was drawn from."""

    logprobs: jax.Array
    entropy: jax.Array


class Scoring(NamedTuple):
    """How log-probs are computed.

    temperature: divides the logits, as it did in sampling.
    logits_chunk: about how many tokens' logits exist at once.
    """

    temperature: float = 1.0
    logits_chunk: int = 1024


class TokenLoss(NamedTuple):
    """A loss that is summed over tokens, and how the log-probs that it is of are computed.

    of: (log-probs f32 [...], tokens) -> losses f32 [...], token by token.
    """

    of: Callable
    scoring: Scoring


def logits(hidden: jax.Array, head: jax.Array) -> jax.Array:
    """Logits f32 [..., V] of hidden states [..., E] under a head [V, E] of the same dtype."""
    return einsum("...e,ve->...v", hidden, head)


def head_logprobs(
    hidden: jax.Array,
    weight: jax.Array,
    targets: jax.Array,
    mask: jax.Array,
    scoring: Scoring,
) -> jax.Array:
    """Log-probs f32 [B, T] of targets [B, T], given states [B, T, E] and a head [V, E].

    Chunks are cut along T, so that the rows stay where the mesh has them. A chunk without a token
    in the bool mask [B, T] is skipped. Meaningless where the mask is False.
    """
    head = _gathered(weight, hidden.dtype)

    def one_chunk(states, targets, _):
        return _logprobs(_scaled_logits(states, head, scoring.temperature), targets)[0]

    def step(_, chunk):
        skip = lambda states, targets, _: jnp.zeros(targets.shape, jnp.float32)  # noqa: E731
        return None, jax.lax.cond(chunk[2].any(), one_chunk, skip, *chunk)

    _, found = jax.lax.scan(step, None, _cut((hidden, targets, mask), scoring.logits_chunk))
    return _join(found, hidden.shape[1])


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def head_loss(
    loss: TokenLoss,
    hidden: jax.Array,
    weight: jax.Array,
    targets: jax.Array,
    mask: jax.Array,
    tokens,
) -> tuple[jax.Array, TokenStatistics]:
    """The sum of a loss over the tokens of the mask, and their statistics.

    Args:
      tokens: what the loss has to know of each; a pytree of arrays [B, T].
      The others are as for `head_logprobs`.

    Differentiable in hidden and weight, by the loss: the statistics are metrics and have no
    gradient. Where the weight is not differentiated, no gradient of it is made.
    """
    return _run(loss, hidden, weight, targets, mask, tokens)[0]


def _run(loss: TokenLoss, hidden, weight, *of_tokens, trained=False):
    """((loss, statistics), (gradient of hidden, of the weight or None))."""
    token_loss, (temperature, logits_chunk) = loss
    head = _gathered(weight, hidden.dtype)

    def one_chunk(sums, chunk):
        states, targets, mask, tokens = chunk
        scaled = _scaled_logits(states, head, temperature)
        logprobs, probabilities = _logprobs(scaled, targets)
        total = lambda logprobs: jnp.where(mask, token_loss(logprobs, tokens), 0).sum()  # noqa: E731
        loss, grad_logprobs = jax.value_and_grad(total)(logprobs)
        grad_logprobs = jnp.where(mask, grad_logprobs, 0)[..., None]

        # Of the log-prob: by logits it is [target] - p, by the state that times the head.
        grad_logits = (_is_target(scaled, targets) - probabilities).astype(hidden.dtype)
        grad_states = einsum("btv,ve->bte", grad_logits, head)
        grad_states /= temperature
        # Its product with the state is the target's logit less the mean one: no pass over V. (In
        # bf16 to some 0.01 nats a token, for better and for worse alike.)
        entropy = (states.astype(jnp.float32) * grad_states).sum(axis=-1) - logprobs
        loss_sum, weight_gradient = sums
        if trained:
            slope_states = (states * grad_logprobs / temperature).astype(hidden.dtype)
            weight_gradient += einsum("bte,btv->ev", slope_states, grad_logits)
        found = (
            TokenStatistics(logprobs, entropy),
            (grad_states * grad_logprobs).astype(hidden.dtype),
        )
        return (loss_sum + loss, weight_gradient), found

    def skip(sums, chunk):
        nothing = jnp.zeros(chunk[1].shape, jnp.float32)
        return sums, (TokenStatistics(nothing, nothing), jnp.zeros_like(chunk[0]))

    def step(sums, chunk):
        return jax.lax.cond(chunk[2].any(), one_chunk, skip, sums, chunk)

    # Transposed: what has a vocabulary for every token is not to be.
    start = jnp.float32(0), jnp.zeros(weight.shape[::-1], jnp.float32) if trained else None
    chunks = _cut((hidden, *of_tokens), logits_chunk)
    (loss, grad_weight), found = jax.lax.scan(step, start, chunks)
    statistics, grad_hidden = _join(found, hidden.shape[1])
    grad_weight = grad_weight.T.astype(weight.dtype) if trained else None
    return (loss, statistics), (grad_hidden, grad_weight)


def _forward(loss, *arguments):
    arrays = jax.tree.map(lambda x: x.value, arguments)
    trained = arguments[1].perturbed
    return _run(loss, *arrays, trained=trained)


def _backward(loss, gradients, cotangents):
    if isinstance(cotangents[0], SymbolicZero):
        return (None,) * 5
    scaled = lambda x: (x * cotangents[0]).astype(x.dtype)  # noqa: E731
    return *jax.tree.map(scaled, gradients), None, None, None


head_loss.defvjp(_forward, _backward, symbolic_zeros=True)


def _logprobs(scaled: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Log-probs f32 [B, T] of the targets, and all probabilities [B, T, V], given logits."""
    largest = scaled.max(axis=-1, keepdims=True)
    exponentials = jnp.exp(scaled - largest)
    total = exponentials.sum(axis=-1, keepdims=True)
    normaliser = (largest + jnp.log(total))[..., 0]
    # A sum with one term, for a lookup would gather a vocabulary that is cut over the mesh.
    chosen = jnp.where(_is_target(scaled, targets), scaled, 0).sum(axis=-1)
    return chosen - normaliser, exponentials / total


def _gathered(weight: jax.Array, dtype) -> jax.Array:
    """The head as the chunks read it: gathered over `fsdp` once, not once a chunk."""
    return gather_as(weight, dtype, "vocab", "embed")


def _scaled_logits(states: jax.Array, head: jax.Array, temperature: float) -> jax.Array:
    return constrain(logits(states, head) / temperature, "batch", None, "vocab")


def _is_target(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Bool [B, T, V]: where each token's target stands."""
    return jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == targets[..., None]


def _cut(tree, logits_chunk: int):
    """Arrays [B, T, ...] as [chunks, B, width, ...], padded with 0."""
    B, T = jax.tree.leaves(tree)[0].shape[:2]
    width = max(1, min(T, logits_chunk // B))
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
