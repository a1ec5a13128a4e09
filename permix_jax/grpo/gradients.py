"""The gradient of the GRPO loss on a persona-mixed batch of rollouts, micro-batched."""

import jax
import jax.numpy as jnp

from permix_jax.grpo.batch import RolloutBatch
from permix_jax.grpo.loss import LossConfig, kept_tokens, token_losses, token_weights
from permix_jax.grpo.micro_batches import accumulate
from permix_jax.models.lm_head import TokenStatistics
from permix_jax.models.logprobs import completion_logprobs
from permix_jax.models.params import join
from permix_jax.models.transformer import Decoder


def score(
    model: Decoder, params, batch: RolloutBatch, temperature: float, chunk_tokens: int
) -> TokenStatistics:
    """Log-probs and entropy [N, T] of the batch's completions under `params`."""
    return completion_logprobs(
        model,
        params,
        batch.prompt_tokens,
        batch.prompt_mask,
        batch.completion_tokens,
        batch.completion_mask,
        temperature,
        chunk_tokens,
    )


def grpo_gradients(
    model: Decoder,
    params,
    batch: RolloutBatch,
    loss: LossConfig,
    temperature: float,
    micro_batches: int,
    chunk_tokens: int,
    frozen: dict | None = None,
) -> tuple[dict, dict[str, jax.Array]]:
    """Gradients and metrics of the whole batch, computed in `micro_batches` parts.

    Args:
      params: what the gradients are of.
      frozen: the rest of the decoder's parameters, where `params` are adapters.

    Returns:
      (gradients like params, f32 scalars by metric name); the same, up to rounding, for any
      number of parts, which must divide the number of distinct prompts.
    """
    weights = token_weights(batch, loss)
    # Metrics are means over the tokens that the loss sees, however the loss weighs them.
    kept = kept_tokens(batch, loss).astype(jnp.float32)
    shares = kept / jnp.maximum(kept.sum(), 1)

    def part_loss(params, part):
        batch, weights, shares = part
        statistics = score(model, join(params, frozen or {}), batch, temperature, chunk_tokens)
        losses, metrics = token_losses(statistics.logprobs, batch, loss)
        metrics["entropy"] = statistics.entropy
        total = weighted_sum(weights, losses)
        return total, {"loss": total, **{k: weighted_sum(shares, v) for k, v in metrics.items()}}

    return accumulate(
        jax.grad(part_loss, has_aux=True),
        params,
        (batch, weights, shares),
        micro_batches,
        prompts=batch.prompt_tokens.shape[0],
    )


def weighted_sum(weights: jax.Array, values: jax.Array) -> jax.Array:
    """Sum of weights * values that ignores, in value and gradient, whatever has weight 0."""
    return (weights * jnp.where(weights > 0, values, 0)).sum()
