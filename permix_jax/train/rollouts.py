"""One step's rollouts: problems and personas in, a graded RolloutBatch out."""

import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from permix_jax.core.distributed import gather, own_part
from permix_jax.core.keys import key
from permix_jax.core.persona import Persona
from permix_jax.core.problem import Problem
from permix_jax.core.progress import RESPONSES, learn
from permix_jax.core.randomness import generator
from permix_jax.core.sharding import shard_rows, to_host
from permix_jax.personas import adaptive
from permix_jax.personas.adaptive import AdaptiveState
from permix_jax.personas.mixture import adaptive_weights, build_mixture
from permix_jax.personas.prompts import render_all
from permix_jax.rewards.terms import Completion, term_values, weighted
from permix_jax.rewards.verifier import join_grades
from permix_jax.rollout.generate import bucket, right_pad
from permix_jax.rollout.sampler import Completions, sample
from permix_jax.tasks.order import problems_of_step
from permix_jax.train.advantages import group_ids, share_without_spread, summed_advantages
from permix_jax.train.batch import RolloutBatch, filled, live_problems
from permix_jax.train.method import all_terms, as_advantages, require_assigned
from permix_jax.train.programs import prompts_are_shared, rollout_sampling, rollouts_per_step
from permix_jax.train.run import Run


class Sampled(NamedTuple):
    """A step's rollouts while they are graded: the batch still lacks rewards and advantages.

    accuracies: those that they were sampled with.
    """

    batch: RolloutBatch
    asked: list[tuple[Problem, Persona | None]]
    texts: list[str]
    grades: list[Future]
    accuracies: AdaptiveState
    metrics: dict[str, float]


class Rollouts(NamedTuple):
    """A step's graded rollouts.

    batch: what the update sees; after `refilled` not all of it is what the rest speaks of.
    correct: f32 [N], the verifier's verdicts. records: rows of `completions/<step>.jsonl`.
    accuracies: the running ones after the step; {} if there were none before.
    """

    batch: RolloutBatch
    correct: np.ndarray
    records: list[dict]
    accuracies: AdaptiveState
    metrics: dict[str, float]


class RolloutWorker:
    """Makes the rollouts of any step of a run, with its personas, verifier and rewards.

    They are a pure function of (params, step, running accuracies). Call `sample`, then `grade`. The
    verifier grades a part of the step while the next part is sampled, and the last part while the
    caller computes what needs no rewards. Of several processes, each has its share of the rollouts
    graded.
    """

    def __init__(self, run: Run):
        self.run, self.terms = run, all_terms(run.method, run.config)
        self.mixture = build_mixture(run.task.personas, run.config.personas)

    def sample(self, params, step: int, accuracies: AdaptiveState, refill: int = 0) -> Sampled:
        """Samples the rollouts of `step`, and hands them to the verifier.

        `accuracies`: the running ones of `mixture.personas`; {} unless the weights adapt.
        `refill`: 0, or the number of a round that samples further problems of the same step.
        """
        run, c, begin = self.run, self.run.config, time.monotonic()
        shape, seed = (c.train.problems_per_step, c.rollout.group_size), c.seed
        if refill:  # a round has its own order of the problems, personas and keys
            seed = int(generator(seed, "refill", refill).integers(2**31))
        problems = problems_of_step(run.task.train, seed, step, shape[0])
        personas = run.method.assign(self.mixture, seed, step, *shape, state=accuracies)
        require_assigned(personas, self.mixture, *shape, prompts_are_shared(c))
        asked = [(q, p) for q, row in zip(problems, personas, strict=True) for p in row]
        prompts = self._prompts(asked)

        parts, texts, grades = [], [], []
        for part in map(to_host, self._sample(params, prompts, seed, step)):
            parts.append(part)
            new = run.policy.text(part.tokens, part.mask)
            own = own_part(len(new))
            to_grade = [problem for problem, _ in asked[len(texts) :][own]]
            grades.append(run.verifier.submit(new[own], to_grade))
            texts += new
        metrics = {"time/rollout": time.monotonic() - begin}
        learn(RESPONSES, len(asked), metrics["time/rollout"])

        completions = jax.tree.map(lambda *x: np.concatenate(x), *parts)
        problem = np.repeat(np.arange(shape[0], dtype=np.int32), shape[1])
        number = {persona.id: i for i, persona in enumerate(self.mixture.personas)}
        persona = np.array([number[p.id] if p else -1 for _, p in asked], np.int32)
        group = group_ids(c.grpo.advantage_group, problem, persona)
        batch = RolloutBatch(prompts, completions, problem, persona, group)
        if accuracies and self.mixture.share:
            weights = adaptive_weights(self.mixture, accuracies)
            drawn = {p.id for _, p in asked if p}
            metrics |= adaptive.metrics(weights, self.mixture.personas, drawn)
        return Sampled(batch, asked, texts, grades, accuracies, metrics)

    def grade(self, sampled: Sampled, penalties: np.ndarray | float = 0.0) -> Rollouts:
        """Waits for the verifier; adds rewards and advantages to the batch.

        `penalties`: what else is taken off each rollout's reward, f32 [N].
        """
        c, begin = self.run.config, time.monotonic()
        batch, asked, truncated = sampled.batch, sampled.asked, sampled.batch.completions.truncated
        parts = [part for future in sampled.grades for part in gather(future.result())]
        correct, verifier_metrics = join_grades(parts)
        waited = time.monotonic() - begin

        lengths, budget = batch.completions.mask.sum(axis=1), c.rollout.max_new_tokens
        rollouts = zip(sampled.texts, lengths, truncated, asked, correct, strict=True)
        completions = [
            Completion(
                *(text, int(length), budget, bool(cut), problem, float(verdict)),
                answer_part=self.run.task.answer_part(text),
            )
            for text, length, cut, (problem, _), verdict in rollouts
        ]
        values, means = term_values(self.terms, completions)
        rewards = weighted(self.terms, values) - np.float32(penalties)
        advantages = as_advantages(self._advantages(values, rewards, batch.group), len(rewards))
        metrics = {
            **_reward_metrics(rewards, batch.group),
            **means,
            **_persona_metrics(correct, [p.id if p else "none" for _, p in asked]),
            **verifier_metrics,
            "completions/mean_length": float(lengths.mean()),
            "completions/clipped_ratio": float(truncated.mean()),
            **sampled.metrics,
            "time/reward": waited,
            "tokens/generated": int(batch.completions.mask.sum()),
        }
        accuracies = sampled.accuracies
        if accuracies:
            decay = c.personas.adaptive_decay
            accuracies = adaptive.update(accuracies, batch.persona, correct, decay)
        batch = batch._replace(rewards=rewards, advantages=advantages)
        records = _records(completions, asked, rewards)
        return Rollouts(batch, correct, records, accuracies, metrics)

    def refilled(self, first: Rollouts, params, step: int, accuracies: AdaptiveState) -> Rollouts:
        """The graded rollouts of a step, with a batch whose dead problems gave way to those of
        further rounds (dynamic sampling: DAPO, arXiv 2503.14476, 3.2).

        There are at most `rollout.refill_rounds` rounds; no more once enough problems live. The
        metrics `refill/*` count the rounds, and the share of rollouts that no update sees. All
        other metrics but time and tokens are of the first round.
        """
        problems, rounds = self.run.config.train.problems_per_step, [first]
        live = len(live_problems(first.batch))
        while live < problems and len(rounds) <= self.run.config.rollout.refill_rounds:
            sampled = self.sample(params, step, accuracies, refill=len(rounds))
            rounds.append(self.grade(sampled))
            live += len(live_problems(rounds[-1].batch))
        sums = ("time/rollout", "tokens/generated")
        metrics = first.metrics | {n: sum(each.metrics[n] for each in rounds) for n in sums}
        metrics["refill/rounds"] = float(len(rounds) - 1)
        metrics["refill/unused"] = 1 - min(live, problems) / (len(rounds) * problems)
        batch = filled([each.batch for each in rounds], problems)
        return first._replace(batch=batch, metrics=metrics)

    def _advantages(self, values: np.ndarray, rewards: np.ndarray, groups: np.ndarray):
        """[N], of the sum of the rewards, or summed from those of each term [N, K]."""
        g = self.run.config.grpo
        other = {} if g.advantage_baseline == "group_mean" else {"baseline": g.advantage_baseline}

        def of_rewards(rewards: np.ndarray):
            return self.run.method.advantages(rewards, groups, g.advantage_scale, **other)

        if g.multi_objective_aggregation == "sum_then_normalize":
            return of_rewards(rewards)
        return summed_advantages(values, [term.weight for term in self.terms], of_rewards)

    def _prompts(self, asked: Sequence[tuple]) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and mask [U, P]: one prompt a problem where they are shared, or one a rollout."""
        r = self.run.config.rollout
        distinct = asked[:: r.group_size] if prompts_are_shared(self.run.config) else asked
        pairs = [(persona, problem.prompt) for problem, persona in distinct]
        ids = render_all(self.run.policy.tokenizer, pairs)
        return right_pad(ids, bucket(max(map(len, ids)), r.max_prompt_tokens))

    def _sample(self, params, prompts, seed: int, step: int) -> list[Completions]:
        """The step's completions in `rollout.micro_batches` parts, each still being computed."""
        c, policy, parts = self.run.config, self.run.policy, self.run.config.rollout.micro_batches
        rows, sampling = jnp.arange(rollouts_per_step(c)), rollout_sampling(c)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key(seed, "rollout", step), rows)

        def part(i: int) -> Completions:
            inputs = jax.tree.map(lambda x: np.split(x, parts)[i], prompts)
            placed = shard_rows((inputs, jnp.split(keys, parts)[i]), self.run.mesh)
            return sample(policy.model, params, *placed, sampling, policy.end_tokens)

        return [part(i) for i in range(parts)]


def _reward_metrics(rewards: np.ndarray, groups: np.ndarray) -> dict[str, float]:
    """Means over the rollouts that have a verdict, as far as there are any."""
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
    completions: Sequence[Completion], asked: Sequence[tuple], rewards: np.ndarray
) -> list[dict]:
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
        for c, (problem, persona), reward in zip(completions, asked, rewards, strict=True)
    ]
