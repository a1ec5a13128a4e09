"""The base policy: made by SFT once, and kept in the cache for every run that starts from it."""

import hashlib
import importlib.metadata
import json
import time
from functools import partial
from pathlib import Path

from ml_collections import ConfigDict

import permix_jax
from permix_jax.core.field_rules import call_with, fixed_fields
from permix_jax.core.locks import locked
from permix_jax.core.problem import Task
from permix_jax.core.progress import SFT, finish
from permix_jax.core.randomness import generator
from permix_jax.core.sharding import shard_packed, to_host
from permix_jax.models.lm_head import Scoring
from permix_jax.models.policy import Policy
from permix_jax.train.checkpoints import Checkpoints
from permix_jax.train.gradients import packed_gradients
from permix_jax.train.loop import Loop, fit
from permix_jax.train.programs import demonstration_shapes
from permix_jax.train.run import Run
from permix_jax.train.sft import cross_entropy, pack_demonstrations
from permix_jax.train.state import (
    Start,
    abstract_state,
    create_state,
    make_optimizer,
    make_step,
    state_shardings,
)

# What the base depends on beside its config: a change of this code makes a new base.
_CODE = ("models", "formats", "personas", "tasks", "tasks/datasets", "core/persona.py",
         "core/problem.py", "core/keys.py", "core/randomness.py", "train/sft.py", "train/state.py",
         "train/loop.py", "train/gradients.py")  # fmt: skip
_PACKAGES = ("jax", "flax", "optax")


def base_folder(config: ConfigDict, task: Task, policy: Policy, cache: Path) -> Path:
    """Where this base is kept: a hash of everything it depends on names it."""
    digest = hashlib.sha256()
    deciding = fixed_fields(config.to_dict())
    settings = [config.seed, *(deciding[part] for part in ("task", "data", "model", "sft"))]
    settings += [config.rollout.max_prompt_tokens, policy.end_tokens]
    digest.update(json.dumps(settings, sort_keys=True).encode())
    versions = [importlib.metadata.version(package) for package in _PACKAGES]
    for fact in (*versions, *task.train, *task.role_play, *task.personas):
        digest.update(repr(fact).encode())
    root = Path(permix_jax.__file__).parent
    for part in _CODE:
        files = sorted((root / part).glob("*.py")) if (root / part).is_dir() else [root / part]
        for file in files:
            digest.update(file.read_bytes())
    return cache / "bases" / digest.hexdigest()[:16]


def prepare_base(run: Run) -> None:
    """Trains the base policy into `run.base_folder`, unless it is there, or goes on with it.

    Without steps of SFT there is nothing to do. SFT trains all weights, in `model.param_dtype`,
    whether or not GRPO will train adapters. The folder gets `checkpoints/`, `metrics.jsonl` and
    `tensorboard/` of the SFT. Of several runs one trains it, and the others wait.
    """
    if run.config.sft.steps == 0:
        return
    with locked(run.base_folder.with_suffix(".lock"), run.stop.check):
        if not _finished(run):
            _train_base(run)
    finish(SFT)  # another run may have done it


def _finished(run: Run) -> bool:
    checkpoints = Checkpoints(run.base_folder / "checkpoints")
    step = checkpoints.latest_step()
    checkpoints.close()
    return step == run.config.sft.steps


def _train_base(run: Run) -> None:
    config, s, policy, mesh = run.config, run.config.sft, run.initial.policy, run.mesh
    optimizer, schedule = call_with(make_optimizer, s, total_steps=s.steps)
    shardings = state_shardings(policy.model, optimizer, mesh)
    how = Scoring(1.0, config.model.head_chunk)
    gradients = partial(packed_gradients, policy.model, cross_entropy, how)
    sft_step = make_step(gradients, optimizer, shardings)
    limits = config.rollout.max_prompt_tokens, s.max_new_tokens
    shapes = demonstration_shapes(config, s.batch_size, s.max_new_tokens)

    def update(state, step):
        rng = generator(config.seed, "sft", step)
        demonstrations = [run.task.demonstrate(rng, run.task.train) for _ in range(s.batch_size)]
        batch = pack_demonstrations(policy, demonstrations, limits, shapes)
        begin = time.monotonic()
        state, metrics = sft_step(state, *shard_packed(batch, mesh))
        row = {name: float(x) for name, x in to_host(metrics).items()}
        row["learning_rate"] = float(schedule(step - 1))
        row["tokens"] = int(batch.rows.scored.sum())
        row["time/update"] = time.monotonic() - begin
        row["tokens_per_second"] = row["tokens"] / row["time/update"]
        return state, row

    def create():
        return create_state(run.initial.load_params(), optimizer, shardings)

    shown = {"loss": "loss", "tokens/s": "tokens_per_second"}
    every, kept = s.checkpoint_every, 1
    fit(
        Loop("SFT of the base policy", run.base_folder, s.steps, every, kept, shown, SFT),
        Start(abstract_state(policy.model, optimizer, mesh), create),
        update,
        run.stop,
    )
