"""GRPO on persona-mixed rollouts, from a base policy that is also the frozen reference."""

import time
from collections.abc import Callable
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.files import write_rows
from permix_jax.models.params import join, start_training
from permix_jax.models.policy import Policy
from permix_jax.randomness import key
from permix_jax.tasks.problem import Task
from permix_jax.training.loop import fit
from permix_jax.training.programs import grpo_programs
from permix_jax.training.rollouts import RolloutWorker
from permix_jax.training.state import TrainState, create_state
from permix_jax.training.stop import StopRequest

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
    workdir: Path,
    stop: StopRequest,
    after_step: Callable[[dict, int], None],
) -> TrainState:
    """Runs (or goes on with) the GRPO phase of a run; see `loop.fit` for what it raises.

    `load_base` gives the base policy's parameters. Under LoRA they are held once, as the policy's
    frozen part and as the reference; otherwise they are kept only where the KL needs them.
    `after_step` gets the policy's parameters, adapters and base together.
    """
    t, g = config.train, config.grpo
    programs = grpo_programs(config, policy.model, mesh)
    make_rollouts = RolloutWorker(config, task, policy, mesh)

    base = load_base()
    trained, frozen = start_training(policy.model, base, key(config.seed, "adapters"), mesh)
    reference = base if g.kl_weight else None
    state = create_state(trained, programs.optimizer, programs.shardings)
    del base, trained  # the state has its own copy

    def update(state: TrainState, step: int):
        rollouts = make_rollouts(join(state.params, frozen), step)
        begin, batch = time.monotonic(), rollouts.batch
        if reference is not None:
            scores = programs.score(reference, batch)
            batch = batch.replace(reference_logprobs=scores.logprobs)
        for _ in range(g.epochs):
            state, metrics = programs.update(state, batch, frozen)
        row = {**rollouts.metrics, **{name: float(x) for name, x in metrics.items()}}
        row["learning_rate"] = float(programs.schedule(step * g.epochs - 1))
        row["time/update"] = time.monotonic() - begin
        row["tokens_per_second"] = int(batch.completion_mask.sum()) / row["time/rollout"]
        if step % t.log_completions_every == 0 or step == t.steps:
            write_rows(workdir / "completions" / f"{step}.jsonl", rollouts.records)
        return state, row

    return fit(
        f"GRPO {Path(workdir).name}",
        workdir,
        state,
        update,
        steps=t.steps,
        checkpoint_every=t.checkpoint_every,
        keep_checkpoints=t.keep_checkpoints,
        shown=_SHOWN,
        stop=stop,
        after_step=lambda state, step: after_step(join(state.params, frozen), step),
    )
