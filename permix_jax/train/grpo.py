"""GRPO on persona-mixed rollouts, from a base policy that is also the frozen reference."""

import time
from collections.abc import Callable

import jax
import numpy as np

from permix_jax.core.sharding import replicate, shard_packed, to_host
from permix_jax.models.logprobs import score
from permix_jax.models.params import join
from permix_jax.personas.adaptive import initial
from permix_jax.personas.adaptive import update as update_accuracies
from permix_jax.train.log import write_completions
from permix_jax.train.loop import fit
from permix_jax.train.programs import (
    grpo_programs,
    loss_config,
    pack_step,
    pack_tokens,
    scoring,
    step_shapes,
)
from permix_jax.train.rehearsal import build_rehearsal
from permix_jax.train.rollouts import build_worker
from permix_jax.train.run import Run
from permix_jax.train.state import TrainState

_SHOWN = {
    "reward": "reward",
    "truncated": "completions/clipped_ratio",
    "tokens/s": "tokens_per_second",
}


def train_grpo(run: Run, after_step: Callable[[dict, int], None]) -> TrainState:
    """Runs (or goes on with) the GRPO phase of a run; see `loop.fit` for what it raises.

    Under LoRA the base's parameters are held once, as the policy's frozen part and as the
    reference; otherwise they are kept only where KL or rehearsal need them.

    Args:
      after_step: gets the policy's parameters, adapters and base together, and the step.
    """
    config, mesh, g = run.config, run.mesh, run.config.grpo
    model = run.policy.model
    programs, shapes = grpo_programs(config, model, mesh), step_shapes(config)
    loss, how = loss_config(config), scoring(config)
    worker, rehearsal = build_worker(run), build_rehearsal(run)

    lora, load_base = model.config.lora, run.base.load_params
    base = load_base() if lora or g.kl_weight or rehearsal else None
    frozen = base if lora else {}
    adapts = worker.mixture.weights == "adaptive"
    unseen = replicate(initial(len(worker.mixture.personas)), mesh) if adapts else {}

    def update(state: TrainState, step: int):
        accuracies = jax.tree.map(np.asarray, state.accuracies)
        sampled = worker.sample(join(state.params, frozen), step, accuracies)
        begin = time.monotonic()
        packing = pack_step(sampled.batch, shapes)
        rows = shard_packed(packing.rows, mesh)
        # Dispatched before the rewards are waited for: the device scores while the verifier grades.
        scores = {}
        if g.kl_weight:
            scores["reference"] = score(run.base.policy.model, base, rows, how)
        if g.importance_cap and g.epochs > 1:
            scores["trainer"] = score(model, join(state.params, frozen), rows, how)
        rehearsed = [shard_packed(rehearsal.batch(base, step), mesh)] if rehearsal else []
        rollouts = worker.grade(sampled)
        batch = rollouts.batch
        tokens = shard_packed(pack_tokens(batch, packing, loss), mesh)._replace(**scores)
        state = state.replace(accuracies={})  # the host's business, not the jitted step's
        first = None
        for _ in range(g.epochs):
            state, metrics = programs.update(state, rows, tokens, frozen, *rehearsed)
            first = first or metrics
        # Of sampler and trainer under one policy: later epochs compare it with another.
        metrics |= {name: x for name, x in first.items() if name.startswith("sampling/")}
        if adapts:
            seen = batch.persona, rollouts.correct, config.personas.adaptive_decay
            state = state.replace(accuracies=replicate(update_accuracies(accuracies, *seen), mesh))
        row = {**rollouts.metrics, **{name: float(x) for name, x in to_host(metrics).items()}}
        row["learning_rate"] = float(programs.schedule(step * g.epochs - 1))
        row["time/update"] = time.monotonic() - begin
        row["tokens/generated"] = int(batch.completion_mask.sum())
        row["tokens/padding"] = packing.padding
        row["tokens_per_second"] = row["tokens/generated"] / row["time/rollout"]
        if rehearsed:
            row["tokens/rehearsal"] = int(rehearsed[0].rows.scored.sum())
            row["tokens/generated"] += row["tokens/rehearsal"]
        write_completions(config, run.workdir, step, rollouts.records)
        return state, row

    return fit(
        run.loop("GRPO", _SHOWN),
        run.start(programs, lambda: load_base() if base is None else base, unseen),
        update,
        run.stop,
        lambda state, step: after_step(join(state.params, frozen), step),
    )
