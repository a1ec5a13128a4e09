"""GRPO on persona-mixed rollouts. The base policy is also the frozen reference of the KL."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from permix_jax.core.sharding import replicate, shard_packed, to_host
from permix_jax.models.logprobs import score
from permix_jax.models.packing import PackedRows, Packing
from permix_jax.models.params import join, narrowed, unchanged
from permix_jax.personas import adaptive
from permix_jax.train.batch import (
    RolloutBatch,
    faulty_logprobs,
    loss_tokens,
    mini_batch_tokens,
    of_high_entropy,
)
from permix_jax.train.log import warn_of_faults, write_completions
from permix_jax.train.loop import AfterStep, Row, fit
from permix_jax.train.loss import SAME_AS_POLICY
from permix_jax.train.measures import model_flops, share_of_peak, trained_passes
from permix_jax.train.programs import (
    grpo_programs,
    loss_config,
    mini_batches,
    pack_step,
    pack_tokens,
    scores_trainer,
    scoring,
    step_shapes,
    updates_per_step,
)
from permix_jax.train.rehearsal import build_rehearsal
from permix_jax.train.rollouts import RolloutWorker
from permix_jax.train.run import Run
from permix_jax.train.state import TrainState
from permix_jax.train.supervised import SftBatch

_unchanged = jax.jit(unchanged)
_SHOWN = {
    "reward": "reward",
    "truncated": "completions/clipped_ratio",
    "tokens/s": "tokens_per_second",
}


def train_grpo(run: Run, after_step: AfterStep) -> TrainState:
    """Runs (or goes on with) the GRPO phase of a run; see `loop.fit` for what it raises.

    `after_step` gets the policy's parameters, adapters and base together, and the step.
    """
    grpo = _Grpo(run)
    return fit(
        run.loop("GRPO", _SHOWN),
        *run.start(grpo.programs, lambda: grpo.base or run.base.load_params(), grpo.accuracies),
        grpo.step,
        run.stop,
        lambda state, step: after_step(join(state.policy, grpo.frozen), step),
    )


class _MiniBatch(NamedTuple):
    """The rollouts of one update of a step.

    rollouts: their numbers in the step.
    rows: on the mesh. scores: log-probs [M, R, L] by fields of LossTokens. passes: through the
      decoder that they, and the entropy, took.
    entropy: f32 [M, R, L], if the loss sees the tokens of high entropy alone.
    """

    rollouts: np.ndarray
    packing: Packing
    rows: PackedRows
    scores: dict[str, jax.Array]
    entropy: jax.Array | None
    passes: int


class _Grpo:
    """A step of GRPO, and what all steps share.

    Under LoRA the base's parameters are held once, as the policy's frozen part and as the
    reference. Otherwise they are held only where the KL or rehearsal needs them, and from the first
    step on as `narrowed`: a new policy, which starts as the base, is made before.
    """

    def __init__(self, run: Run):
        self.run, self.config, self.model = run, run.config, run.policy.model
        self.programs = grpo_programs(self.config, self.model, run.mesh, run.method.token_loss)
        self.worker, self.rehearsal = RolloutWorker(run), build_rehearsal(run)
        self.shapes, self.loss = step_shapes(self.config), loss_config(self.config)
        mixture = self.worker.mixture
        first = adaptive.initial(len(mixture.personas)) if mixture.weights == "adaptive" else {}
        self.accuracies = replicate(first, run.mesh)  # before the first step; {}: none adapt
        lora = self.model.config.lora
        g = self.config.grpo
        needs_base = lora or self.rehearsal or (g.kl_weight and not g.reference_every)
        self.base = run.base.load_params() if needs_base else None
        self.frozen = self.base if lora else {}

    def step(self, state: TrainState, step: int) -> tuple[TrainState, Row]:
        """Samples, grades, packs, scores and updates; returns the new state and its metrics."""
        c, accuracies = self.config, jax.tree.map(np.asarray, state.accuracies)
        if self.base and not self.frozen:
            self.base = narrowed(self.run.base.policy.model, self.base)
        params, same = join(state.params, self.frozen), self._is_reference(state)
        sampled = self.worker.sample(params, step, accuracies)

        begin = time.monotonic()
        rehearsal = self.rehearsal and self.rehearsal.batch(self.base, step)
        rehearsed = [shard_packed(rehearsal, self.run.mesh)] if rehearsal else []
        if c.rollout.refill_rounds:  # the rewards decide what is packed
            first = self.worker.grade(sampled)
            rollouts = self.worker.refilled(first, params, step, accuracies)
            begin = time.monotonic()
            parts = self._mini_batches(state, rollouts.batch, step, same)
        else:  # the device scores while the verifier grades
            parts = self._mini_batches(state, sampled.batch, step, same)
            penalties = 0.0 if same else self._penalties(sampled.batch, parts)
            rollouts = self.worker.grade(sampled, penalties)

        inputs, before = self._inputs(rollouts.batch, parts), state
        # The accuracies and the reference are no business of the jitted step.
        state = state.replace(accuracies={}, reference={})
        state, metrics = self._epochs(state, inputs, rehearsed, same)
        accuracies = replicate(rollouts.accuracies, self.run.mesh)
        state = state.replace(accuracies=accuracies, reference=before.reference)

        row = rollouts.metrics | metrics
        row["learning_rate"] = float(self.programs.schedule(step * updates_per_step(c) - 1))
        row["time/update"] = time.monotonic() - begin
        row |= self._share_of_peak(parts, row["time/update"])
        row["tokens/padding"] = float(np.mean([part.packing.padding for part in parts]))
        row["tokens_per_second"] = row["tokens/generated"] / row["time/rollout"]
        if rehearsed:
            row["tokens/rehearsal"] = int(rehearsed[0].rows.scored.sum())
            row["tokens/generated"] += row["tokens/rehearsal"]
        warn_of_faults(rollouts.batch.completions, step)
        write_completions(c, self.run.workdir, step, rollouts.records, self.run.loggers)
        return self._renewed(state, step), row

    def _share_of_peak(self, parts: list[_MiniBatch], seconds: float) -> Row:
        """`perf/mfu` of scoring and update. Rehearsal is left out."""
        c, model = self.config, self.model.config
        trained = trained_passes(model) * c.grpo.epochs
        flops = sum((trained + x.passes) * model_flops(model, x.packing.rows) for x in parts)
        return share_of_peak(flops, seconds, self.run.mesh.size, c.train.peak_tflops)

    def _is_reference(self, state: TrainState) -> bool:
        """Whether there is a KL, and the policy still is its reference, bit for bit."""
        if not self.config.grpo.kl_weight:
            return False
        base = None if self.model.config.lora else self.base
        return bool(_unchanged(state.params, state.reference or base))

    def _renewed(self, state: TrainState, step: int) -> TrainState:
        """The state, whose reference every `grpo.reference_every` steps moves towards the policy.

        It is mix * policy + (1 - mix) * reference (TRL's sync_ref_model).
        """
        every, mix = self.config.grpo.reference_every, self.config.grpo.reference_mix
        if not state.reference or step % every:
            return state
        reference = jax.tree.map(jnp.copy, state.params)
        if mix < 1:
            reference = optax.incremental_update(state.params, state.reference, mix)
        return state.replace(reference=reference)

    def _mini_batches(
        self, state: TrainState, batch: RolloutBatch, step: int, same: bool
    ) -> list[_MiniBatch]:
        """Packs the mini-batches of a step, and scores what the loss asks for.

        `same`: whether the policy is the reference.
        """
        c, how = self.config, scoring(self.config)
        policy = self.model, join(state.params, self.frozen)
        reference = self.run.base.policy.model, self.base
        if state.reference:
            reference = self.model, join(state.reference, self.frozen)

        def of(part: RolloutBatch, rollouts: np.ndarray) -> _MiniBatch:
            packing, scores, entropy = pack_step(part, self.shapes), {}, None
            rows = shard_packed(packing.rows, self.run.mesh)
            # The only update of a policy that is the reference itself asks for no scores.
            asked = bool(c.grpo.kl_weight) and (not same or updates_per_step(c) > 1)
            if c.grpo.kl_weight:
                scores["reference"] = score(*reference, rows, how) if asked else _same(rows)
            if scores_trainer(c):
                scores["trainer"] = score(*policy, rows, how)
            if c.grpo.entropy_share < 1:
                entropy = score(*policy, rows, how, entropy=True)
            passes = asked + scores_trainer(c) + (entropy is not None)
            return _MiniBatch(rollouts, packing, rows, scores, entropy, passes)

        return [of(*part) for part in mini_batches(c, batch, step)]

    def _penalties(self, batch: RolloutBatch, parts: list[_MiniBatch]) -> np.ndarray | float:
        """What the KL takes off each rollout's reward: f32 [N], or 0 if it is in the loss.

        It is kl_weight times the sum over the completion of log pi_behaviour - log pi_reference,
        an unbiased estimate of the KL of whole completions.
        """
        if not self.config.grpo.kl_weight or self.config.grpo.kl_in == "loss":
            return 0.0
        reference = self._on_host(batch, parts, [part.scores["reference"] for part in parts])
        log_ratios = np.where(batch.completions.mask, batch.completions.logprobs - reference, 0)
        # A rollout that the loss leaves out for its log-probs has no KL, and so no reward.
        log_ratios[faulty_logprobs(batch.completions)] = np.nan
        return np.float32(self.config.grpo.kl_weight * log_ratios.sum(axis=1))

    def _on_host(
        self, batch: RolloutBatch, parts: list[_MiniBatch], packed: list[jax.Array]
    ) -> np.ndarray:
        """f32 [N, T] of the step from what each mini-batch has at its targets."""
        mask, values = batch.completions.mask, np.zeros(batch.completions.mask.shape, np.float32)
        for part, of_targets in zip(parts, packed, strict=True):
            rows, places = np.nonzero(mask[part.rollouts])
            values[part.rollouts[rows], places] = part.packing.collect(to_host(of_targets))
        return values

    def _inputs(self, batch: RolloutBatch, parts: list[_MiniBatch]) -> list[tuple]:
        """The rows and LossTokens of each mini-batch of a graded batch, on the mesh."""
        tokens, share = loss_tokens(batch, self.loss), self.config.grpo.entropy_share
        if share < 1:
            entropy = self._on_host(batch, parts, [part.entropy for part in parts])
            seen = of_high_entropy(entropy, tokens.shares > 0, share)
            tokens = tokens._replace(advantages=tokens.advantages * seen)
        inputs, mask = [], batch.completions.mask
        for part in parts:
            own = mini_batch_tokens(tokens, part.rollouts, len(parts), self.loss)
            own = shard_packed(pack_tokens(own, mask[part.rollouts], part.packing), self.run.mesh)
            inputs.append((part.rows, own._replace(**part.scores)))
        return inputs

    def _epochs(
        self, state: TrainState, inputs: list[tuple], rehearsed: list[SftBatch], same: bool
    ) -> tuple[TrainState, Row]:
        """`grpo.epochs` times an update on each mini-batch; metrics: see `_over_updates`.

        `same`: whether the policy is the reference.
        """
        found = []
        for rows, tokens in inputs * self.config.grpo.epochs:
            if same:  # the KL and its gradient are exactly 0, whatever another program rounds
                tokens = tokens._replace(reference=_same(rows))
            state, metrics = self.programs.update(state, rows, tokens, self.frozen, *rehearsed)
            same = same and float(metrics["grad_norm"]) == 0
            found.append(metrics)
        kept = [jnp.count_nonzero(tokens.shares) for _, tokens in inputs]
        return state, _over_updates(*to_host((found, kept)))


def _over_updates(found: Sequence[Row], kept: Sequence[int]) -> Row:
    """The metrics of a step from those of its updates; `kept`: tokens that each mini-batch has.

    They are of the last epoch. A mean over tokens is one over all mini-batches' tokens, a `_max` is
    the largest; loss and grad_norm are means over the updates. `sampling/*` compare sampler and
    trainer under one policy, so they are those of the first mini-batch with tokens.
    """
    last, weights = found[-len(kept) :], np.asarray(kept, float)
    first = int(np.argmax(weights > 0))
    row = {}
    for name in found[0]:
        values = [float(metrics[name]) for metrics in last]
        if name.startswith("sampling/"):
            row[name] = float(found[first][name])
        elif name.endswith("_max"):
            row[name] = max(values)
        elif name in ("loss", "grad_norm") or not weights.any():
            row[name] = float(np.mean(values))
        else:
            row[name] = float(np.average(values, weights=weights))
    return row


def _same(rows: PackedRows) -> jax.Array:
    return jnp.full_like(rows.targets, SAME_AS_POLICY, jnp.float32)
