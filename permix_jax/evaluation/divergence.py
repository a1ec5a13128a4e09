"""How far a policy has moved from its base: an estimate of KL(policy || base) from its answers."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from permix_jax.distributed import is_main
from permix_jax.files import write_json
from permix_jax.models.logprobs import completion_logprobs
from permix_jax.models.policy import Policy
from permix_jax.personas.persona import Persona
from permix_jax.personas.prompts import render_all
from permix_jax.progress import Progress
from permix_jax.randomness import generator, key
from permix_jax.rollout.padding import bucket, right_pad
from permix_jax.rollout.sampler import sample
from permix_jax.rollout.sampling import Sampling
from permix_jax.sharding import shard_rows, to_host
from permix_jax.tasks.problem import Problem, Task


class KlSettings(NamedTuple):
    """responses: how many are sampled. sampling: as in training: its temperature is that of the two
    distributions. role_play: whether half of the prompts are conversation."""

    seed: int
    responses: int
    role_play: bool
    personas: int
    batch_size: int
    max_prompt_tokens: int
    chunk_tokens: int
    sampling: Sampling


class _Scored(NamedTuple):
    arrays: tuple  # prompt tokens and mask, completion tokens and mask, on the host
    logprobs: np.ndarray  # [rows, T], of the policy


def measure_kl(
    task: Task,
    policy: Policy,
    get_params: Callable[[], dict],
    base_policy: Policy,
    get_base: Callable[[], dict],
    mesh: Mesh,
    settings: KlSettings,
    path: Path,
    check_stop: Callable[[], None],
) -> None:
    """Writes `kl.json`: nats a response and a token, by kind of prompt, with 95 % intervals.

    The prompts are drawn from those of the evaluation: test problems under the held-out personas
    and none, conversation under held-out personas. Each is answered once. The estimator is k3,
    exp(-d) - 1 + d with d = log pi - log base of each token, summed over the response: unbiased for
    KL(policy || base) of whole responses, and never negative. `kl` is the mean over the kinds.

    First the policy's parameters are held, then the base's.
    """
    kinds = _prompts(task, settings)
    sampled, params = {}, get_params()
    with Progress("KL to the base policy", sum(map(len, kinds.values()))) as progress:
        for kind, pairs in kinds.items():
            sampled[kind] = []
            for part in _answer(policy, params, kind, pairs, mesh, settings):
                sampled[kind].append(part)
                progress.advance(len(part.logprobs))
                check_stop()
    del params
    base = get_base()
    score = jax.jit(partial(completion_logprobs, base_policy.model), static_argnums=(5, 6))
    by_task = {}
    for kind, parts in sampled.items():
        sums, tokens = [], []
        for part in parts:
            arrays = shard_rows(part.arrays, mesh)
            found = score(base, *arrays, settings.sampling.temperature, settings.chunk_tokens)
            mask = part.arrays[3]
            d = np.where(mask, part.logprobs - to_host(found.logprobs), 0.0)
            sums += (np.expm1(-d) + d).sum(axis=1).tolist()
            tokens += mask.sum(axis=1).tolist()
        number = len(kinds[kind])
        by_task[kind] = _summary(np.array(sums[:number]), np.array(tokens[:number]))
    mean = float(np.mean([entry["kl"] for entry in by_task.values()]))
    result = {"kl": mean, "estimator": "k3", "unit": "nats a response", "by_task": by_task}
    if is_main():
        write_json(path, result)


def _prompts(task: Task, settings: KlSettings) -> dict[str, list[tuple[Persona | None, Problem]]]:
    rng = generator(settings.seed, "evaluation/kl")
    personas = [p for p in task.personas if p.split == "heldout"][: settings.personas or None]
    asked = {"problems": (task.test, [None, *personas])}
    if settings.role_play:
        asked["role_play"] = (task.role_play, personas)
    number = max(1, settings.responses // len(asked))
    return {
        kind: [
            (who[rng.integers(len(who))], problems[rng.integers(len(problems))])
            for _ in range(number)
        ]
        for kind, (problems, who) in asked.items()
    }


def _answer(policy: Policy, params, kind: str, pairs: Sequence, mesh: Mesh, settings: KlSettings):
    """Yields _Scored for each batch; the last is filled up with copies."""
    ids = render_all(policy.tokenizer, [(p, q.prompt) for p, q in pairs])
    length = bucket(max(map(len, ids)), settings.max_prompt_tokens)
    rows = settings.batch_size
    kind_key = key(settings.seed, f"evaluation/kl/{kind}")
    for start in range(0, len(ids), rows):
        chunk = ids[start : start + rows]
        prompts = right_pad([*chunk, *[chunk[0]] * (rows - len(chunk))], length)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(kind_key, start + jnp.arange(rows))
        placed = shard_rows((*prompts, keys), mesh)
        out = sample(policy.model, params, *placed, settings.sampling, policy.end_tokens)
        out = to_host(out)
        yield _Scored((*prompts, out.tokens, out.mask), out.logprobs)


def _summary(sums: np.ndarray, tokens: np.ndarray) -> dict:
    half = 1.96 * sums.std(ddof=1) / np.sqrt(len(sums)) if len(sums) > 1 else None
    mean = float(sums.mean())
    return {
        "kl": mean,
        "kl_ci95": None if half is None else [max(0.0, mean - half), mean + half],
        "kl_per_token": float(sums.sum() / tokens.sum()),
        "n": len(sums),
    }
