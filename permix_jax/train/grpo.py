"""GRPO on persona-mixed rollouts, from a base policy that is also the frozen reference."""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.core.keys import key
from permix_jax.core.problem import Task
from permix_jax.core.sharding import replicate, shard_packed, to_host
from permix_jax.core.stop import StopRequest
from permix_jax.models.logprobs import score
from permix_jax.models.params import abstract_like, initial_trained, join, without_lora
from permix_jax.models.policy import Policy
from permix_jax.personas.adaptive import initial
from permix_jax.personas.adaptive import update as update_accuracies
from permix_jax.rewards.verifier import Verifier
from permix_jax.train.log import write_completions
from permix_jax.train.loop import fit
from permix_jax.train.method import PERMIX, Method
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
from permix_jax.train.state import TrainState, abstract_state, create_state

_SHOWN = {
    "reward": "reward",
    "truncated": "completions/clipped_ratio",
    "tokens/s": "tokens_per_second",
}


def train_grpo(
    config: ConfigDict,
    task: Task,
    policy: Policy,
    load_base: Callable[[], dict],
    mesh: Mesh,
    verifier: Verifier,
    workdir: Path,
    stop: StopRequest,
    after_step: Callable[[dict, int], None],
    method: Method = PERMIX,
) -> TrainState:
    """Runs (or goes on with) the GRPO phase of a run; see `loop.fit` for what it raises.

    `load_base` gives the base policy's parameters. Under LoRA they are held once, as the policy's
    frozen part and as the reference; otherwise they are kept only where KL or rehearsal need them.
    `after_step` gets the policy's parameters, adapters and base together.
    """
    t, g = config.train, config.grpo
    programs, shapes = grpo_programs(config, policy.model, mesh), step_shapes(config)
    loss, how = loss_config(config), scoring(config)
    worker = build_worker(config, task, policy, mesh, verifier, method)
    rehearsal = build_rehearsal(config, task, policy, mesh)

    lora = policy.model.config.lora
    base = load_base() if lora or g.kl_weight or rehearsal else None
    frozen = base if lora else {}
    adapts = worker.mixture.weights == "adaptive"
    unseen = replicate(initial(len(worker.mixture.personas)), mesh) if adapts else {}
    abstract = abstract_state(policy.model, programs.optimizer, mesh)
    abstract = abstract.replace(accuracies=abstract_like(unseen))

    def create() -> TrainState:
        start = load_base() if base is None else base
        trained = initial_trained(policy.model, start, key(config.seed, "adapters"), mesh)
        state = create_state(trained, programs.optimizer, programs.shardings)
        return state.replace(accuracies=unseen)

    def update(state: TrainState, step: int):
        accuracies = jax.tree.map(np.asarray, state.accuracies)
        sampled = worker.sample(join(state.params, frozen), step, accuracies)
        begin = time.monotonic()
        packing = pack_step(sampled.batch, shapes)
        rows = shard_packed(packing.rows, mesh)
        # Dispatched before the rewards are waited for: the device scores while the verifier grades.
        scores = {}
        if g.kl_weight:
            scores["reference"] = score(without_lora(policy.model), base, rows, *how)
        if g.importance_cap and g.epochs > 1:
            scores["trainer"] = score(policy.model, join(state.params, frozen), rows, *how)
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
        write_completions(config, workdir, step, rollouts.records)
        return state, row

    return fit(
        f"GRPO {Path(workdir).name}",
        workdir,
        abstract,
        create,
        update,
        steps=t.steps,
        checkpoint_every=t.checkpoint_every,
        keep_checkpoints=t.keep_checkpoints,
        shown=_SHOWN,
        stop=stop,
        after_step=lambda state, step: after_step(join(state.params, frozen), step),
    )
