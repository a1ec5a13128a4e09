"""GRPO on persona-mixed rollouts. The base policy is also the frozen reference of the KL."""

import time
from collections.abc import Callable

import jax
import numpy as np

from permix_jax.core.sharding import replicate, shard_packed, to_host
from permix_jax.models.logprobs import score
from permix_jax.models.packing import PackedRows
from permix_jax.models.params import join
from permix_jax.personas import adaptive
from permix_jax.train.log import write_completions
from permix_jax.train.loop import Row, fit
from permix_jax.train.loss import LossTokens
from permix_jax.train.programs import (
    grpo_programs,
    loss_config,
    pack_step,
    pack_tokens,
    scoring,
    step_shapes,
)
from permix_jax.train.rehearsal import build_rehearsal
from permix_jax.train.rollouts import RolloutWorker
from permix_jax.train.run import Run
from permix_jax.train.state import TrainState
from permix_jax.train.supervised import SftBatch

_SHOWN = {
    "reward": "reward",
    "truncated": "completions/clipped_ratio",
    "tokens/s": "tokens_per_second",
}


def train_grpo(run: Run, after_step: Callable[[dict, int], None]) -> TrainState:
    """Runs (or goes on with) the GRPO phase of a run; see `loop.fit` for what it raises.

    `after_step` gets the policy's parameters, adapters and base together, and the step.
    """
    grpo = _Grpo(run)
    return fit(
        run.loop("GRPO", _SHOWN),
        *run.start(grpo.programs, lambda: grpo.base or run.base.load_params(), grpo.accuracies),
        grpo.update,
        run.stop,
        lambda state, step: after_step(join(state.params, grpo.frozen), step),
    )


class _Grpo:
    """A step of GRPO, and what all steps share.

    Under LoRA the base's parameters are held once, as the policy's frozen part and as the
    reference. Otherwise they are held only where the KL or rehearsal needs them.
    """

    def __init__(self, run: Run):
        self.run, self.config, self.model = run, run.config, run.policy.model
        self.programs = grpo_programs(self.config, self.model, run.mesh)
        self.worker, self.rehearsal = RolloutWorker(run), build_rehearsal(run)
        self.shapes, self.loss = step_shapes(self.config), loss_config(self.config)
        mixture = self.worker.mixture
        first = adaptive.initial(len(mixture.personas)) if mixture.weights == "adaptive" else {}
        self.accuracies = replicate(first, run.mesh)  # before the first step; {}: none adapt
        lora = self.model.config.lora
        needs_base = lora or self.config.grpo.kl_weight or self.rehearsal
        self.base = run.base.load_params() if needs_base else None
        self.frozen = self.base if lora else {}

    def update(self, state: TrainState, step: int) -> tuple[TrainState, Row]:
        """Samples, packs, scores, grades and updates; returns the new state and its metrics."""
        accuracies = jax.tree.map(np.asarray, state.accuracies)
        sampled = self.worker.sample(join(state.params, self.frozen), step, accuracies)
        begin = time.monotonic()
        packing = pack_step(sampled.batch, self.shapes)
        rows = shard_packed(packing.rows, self.run.mesh)
        # Dispatched before the rewards are waited for: the device scores while the verifier grades.
        scores = self._scores(state, rows)
        rehearsal = self.rehearsal and self.rehearsal.batch(self.base, step)
        rehearsed = [shard_packed(rehearsal, self.run.mesh)] if rehearsal else []
        rollouts = self.worker.grade(sampled)

        tokens = pack_tokens(rollouts.batch, packing, self.loss)
        tokens = shard_packed(tokens, self.run.mesh)._replace(**scores)
        state, metrics = self._epochs(state, rows, tokens, rehearsed)
        if accuracies:
            decay = self.config.personas.adaptive_decay
            seen = rollouts.batch.persona, rollouts.correct
            accuracies = adaptive.update(accuracies, *seen, decay)
            state = state.replace(accuracies=replicate(accuracies, self.run.mesh))

        row = rollouts.metrics | {name: float(x) for name, x in to_host(metrics).items()}
        row["learning_rate"] = float(self.programs.schedule(step * self.config.grpo.epochs - 1))
        row["time/update"] = time.monotonic() - begin
        row["tokens/generated"] = int(rollouts.batch.completions.mask.sum())
        row["tokens/padding"] = packing.padding
        row["tokens_per_second"] = row["tokens/generated"] / row["time/rollout"]
        if rehearsed:
            row["tokens/rehearsal"] = int(rehearsed[0].rows.scored.sum())
            row["tokens/generated"] += row["tokens/rehearsal"]
        write_completions(self.config, self.run.workdir, step, rollouts.records)
        return state, row

    def _scores(self, state: TrainState, rows: PackedRows) -> dict[str, jax.Array]:
        """The log-probs of the targets that the loss asks for, beside those of the sampler."""
        g, how, scores = self.config.grpo, scoring(self.config), {}
        if g.kl_weight:
            scores["reference"] = score(self.run.base.policy.model, self.base, rows, how)
        if g.importance_cap and g.epochs > 1:
            params = join(state.params, self.frozen)
            scores["trainer"] = score(self.model, params, rows, how)
        return scores

    def _epochs(
        self, state: TrainState, rows: PackedRows, tokens: LossTokens, rehearsed: list[SftBatch]
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        """`grpo.epochs` updates on one batch; the metrics are those of the last."""
        state = state.replace(accuracies={})  # the host's business, not the jitted step's
        first = {}
        for _ in range(self.config.grpo.epochs):
            state, metrics = self.programs.update(state, rows, tokens, self.frozen, *rehearsed)
            first = first or metrics
        # These compare sampler and trainer under one policy; later epochs have another policy.
        sampling = {name: x for name, x in first.items() if name.startswith("sampling/")}
        return state, metrics | sampling
