"""How likely a frozen reference model finds responses, under personas that may not be their own."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np

from permix_jax.core.persona import Persona
from permix_jax.core.progress import LIKELIHOODS, Progress
from permix_jax.core.sharding import row_shards, shard_packed, to_host
from permix_jax.evaluation.graded_rows import GradedRows
from permix_jax.models.lm_head import Scoring
from permix_jax.models.logprobs import score
from permix_jax.models.packing import Ragged, RowShape, pack, row_shapes
from permix_jax.models.policy import LoadedPolicy, Policy, StoredPolicy
from permix_jax.personas.prompts import render_all
from permix_jax.rollout.generate import prompts_per_batch

_MAX_WIDTH = 16  # responses that share a prompt in one batch


@dataclass(frozen=True)
class Reference:
    """The frozen model that scores responses, the same for all policies that are to be compared.

    stored: the model; its parameters are loaded if there is anything left to score.
    batch_size: responses that are sent to the device at once.
    micro_batch_tokens: tokens that a device computes at once.
    logits_chunk: about how many tokens' logits a device has at once.
    check_stop: called between batches; may raise, after which what is scored is kept.
    """

    stored: StoredPolicy
    batch_size: int
    micro_batch_tokens: int
    logits_chunk: int
    check_stop: Callable[[], None] = lambda: None


class Response(NamedTuple):
    """A response to `prompt`; `ended` is False where the budget of tokens cut it off."""

    prompt: str
    text: str
    ended: bool


class Pair(NamedTuple):
    """The key of a row: a response's number, and a persona's id or None for the plain prompt."""

    response: int
    persona: str | None


class _Group(NamedTuple):
    """One prompt under one persona, in tokens, and the numbers of the responses that share it."""

    persona: str | None
    prompt: list[int]
    members: list[int]


def response_tokens(policy: Policy, responses: Sequence[Response]) -> list[list[int]]:
    """Each response's text in the policy's tokens, with the end token where it ended."""
    texts = policy.tokenizer([r.text for r in responses], add_special_tokens=False)["input_ids"]
    end = policy.end_tokens[0]
    return [[*ids, end] if r.ended else list(ids) for r, ids in zip(responses, texts, strict=True)]


def log_likelihoods(
    reference: Reference,
    responses: Sequence[Response],
    tokens: Sequence[Sequence[int]],
    personas: Sequence[Sequence[Persona | None]],
    path: Path,
    label: str,
) -> np.ndarray:
    """log p(response r | persona c, its prompt), in nats, summed over its tokens: float64 [R, C].

    Responses to one prompt under one persona share one copy of it, as in an update of the policy.
    Up to rounding, a result does not depend on the batch. If it was interrupted, scoring goes on
    after the last batch in the file, and ends in the same file.

    Args:
      responses: [R], at least one.
      tokens: [R], each at least one; see `response_tokens`.
      personas: [R][C] whom to score each response under; None is the plain prompt.
      path: JSONL, a row for each Pair with its `logp`, in the order in which they are scored.
      label: what the progress bar says.

    Raises OSError where the disk is full; what was written stays.
    """
    mesh, batch_size = reference.stored.mesh, reference.batch_size
    groups, width = _groups(reference.stored.policy, responses, personas, batch_size)
    number = prompts_per_batch(batch_size, width, mesh)
    batches = [groups[at : at + number] for at in range(0, len(groups), number)]
    shapes = row_shapes(
        (number, _rounded(max(len(group.prompt) for group in groups))),
        (number * width, _rounded(max(map(len, tokens)))),
        row_shards(mesh),
        reference.micro_batch_tokens,
    )
    keys = [[Pair(m, g.persona) for g in batch for m in g.members] for batch in batches]
    with (
        GradedRows(path, keys) as log,
        Progress(label, log.total, len(log.rows), LIKELIHOODS) as progress,
    ):
        loaded = reference.stored.load() if len(log.rows) < log.total else None
        for batch, of_batch, end in zip(batches, keys, accumulate(map(len, keys)), strict=True):
            if end > len(log.rows):
                logp = _score_batch(loaded, batch, tokens, shapes, reference.logits_chunk)
                rows = zip(of_batch, logp, strict=True)
                log.append([key._asdict() | {"logp": value} for key, value in rows])
                progress.advance(len(of_batch))
                reference.check_stop()
        scored = {(row["response"], row["persona"]): row["logp"] for row in log.rows}
    return np.array(
        [[scored[r, p.id if p else None] for p in under] for r, under in enumerate(personas)]
    )


def packed_logprobs(
    policy: LoadedPolicy,
    prompts: Ragged,
    completions: Ragged,
    owners: np.ndarray,
    shapes: Sequence[RowShape],
    scoring: Scoring,
) -> np.ndarray:
    """Log-probs f32 [total] of the flat completion tokens; arguments as in `pack`."""
    packing = pack(prompts, completions, owners, shapes)
    rows = shard_packed(packing.rows, policy.mesh)
    return packing.collect(to_host(score(policy.policy.model, policy.params, rows, scoring)))


def _score_batch(
    policy: LoadedPolicy,
    batch: Sequence[_Group],
    tokens: Sequence[Sequence[int]],
    shapes: Sequence[RowShape],
    logits_chunk: int,
) -> list[float]:
    """log p of the groups' members, in their order."""
    prompts = Ragged.of([group.prompt for group in batch])
    responses = Ragged.of([tokens[m] for group in batch for m in group.members])
    owners = np.repeat(np.arange(len(batch)), [len(group.members) for group in batch])
    scoring = Scoring(1.0, logits_chunk)
    logprobs = packed_logprobs(policy, prompts, responses, owners, shapes, scoring)
    parts = np.split(logprobs.astype(np.float64), np.cumsum(responses.lengths)[:-1])
    return [float(part.sum()) for part in parts]


def _rounded(length: int) -> int:
    """Up to a multiple of 16, so that other policies' responses mostly use the same program."""
    return -(-length // 16) * 16


def _groups(
    policy: Policy,
    responses: Sequence[Response],
    personas: Sequence[Sequence[Persona | None]],
    batch_size: int,
) -> tuple[list[_Group], int]:
    """Groups of at most `width` responses with the same prompt, and that width: about the mean."""
    shared: dict[tuple, tuple[Persona | None, str, list[int]]] = {}
    for number, (response, under) in enumerate(zip(responses, personas, strict=True)):
        for persona in under:
            key = (response.prompt, persona.id if persona else None)
            shared.setdefault(key, (persona, response.prompt, []))[2].append(number)
    mean = sum(len(members) for *_, members in shared.values()) // len(shared)
    width = max(1, min(mean, _MAX_WIDTH, batch_size))
    rendered = render_all(policy.tokenizer, [(p, prompt) for p, prompt, _ in shared.values()])
    return [
        _Group(persona, ids, members[start : start + width])
        for (_, persona), ids, (*_, members) in zip(shared, rendered, shared.values(), strict=True)
        for start in range(0, len(members), width)
    ], width
