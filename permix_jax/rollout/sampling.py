"""Drawing tokens from logits."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from permix_jax.core.sharding import shards

_BLOCK = 256  # vocabulary entries per block of the two-level draw


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn; static in every jitted function.

    temperature 0 is greedy decoding; top_k 0 and top_p 1 leave the distribution whole. As rows
    end, the batch is halved up to `halvings` times: that changes speed, not what is drawn.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    halvings: int = 0


def draw(keys: jax.Array, logits: jax.Array, sampling: Sampling) -> tuple[jax.Array, jax.Array]:
    """Draws one token per row.

    Args:
      keys: [B] one key a row, so that a row's token does not depend on its neighbours.
      logits: f32 [B, V].

    Returns:
      tokens int32 [B], and f32 [B] their log-probs under exactly the distribution drawn from:
      tempered, and truncated and renormalised where top-k or top-p is on. (Greedy: under the
      untempered one, since a point mass has nothing to tell.)
    """
    if sampling.temperature > 0:
        logits = truncate(logits / sampling.temperature, sampling.top_k, sampling.top_p)
    largest = logits.max(axis=-1)
    weights = jnp.exp(logits - largest[:, None])
    if sampling.temperature == 0:
        tokens, total = jnp.argmax(logits, axis=-1), weights.sum(axis=-1)
    else:
        uniforms = jax.vmap(lambda key: jax.random.uniform(key, (2,)))(keys)
        tokens, total = inverse_cdf(weights, uniforms)
    chosen = jnp.take_along_axis(logits, tokens[:, None], axis=-1)[:, 0]
    return tokens.astype(jnp.int32), chosen - largest - jnp.log(total)


def truncate(logits: jax.Array, top_k: int, top_p: float) -> jax.Array:
    """Logits [B, V] with -inf outside the top k and outside the smallest set of mass >= top_p."""
    if top_k:
        kth = jax.lax.top_k(logits, min(top_k, logits.shape[-1]))[0][:, -1:]
        logits = jnp.where(logits < kth, -jnp.inf, logits)
    if top_p < 1:
        descending = jnp.sort(logits, axis=-1, descending=True)
        probabilities = jax.nn.softmax(descending, axis=-1)
        # A token stays while the mass before it is below top_p; the first one always does.
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        cutoff = jnp.where(before < top_p, descending, jnp.inf).min(axis=-1, keepdims=True)
        logits = jnp.where(logits < cutoff, -jnp.inf, logits)
    return logits


def inverse_cdf(weights: jax.Array, uniforms: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Indices drawn in proportion to weights f32 [B, V], by uniforms in [0, 1) [B, 2]; and their
    sums, f32 [B].

    First a block of the vocabulary, then an entry of the block: one pass over the vocabulary and
    two short cumulative sums, a third of the time of Gumbel noise over the vocabulary, and
    finer-grained than one f32 cumulative sum over it. An entry of weight 0 is never drawn.
    """
    B, V = weights.shape
    # As many on every device: otherwise each would gather the whole vocabulary to cut it.
    blocks = -(-V // (_BLOCK * shards("vocab"))) * shards("vocab")
    weights = jnp.pad(weights, ((0, 0), (0, blocks * _BLOCK - V))).reshape(B, blocks, _BLOCK)
    of_block = weights.sum(axis=-1)
    block = _pick(of_block, uniforms[:, 0])
    entries = jnp.take_along_axis(weights, block[:, None, None], axis=1)[:, 0]
    entry = _pick(entries, uniforms[:, 1])
    return block * _BLOCK + entry, of_block.sum(axis=-1)


def _pick(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    # Parallel prefix sums need not be monotone in f32: entries of weight 0 are masked out by hand.
    cumulative = jnp.where(weights > 0, jnp.cumsum(weights, axis=-1), 0)
    threshold = uniform * cumulative.max(axis=-1)
    return jnp.argmax(cumulative > threshold[:, None], axis=-1)
