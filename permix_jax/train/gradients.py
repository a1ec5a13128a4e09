"""The gradient of the GRPO loss on a persona-mixed batch of rollouts, by micro-batches."""

import jax
import jax.numpy as jnp

from permix_jax.models.lm_head import LOGITS_CHUNK, TokenLoss, head_logprobs, head_loss
from permix_jax.models.logprobs import head_weight, packed_states
from permix_jax.models.params import join
from permix_jax.models.transformer import Decoder
from permix_jax.train.batch import RolloutBatch
from permix_jax.train.loss import LossConfig, loss_tokens, token_losses
from permix_jax.train.micro_batches import accumulate, micro_batch
from permix_jax.train.packing import Packing


def score(
    model: Decoder,
    params,
    batch: RolloutBatch,
    packing: Packing,
    temperature: float,
    logits_chunk: int,
) -> jax.Array:
    """Log-probs f32 [N, T] of the batch's completions under `params`; 0 outside them."""
    found = jnp.zeros(batch.completion_tokens.size, jnp.float32)
    head = head_weight(model, params)

    def one_part(i, found):
        part = micro_batch(packing, i)
        scored = _states_and_targets(model, params, batch, part)
        logprobs = head_logprobs(scored[0], head, *scored[1:], temperature, logits_chunk)
        return found.at[part.targets].set(logprobs, mode="drop")

    found = jax.lax.fori_loop(0, packing.count, one_part, found)
    return found.reshape(batch.completion_tokens.shape)


def _states_and_targets(model: Decoder, params, batch: RolloutBatch, part: Packing):
    """Of one micro-batch: states [R, L, E], the tokens that they predict [R, L], and which are."""
    completions = batch.completion_tokens.reshape(-1)
    tokens = jnp.concatenate([batch.prompt_tokens.reshape(-1), completions])[part.tokens]
    real = part.targets < completions.size
    targets = completions[jnp.where(real, part.targets, 0)]
    return packed_states(model, params, tokens, part.tree, part.states), targets, real


def grpo_gradients(
    model: Decoder,
    params,
    batch: RolloutBatch,
    packing: Packing,
    loss: LossConfig,
    temperature: float = 1.0,
    logits_chunk: int = LOGITS_CHUNK,
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

    def token_loss(logprobs, tokens):
        return weighted(tokens.weights, token_losses(logprobs, tokens, loss)[0])

    def part_loss(params, part):
        # A slot that holds no target looks up nothing: weight 0, and not kept.
        mine = jax.tree.map(lambda x: x.at[part.targets].get(mode="fill", fill_value=0), tokens)
        everything = join(params, frozen or {})
        hidden, *targets = _states_and_targets(model, everything, batch, part)
        head = head_weight(model, everything)
        summed = TokenLoss(token_loss, temperature, logits_chunk)
        total, statistics = head_loss(summed, hidden, head, *targets, mine)
        _, metrics = token_losses(statistics.logprobs, mine, loss)
        metrics["entropy"] = statistics.entropy
        means = {name: weighted(mine.shares, x).sum() for name, x in metrics.items()}
        largest = jnp.where(mine.kept, metrics["sampling/logp_difference"], 0).max()
        return total, {"loss": total, **means, "sampling/logp_difference_max": largest}

    gradients_of = jax.grad(part_loss, has_aux=True)
    return accumulate(gradients_of, params, packing, packing.count)


def weighted(weights: jax.Array, values: jax.Array) -> jax.Array:
    """weights * values, but 0, in value and gradient, wherever the weight is 0."""
    return weights * jnp.where(weights > 0, values, 0)
