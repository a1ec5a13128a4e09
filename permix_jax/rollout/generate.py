"""Completions for a list of prompts, batched and padded, by the code that training uses."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from permix_jax.core.sharding import row_shards, shard_rows, to_host
from permix_jax.models.policy import LoadedPolicy, Policy
from permix_jax.rollout.sampler import Completions, sample
from permix_jax.rollout.sampling import Sampling


class Answer(NamedTuple):
    """One completion; `truncated` where the budget ran out."""

    text: str
    truncated: bool


class Batch(NamedTuple):
    """What was generated at once, on the host.

    prompts: tokens and mask [U, P]. Only the first `number` of the U are to be answered: the last
      batch is filled up with copies, so that all batches have the shape of one program.
    completions: [U * samples, T]; those of one prompt stand together.
    """

    prompts: tuple[np.ndarray, np.ndarray]
    completions: Completions
    number: int


def generate(
    asked: LoadedPolicy,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    key: jax.Array,
    batch_size: int,
    max_prompt_tokens: int,
    samples: int = 1,
    first: int = 0,
) -> Iterator[Batch]:
    """Generates `samples` completions of each prompt, about `batch_size` at once, batch by batch.

    The random numbers of completion s of prompt i depend on (key, i, s) alone, not on its batch.
    So they are the same for two policies with the same key.

    `first`: number of the first prompt to answer. If it is a multiple of `prompts_per_batch`, the
    completions equal those of a call for all prompts bit for bit.
    """
    if first >= len(prompts):
        return
    policy, params, mesh = asked
    per_batch = prompts_per_batch(batch_size, samples, mesh)
    length = bucket(max(map(len, prompts)), max_prompt_tokens)
    for start in range(first, len(prompts), per_batch):
        chunk = prompts[start : start + per_batch]
        filled = right_pad([*chunk, *[chunk[0]] * (per_batch - len(chunk))], length)
        rows = start * samples + jnp.arange(per_batch * samples)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
        placed = shard_rows((filled, keys), mesh)
        out = sample(policy.model, params, *placed, sampling, policy.end_tokens)
        yield Batch(filled, to_host(out), len(chunk))


def answers_of(policy: Policy, batch: Batch) -> list[list[Answer]]:
    """The completions of each prompt as text."""
    tokens, mask, _, truncated = batch.completions
    answers = list(map(Answer, policy.text(tokens, mask), truncated.tolist()))
    samples = len(answers) // len(batch.prompts[0])
    return [answers[i * samples : (i + 1) * samples] for i in range(batch.number)]


def prompts_per_batch(batch_size: int, samples: int, mesh: Mesh) -> int:
    """How many prompts are answered at once, the same number on each part of the mesh's rows.

    Their completions are at most `batch_size`, but each part has at least one prompt.
    """
    parts = row_shards(mesh)
    return max(1, batch_size // (samples * parts)) * parts


def right_pad(rows: Sequence[Sequence[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int32 [rows, length], padded with 0; and a bool mask, True for what is not padding.

    Raises ValueError if a row is longer than `length`.
    """
    tokens = np.zeros((len(rows), length), np.int32)
    mask = np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        if len(row) > length:
            raise ValueError(f"row {i} has {len(row)} tokens, over the length of {length}")
        tokens[i, : len(row)] = row
        mask[i, : len(row)] = True
    return tokens, mask


def bucket(length: int, limit: int) -> int:
    """The padded length of `length` tokens: a quarter of `limit`, half of it, or all.

    Three lengths make at most three compiled programs, and no row of over a quarter of `limit` is
    padded to more than twice its length. Raises ValueError above the limit.
    """
    for size in (-(-limit // 4), -(-limit // 2), limit):
        if length <= size:
            return size
    raise ValueError(f"{length} tokens are over the limit of {limit}")


def power_of_two(length: int) -> int:
    """The least power of two that is not below `length`: few limits serve prompts of any length."""
    return 1 << (length - 1).bit_length()
