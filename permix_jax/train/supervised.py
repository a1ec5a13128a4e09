"""Supervised learning: cross-entropy on demonstrations; the baselines SFT and distillation.

Each step of a baseline has as many responses as one of GRPO, train.problems_per_step *
rollout.group_size, and the same optimiser. `tokens/*` in the metrics count what each method used.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from permix_jax.core.problem import Demonstration, Task
from permix_jax.core.randomness import generator
from permix_jax.core.sharding import shard_packed, to_host
from permix_jax.models.lm_head import Scoring
from permix_jax.models.packing import PackedRows, Ragged, RowShape, pack
from permix_jax.models.params import join
from permix_jax.models.policy import Policy, StoredPolicy
from permix_jax.personas.prompts import render_all
from permix_jax.train.gradients import cross_entropy, packed_gradients
from permix_jax.train.log import write_completions
from permix_jax.train.loop import AfterStep, Loop, Row, fit
from permix_jax.train.measures import model_flops, share_of_peak, trained_passes
from permix_jax.train.programs import batch_shapes, rollouts_per_step
from permix_jax.train.rollouts import Rollouts, RolloutWorker
from permix_jax.train.run import Run
from permix_jax.train.state import TrainState, make_programs

SHOWN = {"loss": "loss", "tokens/s": "tokens_per_second"}
Examples = Callable[[int], tuple[list[Demonstration], Row]]


class SftTokens(NamedTuple):
    """Weight of each target, f32 [M, R, L]: 1 / number of targets, 0 elsewhere."""

    weights: jax.Array

    @property
    def shares(self) -> jax.Array:  # the metrics are means over the same targets
        return self.weights


class SftBatch(NamedTuple):
    """Demonstrations in packed rows."""

    rows: PackedRows
    tokens: SftTokens


def pack_demonstrations(
    policy: Policy,
    demonstrations: Sequence[Demonstration],
    limits: tuple[int, int],
    shapes: Sequence[RowShape],
) -> SftBatch:
    """Demonstrations as a batch on the host; equal prompts are computed once.

    `limits`: most tokens of a prompt, and of a completion with its end token. A longer completion
    is cut. Raises ValueError for a longer prompt.
    """
    prompts = render_all(policy.tokenizer, [(d.persona, d.prompt) for d in demonstrations])
    if longest := max((len(ids) for ids in prompts if len(ids) > limits[0]), default=0):
        raise ValueError(
            f"a demonstration's prompt has {longest} tokens, over the {limits[0]} of "
            "rollout.max_prompt_tokens: raise it, or leave that problem out"
        )
    texts = [d.completion for d in demonstrations]
    encoded = policy.tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    completions = [[*ids, policy.end_tokens[0]][: limits[1]] for ids in encoded]
    return sft_batch(prompts, Ragged.of(completions), shapes)


def sft_batch(
    prompts: Sequence[Sequence[int]], completions: Ragged, shapes: Sequence[RowShape]
) -> SftBatch:
    """A prompt for each of the completions, as a batch on the host.

    Its loss is the mean negative log-prob of a token, in nats.
    """
    number: dict[tuple[int, ...], int] = {}
    owners = [number.setdefault(tuple(ids), len(number)) for ids in prompts]
    rows = pack(Ragged.of(list(number)), completions, np.array(owners), shapes).rows
    return SftBatch(
        rows, SftTokens(np.float32(rows.scored) / np.float32(max(rows.scored.sum(), 1)))
    )


def learn(
    run: Run,
    base: StoredPolicy,
    loop: Loop,
    settings: ConfigDict,
    size: tuple[int, int],
    examples: Examples,
    after_step: AfterStep = lambda params, step: None,
    temperature: float = 1.0,
    counter: str = "tokens/trained",
) -> TrainState:
    """Trains the run's policy, which starts as `base`, by cross-entropy on demonstrations.

    Args:
      settings: a config section with `steps` and the fields of the optimiser.
      size: how many demonstrations a step has at most, and how many tokens a completion.
      examples: step -> (its demonstrations, metrics of them).
      after_step: as in `train_grpo`.
      temperature: divides the logits.
      counter: the metric that counts the targets.
    """
    c, policy = run.config, run.policy
    scoring = Scoring(temperature, c.model.head_chunk)
    gradients = partial(packed_gradients, policy.model, cross_entropy, scoring)
    programs = make_programs(settings, settings.steps, policy.model, run.mesh, gradients)
    frozen = base.load_params() if policy.model.config.lora else {}
    limits, shapes = (c.rollout.max_prompt_tokens, size[1]), batch_shapes(c, *size)
    passes = trained_passes(policy.model.config)
    mfu = partial(share_of_peak, devices=run.mesh.size, peak_tflops=c.train.peak_tflops)

    def update(state: TrainState, step: int) -> tuple[TrainState, Row]:
        demonstrations, row = examples(step)
        batch = pack_demonstrations(policy, demonstrations, limits, shapes)
        begin = time.monotonic()
        state, metrics = programs.update(state, *shard_packed(batch, run.mesh), frozen)
        row |= {name: float(x) for name, x in to_host(metrics).items()}
        row["learning_rate"] = float(programs.schedule(step - 1))
        row[counter] = int(batch.rows.scored.sum())
        row["time/update"] = time.monotonic() - begin
        row["tokens_per_second"] = row[counter] / row["time/update"]
        row |= mfu(passes * model_flops(policy.model.config, batch.rows), row["time/update"])
        return state, row

    return fit(
        loop,
        *run.start(programs, lambda: frozen or base.load_params()),
        update,
        run.stop,
        lambda state, step: after_step(join(state.policy, frozen), step),
    )


def train_sft(run: Run, after_step: AfterStep) -> TrainState:
    """Cross-entropy on the task's own demonstrations: the SFT baseline. Arguments as `train_grpo`.

    Demonstrations under personas that training must not see are drawn again.
    """

    def examples(step: int) -> tuple[list[Demonstration], Row]:
        rng = generator(run.config.seed, "train/sft", step)
        drawn = [_demonstration(run.task, rng) for _ in range(rollouts_per_step(run.config))]
        return drawn, {"tokens/generated": 0, "responses/trained": len(drawn)}

    return _baseline(run, examples, after_step)


def train_distill(run: Run, teacher: StoredPolicy, task: Task, after_step: AfterStep) -> TrainState:
    """Sequence-level distillation: cross-entropy on a frozen teacher's verified responses.

    The teacher answers what GRPO's policy would be asked, under the same personas. The policy
    learns the responses that are right and ended, under the prompts that they answered. Over a run
    this is rejection sampling, each round with fresh problems. `task` is the run's, without the
    problems that are over the budget in the teacher's tokens; `after_step` as in `train_grpo`.
    """
    teacher_params = teacher.load_params()
    worker = RolloutWorker(replace(run, policy=teacher.policy, task=task))

    def examples(step: int) -> tuple[list[Demonstration], Row]:
        sampled = worker.sample(teacher_params, step, {})
        rollouts = worker.grade(sampled)
        right = (rollouts.correct == 1) & ~rollouts.batch.completions.truncated
        answered = zip(sampled.asked, sampled.texts, right, strict=True)
        chosen = [Demonstration(p, q.prompt, text) for (q, p), text, keep in answered if keep]
        write_completions(run.config, run.workdir, step, rollouts.records, run.loggers)
        return chosen, _teacher_metrics(rollouts) | {"responses/trained": len(chosen)}

    return _baseline(run, examples, after_step, run.config.rollout.temperature)


def _teacher_metrics(rollouts: Rollouts) -> Row:
    known = rollouts.correct[~np.isnan(rollouts.correct)]
    kept = (
        "completions/mean_length", "completions/clipped_ratio", "time/rollout", "tokens/generated"
    )  # fmt: skip
    return {
        **({"teacher/accuracy": float(known.mean())} if known.size else {}),
        **{n: x for n, x in rollouts.metrics.items() if n.startswith("verifier/") or n in kept},
    }


def _demonstration(task: Task, rng: np.random.Generator) -> Demonstration:
    """One without a persona, or under a training persona."""
    while True:
        drawn = task.demonstrate(rng, task.train)
        if drawn.persona is None or drawn.persona.split == "train":
            return drawn


def _baseline(
    run: Run, examples: Examples, after_step: AfterStep, temperature: float = 1.0
) -> TrainState:
    c, loop = run.config, run.loop(run.config.train.method, SHOWN)
    size = rollouts_per_step(c), c.rollout.max_new_tokens
    return learn(run, run.base, loop, c.train, size, examples, after_step, temperature)
