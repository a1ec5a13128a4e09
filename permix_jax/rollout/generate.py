"""Completions for a list of prompts, batched, by the rollout code that training uses."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from permix_jax.core.sharding import row_parts, shard_rows, to_host
from permix_jax.models.policy import LoadedPolicy, Policy
from permix_jax.rollout.padding import bucket, right_pad
from permix_jax.rollout.sampler import Completions, sample
from permix_jax.rollout.sampling import Sampling


class Answer(NamedTuple):
    """One completion; `truncated` where the budget ran out."""

    text: str
    truncated: bool


class Batch(NamedTuple):
    """What was generated at once, on the host.

    prompts: tokens and mask [U, P]. The first `number` of the U were to be answered; a last batch
      is filled up with copies, so that one compiled program serves all.
    completions: [U * samples, T]; those of a prompt stand together.
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
    """`samples` completions of each prompt from number `first` on, batch by batch.

    Completion s of prompt i depends on (key, i, s) alone, not on its batch: the same key gives two
    policies the same random numbers.

    Args:
      batch_size: completions generated at once, rounded as `prompts_per_batch` says; `samples` of
        a prompt stay together.
      first: the prompts before it are passed over. With a multiple of `prompts_per_batch` the
        batches, and so the completions, are those of all prompts to the last bit.
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
    """The completions of each prompt, in words."""
    tokens, mask, _, truncated = batch.completions
    answers = list(map(Answer, policy.text(tokens, mask), truncated.tolist()))
    samples = len(answers) // len(batch.prompts[0])
    return [answers[i * samples : (i + 1) * samples] for i in range(batch.number)]


def prompts_per_batch(batch_size: int, samples: int, mesh: Mesh) -> int:
    """How many prompts are answered at once: as many for each part of the mesh's rows, at least
    one, and no more than `batch_size` completions of them where that allows it."""
    parts = row_parts(mesh)
    return max(1, batch_size // (samples * parts)) * parts
