"""How far a policy has moved from its base: KL(policy || base), estimated from its answers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from permix_jax.core.distributed import is_main
from permix_jax.core.files import write_json
from permix_jax.core.keys import key
from permix_jax.core.persona import Persona
from permix_jax.core.problem import Problem, Task
from permix_jax.core.progress import KL, Progress
from permix_jax.core.randomness import generator
from permix_jax.core.sharding import row_shards
from permix_jax.evaluation.likelihood import packed_logprobs
from permix_jax.models.lm_head import Scoring
from permix_jax.models.packing import Ragged, RowShape, row_shapes
from permix_jax.models.policy import LoadedPolicy, StoredPolicy
from permix_jax.personas.prompts import render_all
from permix_jax.rollout.generate import Batch, generate
from permix_jax.rollout.sampling import Sampling


class KlSettings(NamedTuple):
    """How the KL is measured.

    responses: how many are sampled. role_play: whether half of the prompts are conversation.
    sampling: as in training; its temperature applies to both policies.
    """

    seed: int
    responses: int
    role_play: bool
    personas: int
    batch_size: int
    max_prompt_tokens: int
    micro_batch_tokens: int
    logits_chunk: int
    sampling: Sampling


def measure_kl(
    task: Task,
    trained: StoredPolicy,
    base: StoredPolicy,
    settings: KlSettings,
    path: Path,
    check_stop: Callable[[], None],
) -> None:
    """Writes `kl.json`: nats a response and a token, by kind of prompt, with 95 % intervals.

    The prompts are drawn from those of the evaluation: test problems under the held-out personas
    and none, conversation under held-out personas. Each is answered once. The estimator is k3,
    exp(-d) - 1 + d with d = log pi - log base of each token, summed over the response. It is
    unbiased for KL(policy || base) of whole responses, and never negative (Schulman 2020,
    "Approximating KL divergence"). `kl` is the mean over the kinds.

    The trained policy's parameters are dropped before the base's are loaded.
    """
    kinds = _prompts(task, settings)
    answered, policy = {}, trained.load()
    total = sum(map(len, kinds.values()))
    with Progress("KL to the base policy", total, phase=KL) as progress:
        for kind, pairs in kinds.items():
            answered[kind] = []
            for batch in generate(
                policy,
                render_all(trained.policy.tokenizer, [(p, q.prompt) for p, q in pairs]),
                settings.sampling,
                key(settings.seed, f"evaluation/kl/{kind}"),
                settings.batch_size,
                settings.max_prompt_tokens,
            ):
                answered[kind].append(batch)
                progress.advance(batch.number)
                check_stop()
    del policy
    loaded, by_task = base.load(), {}
    for kind, batches in answered.items():
        limits = batches[0].prompts[0].shape, batches[0].completions.tokens.shape
        shapes = row_shapes(*limits, row_shards(base.mesh), settings.micro_batch_tokens)
        parts = [_k3(batch, loaded, shapes, settings) for batch in batches]
        by_task[kind] = _summary(*map(np.concatenate, zip(*parts, strict=True)))
    mean = float(np.mean([entry["kl"] for entry in by_task.values()]))
    result = {"kl": mean, "estimator": "k3", "unit": "nats a response", "by_task": by_task}
    if is_main():
        write_json(path, result)


def responses_asked(settings: KlSettings) -> int:
    """How many responses `measure_kl` samples: as many of each kind of prompt."""
    kinds = 1 + settings.role_play
    return kinds * max(1, settings.responses // kinds)


def _prompts(task: Task, settings: KlSettings) -> dict[str, list[tuple[Persona | None, Problem]]]:
    rng = generator(settings.seed, "evaluation/kl")
    personas = [p for p in task.personas if p.split == "heldout"][: settings.personas or None]
    asked = {"problems": (task.test, [None, *personas])}
    if settings.role_play:
        asked["role_play"] = (task.role_play, personas)
    number = responses_asked(settings) // len(asked)
    return {
        kind: [
            (who[rng.integers(len(who))], problems[rng.integers(len(problems))])
            for _ in range(number)
        ]
        for kind, (problems, who) in asked.items()
    }


def _k3(
    batch: Batch, base: LoadedPolicy, shapes: Sequence[RowShape], settings: KlSettings
) -> tuple[np.ndarray, np.ndarray]:
    """The estimates of a batch's responses, in nats, and their tokens: [number] each."""
    tokens, mask, logprobs, _ = (x[: batch.number] for x in batch.completions)
    prompts = Ragged.masked(*(x[: batch.number] for x in batch.prompts))
    completions, owners = Ragged.masked(tokens, mask), np.arange(batch.number)
    scoring = Scoring(settings.sampling.temperature, settings.logits_chunk)
    log_ratio = np.zeros(mask.shape)
    log_ratio[mask] = logprobs[mask] - packed_logprobs(
        base, prompts, completions, owners, shapes, scoring
    )
    return (np.expm1(-log_ratio) + log_ratio).sum(axis=1), mask.sum(axis=1)


def _summary(sums: np.ndarray, tokens: np.ndarray) -> dict:
    half = 1.96 * sums.std(ddof=1) / np.sqrt(len(sums)) if len(sums) > 1 else None
    mean = float(sums.mean())
    return {
        "kl": mean,
        "kl_ci95": None if half is None else [max(0.0, mean - half), mean + half],
        "kl_per_token": float(sums.sum() / tokens.sum()),
        "n": len(sums),
    }
