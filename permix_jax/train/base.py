"""The base policy: SFT makes it once, and the cache keeps it for every run that starts from it."""

import hashlib
import importlib.metadata
import json
from pathlib import Path

from ml_collections import ConfigDict

import permix_jax
from permix_jax.core.distributed import locked
from permix_jax.core.field_rules import fixed_fields
from permix_jax.core.problem import Task
from permix_jax.core.progress import SFT, finish
from permix_jax.core.randomness import generator
from permix_jax.models.lm_head import Scoring
from permix_jax.models.policy import Policy
from permix_jax.train.checkpoints import Checkpoints
from permix_jax.train.loop import Loop, Row, fit
from permix_jax.train.programs import demonstration_shapes
from permix_jax.train.run import Run
from permix_jax.train.state import Start, TrainState, abstract_state, create_state
from permix_jax.train.supervised import (
    SHOWN,
    SftBatch,
    pack_demonstrations,
    supervised_programs,
    supervised_update,
)

# What the base depends on beside its config: a change of this code makes a new base.
_CODE = ("models", "formats", "personas", "tasks", "tasks/datasets", "core/persona.py",
         "core/problem.py", "core/keys.py", "core/randomness.py", "train/supervised.py",
         "train/state.py", "train/loop.py", "train/gradients.py")  # fmt: skip
_PACKAGES = ("jax", "flax", "optax")


def base_folder(config: ConfigDict, task: Task, policy: Policy, cache: Path) -> Path:
    """The base's folder in the cache; its name is a hash of all that the base depends on."""
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
        checkpoints = Checkpoints(run.base_folder / "checkpoints")
        newest = checkpoints.latest_step()
        checkpoints.close()
        if newest != run.config.sft.steps:
            _train_base(run)
    finish(SFT)  # another run may have done it


def _train_base(run: Run) -> None:
    config, s, policy, mesh = run.config, run.config.sft, run.initial.policy, run.mesh
    scoring = Scoring(1.0, config.model.head_chunk)
    programs = supervised_programs(s, s.steps, policy.model, mesh, scoring)
    limits = config.rollout.max_prompt_tokens, s.max_new_tokens
    shapes = demonstration_shapes(config, s.batch_size, s.max_new_tokens)

    def batch_of(step: int) -> tuple[SftBatch, Row]:
        rng = generator(config.seed, "sft", step)
        drawn = [run.task.demonstrate(rng, run.task.train) for _ in range(s.batch_size)]
        return pack_demonstrations(policy, drawn, limits, shapes), {}

    def create() -> TrainState:
        return create_state(run.initial.load_params(), programs.optimizer, programs.shardings)

    every, kept = s.checkpoint_every, 1
    fit(
        Loop("SFT of the base policy", run.base_folder, s.steps, every, kept, SHOWN, SFT),
        Start(abstract_state(policy.model, programs.optimizer, mesh), create),
        supervised_update(programs, mesh, batch_of, {}, "tokens"),
        run.stop,
    )
