"""Supervised learning: cross-entropy on demonstrations; the baselines SFT and distillation.

Each step of a baseline has as many responses as one of GRPO, train.problems_per_step *
rollout.group_size, and the same optimiser. `tokens/*` in the metrics count what each method used.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from permix_jax.core.problem import Demonstration, Task
from permix_jax.core.randomness import generator
from permix_jax.core.sharding import shard_packed, to_host
from permix_jax.models.lm_head import Scoring
from permix_jax.models.packing import PackedRows, Packing, Ragged, RowShape, pack
from permix_jax.models.params import join
from permix_jax.models.policy import Policy, StoredPolicy
from permix_jax.models.transformer import Decoder
from permix_jax.personas.prompts import render_all
from permix_jax.train.gradients import cross_entropy, packed_gradients
from permix_jax.train.log import write_completions
from permix_jax.train.loop import Row, fit
from permix_jax.train.programs import demonstration_shapes, rollouts_per_step
from permix_jax.train.rollouts import Rollouts, build_worker
from permix_jax.train.run import Run
from permix_jax.train.state import Programs, TrainState, make_programs

SHOWN = {"loss": "loss", "tokens/s": "tokens_per_second"}


class SftTokens(NamedTuple):
    """Weight of each target, f32 [M, R, L]: 1 / number of targets, 0 elsewhere."""

    weights: jax.Array

    @property
    def shares(self) -> jax.Array:
        """The metrics are means over the same targets."""
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

    Args:
      limits: most tokens of a prompt, and of a completion with its end token. A longer completion
        is cut.

    Raises:
      ValueError: a prompt is over its limit.
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
    """A prompt for each of the completions, as a batch on the host."""
    number: dict[tuple[int, ...], int] = {}
    owners = [number.setdefault(tuple(ids), len(number)) for ids in prompts]
    return of_packing(pack(Ragged.of(list(number)), completions, np.array(owners), shapes))


def of_packing(packing: Packing) -> SftBatch:
    """The batch whose loss is the mean negative log-prob of a token, in nats."""
    scored = packing.rows.scored
    return SftBatch(packing.rows, SftTokens(np.float32(scored) / np.float32(max(scored.sum(), 1))))


def supervised_programs(
    settings: Mapping, updates: int, model: Decoder, mesh: Mesh, scoring: Scoring
) -> Programs:
    """The programs that learn an SftBatch; `settings` are as in `make_programs`."""
    gradients = partial(packed_gradients, model, cross_entropy, scoring)
    return make_programs(settings, updates, model, mesh, gradients)


def supervised_update(
    programs: Programs,
    mesh: Mesh,
    batch_of: Callable[[int], tuple[SftBatch, Row]],
    frozen: dict,
    counter: str = "tokens/trained",
) -> Callable[[TrainState, int], tuple[TrainState, Row]]:
    """The update of `loop.fit` that learns the batch of each step.

    Args:
      batch_of: step -> (the batch on the host, metrics of it).
      frozen: the rest of the parameters, where the state holds adapters; else {}.
      counter: the metric that counts the targets.
    """

    def update(state: TrainState, step: int) -> tuple[TrainState, Row]:
        batch, row = batch_of(step)
        begin = time.monotonic()
        state, metrics = programs.update(state, *shard_packed(batch, mesh), frozen)
        row |= {name: float(x) for name, x in to_host(metrics).items()}
        row["learning_rate"] = float(programs.schedule(step - 1))
        row[counter] = int(batch.rows.scored.sum())
        row["time/update"] = time.monotonic() - begin
        row["tokens_per_second"] = row[counter] / row["time/update"]
        return state, row

    return update


def train_sft(run: Run, after_step: Callable[[dict, int], None]) -> TrainState:
    """Cross-entropy on the task's own demonstrations: the SFT baseline. Arguments as `train_grpo`.

    Demonstrations under personas that training must not see are drawn again.
    """

    def demonstrations(step: int) -> tuple[list[Demonstration], Row]:
        rng = generator(run.config.seed, "train/sft", step)
        drawn = [_demonstration(run.task, rng) for _ in range(rollouts_per_step(run.config))]
        return drawn, {"tokens/generated": 0}

    return _train(run, demonstrations, 1.0, after_step)


def train_distill(
    run: Run, teacher: StoredPolicy, task: Task, after_step: Callable[[dict, int], None]
) -> TrainState:
    """Sequence-level distillation: cross-entropy on a frozen teacher's verified responses.

    The teacher answers what GRPO's policy would be asked, under the same personas. The policy
    learns the responses that are right and ended, under the prompts that they answered. Over a run
    this is rejection sampling, each round with fresh problems.

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
        answered = zip(sampled.asked, sampled.texts, right, strict=True)
        chosen = [Demonstration(p, q.prompt, text) for (q, p), text, keep in answered if keep]
        write_completions(run.config, run.workdir, step, rollouts.records)
        return chosen, _teacher_metrics(rollouts)

    return _train(run, responses, run.config.rollout.temperature, after_step)


def _teacher_metrics(rollouts: Rollouts) -> Row:
    known = rollouts.correct[~np.isnan(rollouts.correct)]
    kept = "completions/mean_length", "completions/clipped_ratio", "time/rollout"
    return {
        **({"teacher/accuracy": float(known.mean())} if known.size else {}),
        **{n: x for n, x in rollouts.metrics.items() if n.startswith("verifier/") or n in kept},
        "tokens/generated": int(rollouts.batch.completion_mask.sum()),
    }


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
    """`examples` gives what a step learns, at most `rollouts_per_step`, and its metrics."""
    c, r, policy, load_base = run.config, run.config.rollout, run.policy, run.base.load_params
    scoring = Scoring(temperature, c.model.head_chunk)
    programs = supervised_programs(c.train, c.train.steps, policy.model, run.mesh, scoring)
    frozen = load_base() if policy.model.config.lora else {}
    shapes = demonstration_shapes(c, rollouts_per_step(c), r.max_new_tokens)

    def batch_of(step: int) -> tuple[SftBatch, Row]:
        chosen, row = examples(step)
        batch = pack_demonstrations(policy, chosen, (r.max_prompt_tokens, r.max_new_tokens), shapes)
        return batch, row | {"responses/trained": len(chosen)}

    return fit(
        run.loop(c.train.method, SHOWN),
        run.start(programs, lambda: frozen or load_base()),
        supervised_update(programs, run.mesh, batch_of, frozen),
        run.stop,
        lambda state, step: after_step(join(state.params, frozen), step),
    )
