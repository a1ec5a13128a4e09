"""The two supervised baselines: SFT on demonstrations, and distillation of a teacher's answers.

A step of either has as many responses as one of GRPO, train.problems_per_step * rollout.group_size,
and the same optimiser; `tokens/*` in its metrics count what each method used.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from ml_collections import ConfigDict

from permix_jax.core.problem import Demonstration, Task
from permix_jax.core.randomness import generator
from permix_jax.core.sharding import shard_packed, to_host
from permix_jax.models.params import join
from permix_jax.models.policy import StoredPolicy
from permix_jax.train.log import write_completions
from permix_jax.train.loop import Row, fit
from permix_jax.train.programs import demonstration_shapes, supervised_programs
from permix_jax.train.rollouts import build_worker
from permix_jax.train.run import Run
from permix_jax.train.sft import pack_demonstrations
from permix_jax.train.state import TrainState


def train_sft(run: Run, after_step: Callable[[dict, int], None]) -> TrainState:
    """Cross-entropy on the task's own demonstrations: the SFT baseline. Arguments as `train_grpo`.

    Demonstrations under personas that training must not see are drawn again.
    """

    def demonstrations(step: int) -> tuple[list[Demonstration], Row]:
        rng = generator(run.config.seed, "train/sft", step)
        drawn = [_demonstration(run.task, rng) for _ in range(_responses(run.config))]
        return drawn, {"tokens/generated": 0}

    return _train(run, demonstrations, 1.0, after_step)


def train_distill(
    run: Run, teacher: StoredPolicy, task: Task, after_step: Callable[[dict, int], None]
) -> TrainState:
    """Sequence-level distillation: cross-entropy on a frozen teacher's verified responses.

    The teacher answers what GRPO's policy would be asked, under the same personas; of its
    responses those that are right and ended are learnt under the prompt that they answered. Over a
    run that is rejection sampling, each round with fresh problems.

    Args:
      task: the run's, without the problems that are over the budget in the teacher's tokens.
      after_step: as in `train_grpo`.
    """
    teacher_params = teacher.load_params()
    worker = build_worker(replace(run, policy=teacher.policy, task=task))

    def responses(step: int) -> tuple[list[Demonstration], Row]:
        sampled = worker.sample(teacher_params, step, {})
        rollouts = worker.grade(sampled)
        right = (rollouts.correct == 1) & ~rollouts.batch.truncated
        chosen = [
            Demonstration(persona, problem.prompt, text)
            for (problem, persona), text, keep in zip(
                sampled.each, sampled.texts, right, strict=True
            )
            if keep
        ]
        write_completions(run.config, run.workdir, step, rollouts.records)
        known = rollouts.correct[~np.isnan(rollouts.correct)]
        row = {
            **({"teacher/accuracy": float(known.mean())} if known.size else {}),
            **{n: x for n, x in rollouts.metrics.items() if n.startswith("verifier/")},
            "completions/mean_length": rollouts.metrics["completions/mean_length"],
            "completions/clipped_ratio": rollouts.metrics["completions/clipped_ratio"],
            "time/rollout": rollouts.metrics["time/rollout"],
            "tokens/generated": int(rollouts.batch.completion_mask.sum()),
        }
        return chosen, row

    return _train(run, responses, run.config.rollout.temperature, after_step)


def _responses(config: ConfigDict) -> int:
    return config.train.problems_per_step * config.rollout.group_size


def _demonstration(task: Task, rng: np.random.Generator) -> Demonstration:
    """One without a persona, or under a training persona."""
    while True:
        drawn = task.demonstrate(rng, task.train)
        if drawn.persona is None or drawn.persona.split == "train":
            return drawn


def _train(
    run: Run,
    examples: Callable[[int], tuple[list[Demonstration], Row]],
    temperature: float,
    after_step: Callable[[dict, int], None],
) -> TrainState:
    """The loop of both; `examples` gives what a step learns, at most `_responses`, and metrics."""
    r, mesh, policy = run.config.rollout, run.mesh, run.policy
    programs = supervised_programs(run.config, policy.model, mesh, temperature)
    load_base = run.base.load_params
    frozen = load_base() if policy.model.config.lora else {}
    limits = r.max_prompt_tokens, r.max_new_tokens
    shapes = demonstration_shapes(run.config, _responses(run.config), r.max_new_tokens)

    def update(state: TrainState, step: int):
        chosen, row = examples(step)
        batch = pack_demonstrations(policy, chosen, limits, shapes)
        begin = time.monotonic()
        state, metrics = programs.update(state, *shard_packed(batch, mesh), frozen)
        row |= {name: float(x) for name, x in to_host(metrics).items()}
        row["learning_rate"] = float(programs.schedule(step - 1))
        row["responses/trained"] = len(chosen)
        row["tokens/trained"] = int(batch.rows.scored.sum())
        row["time/update"] = time.monotonic() - begin
        row["tokens_per_second"] = row["tokens/trained"] / row["time/update"]
        return state, row

    return fit(
        run.loop(run.config.train.method, {"loss": "loss", "tokens/s": "tokens_per_second"}),
        run.start(programs, lambda: frozen or load_base()),
        update,
        run.stop,
        lambda state, step: after_step(join(state.params, frozen), step),
    )
