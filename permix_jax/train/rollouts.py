"""One step's rollouts: problems and personas in, a graded RolloutBatch out."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from permix_jax.core.distributed import gather, own_part
from permix_jax.core.keys import key
from permix_jax.core.persona import Persona
from permix_jax.core.problem import Problem
from permix_jax.core.progress import RESPONSES, learn
from permix_jax.core.sharding import shard_rows, to_host
from permix_jax.personas import adaptive
from permix_jax.personas.adaptive import AdaptiveState
from permix_jax.personas.mixture import Mixture, adaptive_weights, build_mixture
from permix_jax.personas.prompts import render_all
from permix_jax.rewards.terms import Completion, Term, total_reward
from permix_jax.rewards.verifier import join_grades
from permix_jax.rollout.padding import bucket, right_pad
from permix_jax.rollout.sampler import Completions, sample
from permix_jax.tasks.order import problems_of_step
from permix_jax.train.advantages import group_ids, share_without_spread
from permix_jax.train.batch import RolloutBatch
from permix_jax.train.method import all_terms, as_advantages, require_assigned
from permix_jax.train.programs import prompts_are_shared, rollout_sampling
from permix_jax.train.run import Run


class Sampled(NamedTuple):
    """A step's rollouts, being graded: the batch still lacks rewards and advantages."""

    batch: RolloutBatch
    each: list[tuple[Problem, Persona | None]]
    texts: list[str]
    grades: list[Future]
    metrics: dict[str, float]


class Rollouts(NamedTuple):
    """A step's batch, what it says in words, and its metrics.

    correct: f32 [N], the verifier's verdicts.
    """

    batch: RolloutBatch
    correct: np.ndarray
    records: list[dict]
    metrics: dict[str, float]


@dataclass(frozen=True)
class RolloutWorker:
    """Makes the rollouts of any step, each a pure function of (params, step, mixture weights).

    The verifier grades the rollouts of a part of the step while the next part is sampled, and the
    last part while the caller computes whatever needs no rewards: `sample`, then `grade`. Of
    several processes, each has its share of the rollouts graded.
    """

    run: Run
    mixture: Mixture
    terms: Sequence[Term]

    def sample(self, params, step: int, accuracies: AdaptiveState) -> Sampled:
        """Rollouts of `step`, on their way through the verifier.

        `accuracies`: the running ones of `mixture.personas`; not used unless the weights adapt.
        """
        run, c, begin = self.run, self.run.config, time.monotonic()
        problems = problems_of_step(run.task.train, c.seed, step, c.train.problems_per_step)
        shape = c.train.problems_per_step, c.rollout.group_size
        personas = run.method.assign(self.mixture, c.seed, step, *shape, state=accuracies)
        require_assigned(personas, self.mixture, *shape, prompts_are_shared(c))
        each = [(q, p) for q, row in zip(problems, personas, strict=True) for p in row]
        prompts = self._prompts(problems, personas)

        parts, texts, grades = [], [], []
        sampled = self._sample(params, prompts, step)
        rows = len(each) // len(sampled)
        for i, part in enumerate(map(to_host, sampled)):
            parts.append(part)
            texts += run.policy.text(part.tokens, part.mask)
            asked = [problem for problem, _ in each[i * rows : (i + 1) * rows]]
            own = own_part(rows)
            grades.append(run.verifier.submit(texts[i * rows :][own], asked[own]))
        completions = jax.tree.map(lambda *x: np.concatenate(x), *parts)

        problem, persona = self._indices(personas)
        blank = np.zeros(len(each), np.float32)
        batch = RolloutBatch(
            prompt_tokens=prompts[0],
            prompt_mask=prompts[1],
            completion_tokens=completions.tokens,
            completion_mask=completions.mask,
            logprobs=completions.logprobs,
            truncated=completions.truncated,
            rewards=blank,
            advantages=blank,
            problem=problem,
            persona=persona,
        )
        metrics = {"time/rollout": time.monotonic() - begin}
        learn(RESPONSES, len(each), metrics["time/rollout"])
        if self.mixture.weights == "adaptive" and self.mixture.share:
            weights = adaptive_weights(self.mixture, accuracies)
            drawn = {p.id for _, p in each if p}
            metrics |= adaptive.metrics(weights, self.mixture.personas, drawn)
        return Sampled(batch, each, texts, grades, metrics)

    def grade(self, sampled: Sampled) -> Rollouts:
        """Waits for the verifier; adds rewards and advantages to the batch."""
        run, c, begin = self.run, self.run.config, time.monotonic()
        batch, each, texts = sampled.batch, sampled.each, sampled.texts
        parts = [part for future in sampled.grades for part in gather(future.result())]
        correct, verifier_metrics = join_grades(parts)
        waited = time.monotonic() - begin
        lengths, truncated = batch.completion_mask.sum(axis=1), batch.truncated
        completions = [
            Completion(text, int(length), c.rollout.max_new_tokens, bool(cut), problem, float(x))
            for text, length, cut, (problem, _), x in zip(
                texts, lengths, truncated, each, correct, strict=True
            )
        ]
        rewards, means = total_reward(self.terms, completions)
        groups = group_ids(c.grpo.advantage_group, batch.problem, batch.persona)
        advantages = run.method.advantages(rewards, groups, c.grpo.advantage_scale)
        advantages = as_advantages(advantages, len(rewards))
        batch = batch.replace(rewards=rewards, advantages=advantages)
        metrics = {
            **_reward_metrics(rewards, groups),
            **means,
            **_persona_metrics(correct, [p.id if p else "none" for _, p in each]),
            **verifier_metrics,
            "completions/mean_length": float(lengths.mean()),
            "completions/clipped_ratio": float(truncated.mean()),
            **sampled.metrics,
            "time/reward": waited,
        }
        return Rollouts(batch, correct, _records(completions, each, rewards), metrics)

    def _prompts(self, problems, personas) -> tuple[np.ndarray, np.ndarray]:
        """Distinct prompts [U, P]: one a problem, or one a rollout where personas differ in it."""
        shared = prompts_are_shared(self.run.config)
        pairs = [
            (persona, problem.prompt)
            for problem, row in zip(problems, personas, strict=True)
            for persona in (row[:1] if shared else row)
        ]
        ids = render_all(self.run.policy.tokenizer, pairs)
        longest = max(map(len, ids))
        return right_pad(ids, bucket(longest, self.run.config.rollout.max_prompt_tokens))

    def _sample(self, params, prompts, step: int) -> list[Completions]:
        """The step's completions in `rollout.micro_batches` parts, each still being computed."""
        c, r, policy = self.run.config, self.run.config.rollout, self.run.policy
        rows = c.train.problems_per_step * r.group_size
        sampling = rollout_sampling(c)
        step_key = key(c.seed, "rollout", step)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, jnp.arange(rows))

        def part(i: int) -> Completions:
            inputs = jax.tree.map(lambda x: np.split(x, r.micro_batches)[i], prompts)
            placed = shard_rows((inputs, jnp.split(keys, r.micro_batches)[i]), self.run.mesh)
            return sample(policy.model, params, *placed, sampling, policy.end_tokens)

        return [part(i) for i in range(r.micro_batches)]

    def _indices(self, personas) -> tuple[np.ndarray, np.ndarray]:
        """Int32 [N] each: the rollout's problem of this step; its persona in the mixture, or -1."""
        number = {persona.id: i for i, persona in enumerate(self.mixture.personas)}
        problem = [i for i, row in enumerate(personas) for _ in row]
        persona = [number[p.id] if p else -1 for row in personas for p in row]
        return np.array(problem, np.int32), np.array(persona, np.int32)


def build_worker(run: Run) -> RolloutWorker:
    """The worker of a run: personas and rewards as its config and its method say."""
    mixture = build_mixture(run.task.personas, run.config.personas)
    return RolloutWorker(run, mixture, all_terms(run.method, run.config))


def _reward_metrics(rewards: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Means over the rollouts that have a verdict; none where that is no rollout."""
    known = ~np.isnan(rewards)
    rewards, groups = rewards[known], groups[known]
    if not known.any():
        return {"frac_reward_zero_std": 1.0}
    return {
        "reward": float(rewards.mean()),
        "reward_std": float(np.mean([rewards[groups == g].std() for g in np.unique(groups)])),
        "frac_reward_zero_std": share_without_spread(rewards, groups),
    }


def _persona_metrics(correct: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """Accuracy by persona of this step."""
    known = ~np.isnan(correct)
    correct, names = correct[known], np.array(names)[known]
    return {f"persona/{n}/accuracy": float(correct[names == n].mean()) for n in np.unique(names)}


def _records(
    completions: Sequence[Completion],
    each: Sequence[tuple[Problem, Persona | None]],
    rewards: np.ndarray,
) -> list[dict]:
    """Rows of `completions/<step>.jsonl`."""
    return [
        {
            "problem": problem.id,
            "persona": persona.id if persona else None,
            "prompt": problem.prompt,
            "completion": c.text,
            "answer": problem.answer,
            "correct": None if np.isnan(c.correct) else c.correct,
            "reward": None if np.isnan(reward) else float(reward),
            "truncated": c.truncated,
        }
        for c, (problem, persona), reward in zip(completions, each, rewards, strict=True)
    ]
