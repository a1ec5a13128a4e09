"""Supervised fine-tuning: cross-entropy on the completions of demonstrations."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from permix_jax.core.problem import Demonstration
from permix_jax.models.packing import PackedRows, Packing, Ragged, RowShape, pack
from permix_jax.models.policy import Policy
from permix_jax.personas.prompts import render_all


class SftTokens(NamedTuple):
    """What cross-entropy knows of each target, f32 [M, R, L]: 1 / their number, 0 where there is
    none; as the weight of its loss, and as the share of its metrics."""

    weights: jax.Array
    shares: jax.Array


class SftBatch(NamedTuple):
    """Demonstrations in packed rows."""

    rows: PackedRows
    tokens: SftTokens


def cross_entropy(logprobs: jax.Array, tokens: SftTokens) -> tuple[jax.Array, dict]:
    """The loss of each token in nats, for `gradients.packed_gradients`; it has no metrics."""
    return -logprobs, {}


def pack_demonstrations(
    policy: Policy,
    demonstrations: Sequence[Demonstration],
    limits: tuple[int, int],
    shapes: Sequence[RowShape],
) -> SftBatch:
    """Demonstrations as a batch on the host; equal prompts are computed once.

    Args:
      limits: tokens of a prompt, and of a completion: it ends in an end token, or is cut there.

    Raises:
      ValueError: a prompt is over its limit.
    """
    prompts = render_all(policy.tokenizer, [(d.persona, d.prompt) for d in demonstrations])
    if longest := max((len(ids) for ids in prompts if len(ids) > limits[0]), default=0):
        raise ValueError(
            f"a demonstration's prompt has {longest} tokens, over the {limits[0]} of "
            "rollout.max_prompt_tokens: raise it, or leave that problem out"
        )
    texts = [d.completion for d in demonstrations]
    encoded = policy.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    completions = [[*ids, policy.end_tokens[0]][: limits[1]] for ids in encoded]
    return sft_batch(prompts, Ragged.of(completions), shapes)


def sft_batch(
    prompts: Sequence[Sequence[int]], completions: Ragged, shapes: Sequence[RowShape]
) -> SftBatch:
    """A prompt for each of the completions, as a batch on the host."""
    number: dict[tuple[int, ...], int] = {}
    owners = [number.setdefault(tuple(ids), len(number)) for ids in prompts]
    return of_packing(pack(Ragged.of(list(number)), completions, np.array(owners), shapes))


def of_packing(packing: Packing) -> SftBatch:
    """The batch whose loss is the mean negative log-prob of a token, in nats."""
    scored = packing.rows.scored
    shares = np.float32(scored) / np.float32(max(scored.sum(), 1))
    return SftBatch(packing.rows, SftTokens(shares, shares))
