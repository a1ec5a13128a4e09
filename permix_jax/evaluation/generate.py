"""Completions for a list of prompts, batched, by the rollout code that training uses."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from permix_jax.models.policy import Policy
from permix_jax.rollout.padding import bucket, right_pad
from permix_jax.rollout.sampler import sample
from permix_jax.rollout.sampling import Sampling
from permix_jax.sharding import shard_rows, to_host


class Answer(NamedTuple):
    """One completion; `truncated` where the budget ran out."""

    text: str
    truncated: bool


def generate(
    policy: Policy,
    params,
    prompts: Sequence[Sequence[int]],
    samples: int,
    sampling: Sampling,
    key: jax.Array,
    batch_size: int,
    max_prompt_tokens: int,
    mesh: Mesh,
    after_batch: Callable[[list[list[Answer]]], None],
    first: int = 0,
) -> list[list[Answer]]:
    """`samples` answers to each prompt from number `first` on.

    Answer s to prompt i depends on (key, i, s) alone, not on its batch: the same key gives two
    policies the same random numbers.

    Args:
      batch_size: completions generated at once; `samples` of a prompt stay together.
      after_batch: called with the answers of each finished batch.
      first: the prompts before it are passed over. With a multiple of `prompts_per_batch` the
        batches, and so the answers, are those of all prompts to the last bit.
    """
    if first >= len(prompts):
        return []
    per_batch = prompts_per_batch(batch_size, samples)
    length = bucket(max(map(len, prompts)), max_prompt_tokens)
    answers = []
    for start in range(first, len(prompts), per_batch):
        chunk = prompts[start : start + per_batch]
        # The last batch is filled up with copies, so that one compiled program serves all.
        filled = [*chunk, *[chunk[0]] * (per_batch - len(chunk))]
        rows = start * samples + jnp.arange(per_batch * samples)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
        placed = shard_rows((*right_pad(filled, length), keys), mesh)
        out = sample(policy.model, params, *placed, sampling, policy.end_tokens)
        out = to_host(out)
        texts = policy.text(out.tokens, out.mask)
        flat = [Answer(*pair) for pair in zip(texts, out.truncated.tolist(), strict=True)]
        done = [flat[i * samples : (i + 1) * samples] for i in range(len(chunk))]
        answers += done
        after_batch(done)
    return answers


def prompts_per_batch(batch_size: int, samples: int) -> int:
    """How many prompts are answered at once."""
    return max(1, batch_size // samples)
