"""The base policy: made by SFT once, and kept in the cache for every run that starts from it."""

import hashlib
import importlib.metadata
import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from jax.sharding import Mesh
from ml_collections import ConfigDict

import permix_jax
from permix_jax.core.field_rules import call_with, fixed_fields
from permix_jax.core.locks import locked
from permix_jax.core.problem import Task
from permix_jax.core.progress import SFT, finish
from permix_jax.core.randomness import generator
from permix_jax.core.sharding import padded_rows, shard_rows, to_host
from permix_jax.core.stop import StopRequest
from permix_jax.models.policy import Policy
from permix_jax.models.transformer import Decoder
from permix_jax.train.checkpoints import Checkpoints
from permix_jax.train.loop import fit
from permix_jax.train.sft import padded_sft_batch, sft_gradients
from permix_jax.train.state import (
    abstract_state,
    create_state,
    make_optimizer,
    make_step,
    state_shardings,
)

# What the base depends on beside its config: a change of this code makes a new base.
_CODE = ("models", "formats", "personas", "tasks", "tasks/datasets", "core/persona.py",
         "core/problem.py", "core/keys.py", "core/randomness.py", "train/sft.py", "train/state.py",
         "train/loop.py", "train/micro_batches.py", "rollout/padding.py")  # fmt: skip
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


def prepare_base(
    config: ConfigDict,
    task: Task,
    policy: Policy,
    initial_params: Callable[[Decoder], dict],
    mesh: Mesh,
    folder: Path,
    stop: StopRequest,
) -> None:
    """Trains the base policy into `folder`, unless it is there already, or goes on doing so.

    SFT trains all weights, in `model.param_dtype`, whether or not GRPO will train adapters.
    `initial_params` gives the parameters to start from; `folder` gets `checkpoints/`,
    `metrics.jsonl` and `tensorboard/` of the SFT. Of several runs one trains it, and the others
    wait.
    """
    with locked(folder.with_suffix(".lock"), stop.check):
        if not _finished(config, folder):
            _train_base(config, task, policy, initial_params, mesh, folder, stop)
    finish(SFT)  # another run may have done it


def _finished(config: ConfigDict, folder: Path) -> bool:
    checkpoints = Checkpoints(folder / "checkpoints")
    step = checkpoints.latest_step()
    checkpoints.close()
    return step == config.sft.steps


def _train_base(
    config: ConfigDict,
    task: Task,
    policy: Policy,
    initial_params: Callable[[Decoder], dict],
    mesh: Mesh,
    folder: Path,
    stop: StopRequest,
) -> None:
    s = config.sft
    shape = replace(policy.model.config, lora=None, param_dtype=config.model.param_dtype)
    policy = policy._replace(model=Decoder(shape))
    optimizer, schedule = call_with(make_optimizer, s, total_steps=s.steps)
    shardings = state_shardings(policy.model, optimizer, mesh)
    gradients = partial(sft_gradients, policy.model, chunk_tokens=config.model.head_chunk)
    sft_step = make_step(gradients, optimizer, shardings)
    budgets = config.rollout.max_prompt_tokens, s.max_new_tokens

    def update(state, step):
        rng = generator(config.seed, "sft", step)
        demonstrations = [task.demonstrate(rng, task.train) for _ in range(s.batch_size)]
        batch = padded_sft_batch(policy, padded_rows(s.batch_size, mesh), demonstrations, *budgets)
        begin = time.monotonic()
        state, metrics = sft_step(state, shard_rows(batch, mesh))
        row = {name: float(x) for name, x in to_host(metrics).items()}
        row["learning_rate"] = float(schedule(step - 1))
        row["tokens"] = int(batch.completion_mask.sum())
        row["time/update"] = time.monotonic() - begin
        row["tokens_per_second"] = row["tokens"] / row["time/update"]
        return state, row

    fit(
        "SFT of the base policy",
        folder,
        abstract_state(policy.model, optimizer, mesh),
        lambda: create_state(initial_params(policy.model), optimizer, shardings),
        update,
        steps=s.steps,
        checkpoint_every=s.checkpoint_every,
        keep_checkpoints=1,
        shown={"loss": "loss", "tokens/s": "tokens_per_second"},
        stop=stop,
        phase=SFT,
    )
