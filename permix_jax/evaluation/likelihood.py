"""How likely a frozen reference model finds responses, under personas that may not be their own."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from permix_jax.evaluation.judge_free import sum_tokens
from permix_jax.models.logprobs import completion_logprobs
from permix_jax.models.policy import Policy
from permix_jax.models.transformer import Decoder
from permix_jax.personas.persona import Persona
from permix_jax.personas.prompts import render_all
from permix_jax.rollout.padding import right_pad
from permix_jax.sharding import shard_rows

_MAX_WIDTH = 16  # responses that share a prompt in one batch


class Response(NamedTuple):
    """What somebody said to `prompt`; `ended` unless the budget of tokens cut it off."""

    prompt: str
    text: str
    ended: bool


class _Group(NamedTuple):
    """Responses, by number, that are scored after one prompt: that of the same persona."""

    persona: Persona | None
    prompt: str
    members: list[int]


def response_tokens(policy: Policy, responses: Sequence[Response]) -> list[list[int]]:
    """Each response's text in the policy's tokens, with the end token where it ended."""
    texts = policy.tokenizer([r.text for r in responses], add_special_tokens=False)["input_ids"]
    end = policy.end_tokens[0]
    return [[*ids, end] if r.ended else list(ids) for r, ids in zip(responses, texts, strict=True)]


def log_likelihoods(
    policy: Policy,
    params,
    responses: Sequence[Response],
    tokens: Sequence[Sequence[int]],
    personas: Sequence[Sequence[Persona | None]],
    batch_size: int,
    chunk_tokens: int,
    mesh: Mesh,
    after_batch: Callable[[int], None] = lambda scored: None,
) -> np.ndarray:
    """log p(response r | persona c, its prompt), in nats, summed over its tokens: float64 [R, C].

    Responses to one prompt under one persona are scored after one copy of it, as in an update of
    the policy. A figure does not depend on the batch but for rounding.

    Args:
      tokens: [R], each at least one; see `response_tokens`.
      personas: [R][C] whom to score each response under; None is the plain prompt.
      batch_size: responses scored at once.
      chunk_tokens: about how many tokens' logits exist at once.
      after_batch: called with the number of figures that a batch gave.
    """
    groups, width = _groups(responses, personas, batch_size)
    ids = render_all(policy.tokenizer, [(g.persona, g.prompt) for g in groups])
    prompt_length, length = _rounded(max(map(len, ids))), _rounded(max(map(len, tokens)))
    devices = mesh.shape["data"] * mesh.shape["fsdp"]
    per_batch = max(1, batch_size // (width * devices)) * devices

    found: dict[tuple[int, str | None], float] = {}
    for start in range(0, len(groups), per_batch):
        chunk = groups[start : start + per_batch]
        # Filled up with copies, groups and batch, so that one compiled program serves all.
        filled = [*range(start, start + len(chunk)), *[start] * (per_batch - len(chunk))]
        rows = [
            member
            for g in filled
            for member in (groups[g].members + groups[g].members[:1] * width)[:width]
        ]
        prompts = right_pad([ids[g] for g in filled], prompt_length)
        completions = right_pad([tokens[r] for r in rows], length)
        placed = shard_rows((*prompts, *completions), mesh)
        logprobs = _score(policy.model, params, *placed, chunk_tokens=chunk_tokens)
        sums = sum_tokens(np.asarray(logprobs), completions[1]).reshape(per_batch, width)
        for group, values in zip(chunk, sums, strict=False):
            name = group.persona.id if group.persona else None
            for member, value in zip(group.members, values, strict=False):
                found[member, name] = float(value)
        after_batch(sum(len(group.members) for group in chunk))
    return np.array(
        [[found[r, p.id if p else None] for p in under] for r, under in enumerate(personas)]
    )


@partial(jax.jit, static_argnames=("model", "chunk_tokens"))
def _score(model: Decoder, params, *arrays: jax.Array, chunk_tokens: int) -> jax.Array:
    return completion_logprobs(model, params, *arrays, 1.0, chunk_tokens).logprobs


def _rounded(length: int) -> int:
    """Up to a multiple of 16, so that responses of another policy mostly find their program."""
    return -(-length // 16) * 16


def _groups(
    responses: Sequence[Response], personas: Sequence[Sequence[Persona | None]], batch_size: int
) -> tuple[list[_Group], int]:
    """Groups of at most `width` responses with the same prompt, and that width: about the mean."""
    shared: dict[tuple, tuple[Persona | None, str, list[int]]] = {}
    for number, (response, under) in enumerate(zip(responses, personas, strict=True)):
        for persona in under:
            key = (response.prompt, persona.id if persona else None)
            shared.setdefault(key, (persona, response.prompt, []))[2].append(number)
    mean = sum(len(members) for *_, members in shared.values()) // len(shared)
    width = max(1, min(mean, _MAX_WIDTH, batch_size))
    return [
        _Group(persona, prompt, members[start : start + width])
        for persona, prompt, members in shared.values()
        for start in range(0, len(members), width)
    ], width
