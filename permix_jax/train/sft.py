"""Supervised fine-tuning: cross-entropy on the completions of demonstrations."""

from collections.abc import Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from permix_jax.core.problem import Demonstration
from permix_jax.models.lm_head import TokenLoss, head_loss
from permix_jax.models.logprobs import completion_states, head_weight
from permix_jax.models.params import join
from permix_jax.models.policy import Policy
from permix_jax.models.transformer import Decoder
from permix_jax.personas.prompts import render_all
from permix_jax.rollout.padding import right_pad
from permix_jax.train.micro_batches import accumulate, split_rows


@flax.struct.dataclass
class SFTBatch:
    """prompt_tokens, prompt_mask [B, P]; completion_tokens, completion_mask [B, T]."""

    prompt_tokens: jax.Array
    prompt_mask: jax.Array
    completion_tokens: jax.Array
    completion_mask: jax.Array


def make_sft_batch(
    policy: Policy,
    demonstrations: Sequence[Demonstration],
    max_prompt_tokens: int,
    max_new_tokens: int,
) -> SFTBatch:
    """Demonstrations as arrays; completions end in an end token, or are cut at the budget."""
    prompts = render_all(policy.tokenizer, [(d.persona, d.prompt) for d in demonstrations])
    encoded = policy.tokenizer([d.completion for d in demonstrations], add_special_tokens=False)
    completions = [[*ids, policy.end_tokens[0]][:max_new_tokens] for ids in encoded["input_ids"]]
    return SFTBatch(*right_pad(prompts, max_prompt_tokens), *right_pad(completions, max_new_tokens))


def padded_sft_batch(
    policy: Policy,
    rows: int,
    demonstrations: Sequence[Demonstration],
    max_prompt_tokens: int,
    max_new_tokens: int,
) -> SFTBatch:
    """The demonstrations as a batch of `rows`, at least as many: of a number that the mesh cuts
    into equal parts, and of one that is the same at every step, so that one program serves all.

    Rows beyond the demonstrations have nothing in their completion mask, and so no part in the
    loss.
    """
    filler = Demonstration(None, ".", "")
    filled = [*demonstrations, *[filler] * (rows - len(demonstrations))]
    batch = make_sft_batch(policy, filled, max_prompt_tokens, max_new_tokens)
    return batch.replace(completion_mask=first_rows(batch.completion_mask, len(demonstrations)))


def first_rows(mask: jax.Array, rows: int) -> jax.Array:
    """The mask [B, T], False in the rows from number `rows` on."""
    if rows == len(mask):
        return mask
    return mask & (np.arange(len(mask)) < rows)[:, None]


def sft_gradients(
    model: Decoder,
    params,
    batch: SFTBatch,
    logits_chunk: int,
    temperature: float = 1.0,
    frozen: dict | None = None,
    parts: int = 1,
) -> tuple[dict, dict[str, jax.Array]]:
    """Gradients and metrics of the mean negative log-prob, in nats per completion token.

    Args:
      params: what the gradients are of.
      temperature: divides the logits; that of sampling, where a policy wrote the completions.
      frozen: the rest of the decoder's parameters, where `params` are adapters.
      parts: how many it is computed in, one after another; divides the rows.

    A batch without a completion token has loss and gradient 0.
    """
    shares = batch.completion_mask / jnp.maximum(batch.completion_mask.sum(), 1)

    def part_loss(params, part):
        batch, shares = part
        everything = join(params, frozen or {})
        completions = batch.completion_tokens, batch.completion_mask
        hidden = completion_states(
            model, everything, batch.prompt_tokens, batch.prompt_mask, *completions
        )
        negative = lambda logprobs, shares: -shares * logprobs  # noqa: E731
        head = head_weight(model, everything)
        summed = TokenLoss(negative, temperature, logits_chunk)
        loss, statistics = head_loss(summed, hidden, head, *completions, shares)
        entropy = jnp.where(batch.completion_mask, shares * statistics.entropy, 0).sum()
        return loss, {"loss": loss, "entropy": entropy}

    gradients_of = jax.grad(part_loss, has_aux=True)
    return accumulate(gradients_of, params, split_rows((batch, shares), parts), parts)
