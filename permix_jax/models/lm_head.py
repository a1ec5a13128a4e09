"""The LM head, a chunk of tokens at a time: the logits of all tokens never exist at once.

A loss is trained on by computing its gradient together with it, while a chunk's logits are there.
So the logits are computed once. What is kept is the gradient of the states, and the gradient of the
head, which the chunks add up in f32 (Liger Kernel: Hsu et al. 2024, arXiv 2410.10989).

Each of the mesh's R row shards adds up its own tokens' gradient of the head. These R sums are added
once, by whoever asked for them (`head_sums`), so no chunk sends a gradient over the network.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from permix_jax.core.sharding import constrain, gather_as, row_shards
from permix_jax.models.operations import einsum


class TokenStatistics(NamedTuple):
    """The log-prob of each completion token, and the entropy of the distribution that it is from;
    in nats, f32 [B, T]."""

    logprobs: jax.Array
    entropy: jax.Array


class Scoring(NamedTuple):
    """How log-probs are computed."""

    temperature: float = 1.0  # divides the logits, as it did in sampling
    logits_chunk: int = 1024  # about how many tokens' logits a row shard has at once


class TokenLoss(NamedTuple):
    """A loss that is summed over tokens, and how the log-probs that it is of are computed."""

    of: Callable  # (log-probs f32 [...], tokens) -> losses f32 [...], token by token
    scoring: Scoring
    # tokens -> f32 [...], what each token's entropy is multiplied with in the loss; None: the loss
    # does not know the entropy.
    entropy: Callable | None = None


@jax.named_scope("head")
def logits(hidden: jax.Array, head: jax.Array) -> jax.Array:
    """Logits f32 [..., V] of hidden states [..., E] under a head [V, E] of the same dtype."""
    return einsum("...e,ve->...v", hidden, head)


@jax.named_scope("head")
def head_logprobs(
    hidden: jax.Array,
    weight: jax.Array,
    targets: jax.Array,
    mask: jax.Array,
    scoring: Scoring,
    entropy: bool = False,
) -> jax.Array:
    """Log-probs f32 [B, T] of targets int32 [B, T]; meaningless where the mask is False.

    With `entropy`, the entropies of the distributions that the targets are from instead, in nats.

    Args:
      hidden: the states [B, T, E] that predict the targets.
      weight: the head [V, E].
      mask: bool [B, T]. A chunk of tokens that are all False is skipped. Chunks are cut along T, so
        that the rows stay where the mesh has them.
    """
    head = gather_as(weight, hidden.dtype, "vocab", "embed")  # once, not once a chunk

    def compute(states, targets, _):
        scaled = _scaled_logits(states, head, scoring.temperature)
        logprobs, probabilities, log_sum_exp = _logprobs(scaled, targets)
        return _entropy(scaled, probabilities, log_sum_exp) if entropy else logprobs

    def skip(states, targets, _):
        return jnp.zeros(targets.shape, jnp.float32)

    def step(_, chunk):
        return None, jax.lax.cond(_needed(chunk[0], chunk[2]), compute, skip, *chunk)

    chunks = _cut((hidden, targets, mask), scoring.logits_chunk)
    _, logprobs = jax.lax.scan(step, None, chunks)
    return _join(logprobs, hidden.shape[1])


@jax.named_scope("head")
def head_sums(weight: jax.Array) -> jax.Array:
    """A head [V, E] as `head_loss` takes it to be differentiated by: f32 [R, E, V].

    It is the transposed head, once for each of the R row shards, which hold a part of V. So its
    gradient is R sums, one a shard, and the gradient of this function adds them over the network.
    Nothing reads the values, so they are never made in a compiled program.
    """
    copies = jnp.broadcast_to(weight.astype(jnp.float32).T, (row_shards(), *weight.shape[::-1]))
    return constrain(copies, "batch", None, "vocab")


def head_loss(
    loss: TokenLoss,
    hidden: jax.Array,
    weight: jax.Array,
    targets: jax.Array,
    mask: jax.Array,
    tokens,
    sums: jax.Array | None = None,
) -> tuple[jax.Array, TokenStatistics]:
    """The sum of a loss over the tokens of the mask, and their statistics.

    The loss can be differentiated by `hidden` and `weight`; that of the weight is computed only
    where it is asked for. The statistics are metrics and have no gradient. `tokens` is a pytree of
    arrays [B, T], what the loss has to know of each token; the rest is as in `head_logprobs`.

    `sums` is `head_sums(weight)`. With it the loss is differentiated by `sums` in place of the
    weight, by a caller who adds up the gradients of several calls before the shards' sums are
    added over the network.
    """
    sums = head_sums(weight) if sums is None else sums
    return _loss(loss, hidden, jax.lax.stop_gradient(weight), sums, targets, mask, tokens)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(loss: TokenLoss, hidden, weight, sums, *per_token):
    """`head_loss`, whose gradient of the head goes to `sums` alone."""
    return _run(loss, hidden, weight, *per_token)[0]


@jax.named_scope("head")
def _run(loss: TokenLoss, hidden, weight, *per_token, trained=False):
    """((loss, statistics), (gradient of hidden, that of the head as in `head_sums`, or None))."""
    token_loss, (temperature, logits_chunk), of_entropy = loss
    head = gather_as(weight, hidden.dtype, "vocab", "embed")  # once, not once a chunk

    def compute(sums, chunk):
        states, targets, mask, tokens = chunk
        scaled = _scaled_logits(states, head, temperature)
        logprobs, probabilities, log_sum_exp = _logprobs(scaled, targets)

        def masked_loss(logprobs):
            return jnp.where(mask, token_loss(logprobs, tokens), 0).sum()

        loss, grad_logprobs = jax.value_and_grad(masked_loss)(logprobs)
        grad_logprobs = jnp.where(mask, grad_logprobs, 0)[..., None]

        # The log-prob's gradient by the logits is onehot(target) - probabilities; by the state, it
        # is that times the head. (The loss's gradients are these times grad_logprobs.)
        by_logits = _is_target(scaled, targets) - probabilities
        if of_entropy:
            # The entropy's gradient by the logits is -p (log p + entropy). Both gradients are added
            # up here, so that they meet the head in one product.
            factors = jnp.where(mask, of_entropy(tokens), 0)
            entropy = _entropy(scaled, probabilities, log_sum_exp)
            of_logits = probabilities * (scaled - (log_sum_exp - entropy)[..., None])
            by_logits = grad_logprobs * by_logits - factors[..., None] * of_logits
            loss, grad_logprobs = loss + (factors * entropy).sum(), jnp.ones_like(grad_logprobs)
        by_logits = by_logits.astype(hidden.dtype)
        by_state = einsum("btv,ve->bte", by_logits, head) / temperature
        if not of_entropy:
            # The entropy is log-sum-exp - mean logit. The log-prob is target's logit - log-sum-exp,
            # and state . by_state is target's logit - mean logit, so it is the last less the
            # log-prob: no further pass over V. (In bf16 it is off by some 0.01 nats a token, to
            # either side.)
            entropy = (states.astype(jnp.float32) * by_state).sum(axis=-1) - logprobs
        total, grad_head = sums
        if trained:
            scaled_states = (states * grad_logprobs / temperature).astype(hidden.dtype)
            grad_head += _sums_of_shards(scaled_states, by_logits)
        grad_states = (by_state * grad_logprobs).astype(hidden.dtype)
        return (total + loss, grad_head), (TokenStatistics(logprobs, entropy), grad_states)

    def skip(sums, chunk):
        zeros = jnp.zeros(chunk[1].shape, jnp.float32)
        return sums, (TokenStatistics(zeros, zeros), jnp.zeros_like(chunk[0]))

    def step(sums, chunk):
        return jax.lax.cond(_needed(chunk[0], chunk[2]), compute, skip, sums, chunk)

    nothing = jnp.zeros((row_shards(), *weight.shape[::-1]), jnp.float32)  # as `head_sums`
    start = jnp.float32(0), nothing if trained else None
    chunks = _cut((hidden, *per_token), logits_chunk)
    (loss, grad_head), per_chunk = jax.lax.scan(step, start, chunks)
    statistics, grad_hidden = _join(per_chunk, hidden.shape[1])
    return (loss, statistics), (grad_hidden, grad_head)


def _forward(loss, *arguments):
    hidden, weight, sums, *per_token = arguments
    arrays = jax.tree.map(lambda x: x.value, (hidden, weight, *per_token))
    return _run(loss, *arrays, trained=sums.perturbed)


def _backward(loss, gradients, cotangents):
    if isinstance(cotangents[0], SymbolicZero):
        return (None,) * 6
    scaled = jax.tree.map(lambda x: (x * cotangents[0]).astype(x.dtype), gradients)
    grad_hidden, grad_sums = scaled
    return grad_hidden, None, grad_sums, None, None, None


_loss.defvjp(_forward, _backward, symbolic_zeros=True)


def _needed(states: jax.Array, mask: jax.Array) -> jax.Array:
    """Whether a chunk has a token of the mask, on any device.

    The answer waits for the states. Otherwise devices could ask for it before or after they ask
    for other such answers (attention's), and a CPU's devices would wait for each other for ever. A
    state that is no number makes the answer True, which costs time alone.
    """
    return (mask | jnp.isnan(states[..., 0])).any()


def _sums_of_shards(states: jax.Array, by_logits: jax.Array) -> jax.Array:
    """The gradient of the head f32 [R, E, V]: each row shard's sum over its tokens.

    Of states [B, T, E] and the loss's gradients by their logits [B, T, V]. It has the order [E, V]:
    as [V, E], each chunk's product would begin with a transposition of its largest factor,
    by_logits. One transposition, where the shards' sums are added, is enough.
    """

    def by_shard(x, axis):
        x = x.reshape(row_shards(), -1, *x.shape[1:])
        return constrain(x, "batch", None, None, axis)

    parts = by_shard(states, None), by_shard(by_logits, "vocab")
    return constrain(einsum("rbte,rbtv->rev", *parts), "batch", None, "vocab")


def _logprobs(scaled: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The targets' log-probs f32 [B, T], all probabilities f32 [B, T, V], and the log-sum-exp
    f32 [B, T], of scaled logits."""
    largest = scaled.max(axis=-1, keepdims=True)
    exponentials = jnp.exp(scaled - largest)
    total = exponentials.sum(axis=-1, keepdims=True)
    log_sum_exp = (largest + jnp.log(total))[..., 0]
    # A sum with one term that is not 0: a lookup would gather a vocabulary cut over the mesh.
    chosen = jnp.where(_is_target(scaled, targets), scaled, 0).sum(axis=-1)
    return chosen - log_sum_exp, exponentials / total, log_sum_exp


def _entropy(scaled: jax.Array, probabilities: jax.Array, log_sum_exp: jax.Array) -> jax.Array:
    """Of the distributions [B, T, V], in nats: f32 [B, T]."""
    return -(probabilities * (scaled - log_sum_exp[..., None])).sum(axis=-1)


def _scaled_logits(states: jax.Array, head: jax.Array, temperature: float) -> jax.Array:
    return constrain(logits(states, head) / temperature, "batch", None, "vocab")


def _is_target(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Bool [B, T, V], True at each token's target."""
    return jax.lax.broadcasted_iota(jnp.int32, logits.shape, 2) == targets[..., None]


def _cut(tree, logits_chunk: int):
    """Arrays [B, T, ...] as [chunks, B, width, ...], padded with 0.

    A chunk has about `logits_chunk` tokens of each row shard.
    """
    B, T = jax.tree.leaves(tree)[0].shape[:2]
    width = max(1, min(T, logits_chunk * row_shards() // B))
    chunks = -(-T // width)

    def cut(x):
        rest = x.shape[2:]
        x = jnp.pad(x, ((0, 0), (0, chunks * width - T), *((0, 0) for _ in rest)))
        return jnp.moveaxis(x.reshape(B, chunks, width, *rest), 1, 0)

    return jax.tree.map(cut, tree)


def _join(tree, length: int):
    """The inverse of `_cut`."""

    def join(x):
        chunks, B, width = x.shape[:3]
        return jnp.moveaxis(x, 0, 1).reshape(B, chunks * width, *x.shape[3:])[:, :length]

    return jax.tree.map(join, tree)
