"""The gradient of the GRPO loss on a persona-mixed batch of rollouts, by micro-batches."""

import jax
import jax.numpy as jnp

from permix_jax.grpo.batch import RolloutBatch
from permix_jax.grpo.loss import LossConfig, loss_tokens, token_losses
from permix_jax.grpo.micro_batches import accumulate, micro_batch
from permix_jax.grpo.packing import Packing
from permix_jax.models.lm_head import TokenStatistics
from permix_jax.models.logprobs import packed_logprobs
from permix_jax.models.params import join
from permix_jax.models.transformer import Decoder


def score(
    model: Decoder,
    params,
    batch: RolloutBatch,
    packing: Packing,
    temperature: float,
    chunk_tokens: int,
) -> TokenStatistics:
    """Log-probs and entropy [N, T] of the batch's completions under `params`; 0 outside them."""
    shape = batch.completion_tokens.shape
    zeros = jnp.zeros(batch.completion_tokens.size, jnp.float32)

    def one_part(i, found):
        part = micro_batch(packing, i)
        statistics = _score_part(model, params, batch, part, temperature, chunk_tokens)
        write = lambda all_, new: all_.at[part.targets].set(new, mode="drop")  # noqa: E731
        return TokenStatistics(*map(write, found, statistics))

    found = jax.lax.fori_loop(0, packing.count, one_part, TokenStatistics(zeros, zeros))
    return TokenStatistics(*(x.reshape(shape) for x in found))


def _score_part(
    model: Decoder, params, batch: RolloutBatch, part: Packing, temperature, chunk_tokens
) -> TokenStatistics:
    """Of the completion tokens in one micro-batch, [R, L]."""
    completions = batch.completion_tokens.reshape(-1)
    tokens = jnp.concatenate([batch.prompt_tokens.reshape(-1), completions])[part.tokens]
    real = part.targets < completions.size
    targets = completions[jnp.where(real, part.targets, 0)]
    return packed_logprobs(
        model, params, tokens, part.tree, targets, real, part.states, temperature, chunk_tokens
    )


def grpo_gradients(
    model: Decoder,
    params,
    batch: RolloutBatch,
    packing: Packing,
    loss: LossConfig,
    temperature: float,
    chunk_tokens: int,
    frozen: dict | None = None,
) -> tuple[dict, dict[str, jax.Array]]:
    """Gradients and metrics of the whole batch, computed as it is packed.

    Args:
      params: what the gradients are of.
      frozen: the rest of the decoder's parameters, where `params` are adapters.

    Returns:
      (gradients like params, f32 scalars by metric name); the same, up to rounding, for any
      packing.
    """
    tokens = jax.tree.map(jnp.ravel, loss_tokens(batch, loss))

    def part_loss(params, part):
        # A slot that holds no target looks up nothing: weight 0, and not kept.
        mine = jax.tree.map(lambda x: x.at[part.targets].get(mode="fill", fill_value=0), tokens)
        everything = join(params, frozen or {})
        statistics = _score_part(model, everything, batch, part, temperature, chunk_tokens)
        losses, metrics = token_losses(statistics.logprobs, mine, loss)
        metrics["entropy"] = statistics.entropy
        total = weighted_sum(mine.weights, losses)
        means = {name: weighted_sum(mine.shares, x) for name, x in metrics.items()}
        largest = jnp.where(mine.kept, metrics["sampling/logp_difference"], 0).max()
        return total, {"loss": total, **means, "sampling/logp_difference_max": largest}

    gradients_of = jax.grad(part_loss, has_aux=True)
    return accumulate(gradients_of, params, packing, packing.count)


def weighted_sum(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Sum of weights * values that ignores, in value and gradient, whatever has weight 0."""
    return (weights * jnp.where(weights > 0, values, 0)).sum()
