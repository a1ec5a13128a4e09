"""One step's rollouts: problems and personas in, a graded RolloutBatch out."""

import time
from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.grpo.advantages import group_advantages, group_ids, share_without_spread
from permix_jax.grpo.batch import RolloutBatch
from permix_jax.models.policy import Policy
from permix_jax.personas.mixture import assign
from permix_jax.personas.persona import Persona
from permix_jax.personas.prompts import render_all
from permix_jax.randomness import key
from permix_jax.rollout.padding import bucket, right_pad
from permix_jax.rollout.sampler import sample
from permix_jax.rollout.sampling import Sampling
from permix_jax.sharding import shard_rows
from permix_jax.tasks.order import problems_of_step
from permix_jax.tasks.problem import Problem, Task


class Rollouts(NamedTuple):
    """A step's batch on the mesh, what it says in words, and its metrics."""

    batch: RolloutBatch
    records: list[dict]
    metrics: dict[str, float]


@dataclass(frozen=True)
class RolloutWorker:
    """Makes the rollouts of any step, each a pure function of (params, step)."""

    config: ConfigDict
    task: Task
    policy: Policy
    mesh: Mesh

    def __call__(self, params, step: int) -> Rollouts:
        c, begin = self.config, time.monotonic()
        problems = problems_of_step(self.task.train, c.seed, step, c.train.problems_per_step)
        personas = self._mix(step)
        prompts = self._prompts(problems, personas)
        completions = self._sample(params, prompts, step)
        tokens, mask = np.asarray(completions.tokens), np.asarray(completions.mask)
        sampled = time.monotonic()

        each = [(q, p) for q, row in zip(problems, personas, strict=True) for p in row]
        texts = self.policy.text(tokens, mask)
        grades = [self.task.reward(text, q) for text, (q, _) in zip(texts, each, strict=True)]
        rewards, truncated = np.array(grades, np.float32), np.asarray(completions.truncated)
        graded = time.monotonic()

        problem, persona = self._indices(personas)
        groups = group_ids(c.grpo.advantage_group, problem, persona)
        batch = RolloutBatch(
            prompt_tokens=prompts[0],
            prompt_mask=prompts[1],
            completion_tokens=completions.tokens,
            completion_mask=completions.mask,
            logprobs=completions.logprobs,
            reference_logprobs=jnp.zeros_like(completions.logprobs),
            truncated=completions.truncated,
            rewards=rewards,
            advantages=group_advantages(rewards, groups, c.grpo.advantage_scale),
            problem=problem,
            persona=persona,
        )
        metrics = {
            **_reward_metrics(rewards, groups, [p.id if p else "none" for _, p in each]),
            "completions/mean_length": float(mask.sum(axis=1).mean()),
            "completions/clipped_ratio": float(truncated.mean()),
            "time/rollout": sampled - begin,
            "time/reward": graded - sampled,
        }
        return Rollouts(
            shard_rows(batch, self.mesh), _records(each, texts, rewards, truncated), metrics
        )

    def _mix(self, step: int) -> list[list[Persona | None]]:
        c = self.config
        return assign(
            c.seed,
            step,
            c.train.problems_per_step,
            c.rollout.group_size,
            [p for p in self.task.personas if p.split == "train"],
            c.personas.share,
            c.personas.level,
        )

    def _prompts(self, problems, personas) -> tuple[np.ndarray, np.ndarray]:
        """Distinct prompts [U, P]: one a problem, or one a rollout where personas differ in it."""
        shared = self.config.personas.level == "problem" or self.config.personas.share == 0
        pairs = [
            (persona, problem.prompt)
            for problem, row in zip(problems, personas, strict=True)
            for persona in (row[:1] if shared else row)
        ]
        ids = render_all(self.policy.tokenizer, pairs)
        longest = max(map(len, ids))
        return right_pad(ids, bucket(longest, self.config.rollout.max_prompt_tokens))

    def _sample(self, params, prompts, step: int):
        r = self.config.rollout
        rows = self.config.train.problems_per_step * r.group_size
        sampling = Sampling(r.max_new_tokens, r.temperature, r.top_k, r.top_p)
        step_key = key(self.config.seed, "rollout", step)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(step_key, jnp.arange(rows))
        placed = shard_rows((*prompts, keys), self.mesh)
        return sample(self.policy.model, params, *placed, sampling, self.policy.end_tokens)

    def _indices(self, personas) -> tuple[np.ndarray, np.ndarray]:
        """Int32 [N] each: the rollout's problem of this step, and its persona (-1: none)."""
        number = {persona: i for i, persona in enumerate(self.task.personas)}
        problem = [i for i, row in enumerate(personas) for _ in row]
        persona = [number.get(p, -1) for row in personas for p in row]
        return np.array(problem, np.int32), np.array(persona, np.int32)


def _reward_metrics(rewards: np.ndarray, groups: np.ndarray, names: list[str]) -> dict[str, float]:
    """Means over the rollouts whose gold answer could be read; none where that is no rollout."""
    known = ~np.isnan(rewards)
    rewards, groups, names = rewards[known], groups[known], np.array(names)[known]
    if not known.any():
        return {"frac_reward_zero_std": 1.0}
    return {
        "reward": float(rewards.mean()),
        "reward_std": float(np.mean([rewards[groups == g].std() for g in np.unique(groups)])),
        "frac_reward_zero_std": share_without_spread(rewards, groups),
        **{f"persona/{n}/reward": float(rewards[names == n].mean()) for n in np.unique(names)},
    }


def _records(each: list[tuple[Problem, Persona | None]], texts, rewards, truncated) -> list[dict]:
    """Rows of `completions/<step>.jsonl`."""
    return [
        {
            "problem": problem.id,
            "persona": persona.id if persona else None,
            "prompt": problem.prompt,
            "completion": text,
            "answer": problem.answer,
            "reward": None if np.isnan(reward) else float(reward),
            "truncated": bool(cut),
        }
        for (problem, persona), text, reward, cut in zip(
            each, texts, rewards, truncated, strict=True
        )
    ]
