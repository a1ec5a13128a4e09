"""The base policy: SFT makes it once, and the cache keeps it for every run that starts from it."""

import hashlib
import importlib.metadata
import json
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from ml_collections import ConfigDict

import permix_jax
from permix_jax.core.distributed import locked
from permix_jax.core.field_rules import fixed_fields
from permix_jax.core.fields import names_in
from permix_jax.core.problem import Demonstration, Task
from permix_jax.core.progress import SFT, finish
from permix_jax.core.randomness import generator
from permix_jax.models.policy import Policy
from permix_jax.train.checkpoints import Checkpoints
from permix_jax.train.loop import Loop, Row
from permix_jax.train.run import Run, base_is_stored
from permix_jax.train.supervised import SHOWN, learn

# What the base depends on beside its config: a change of this code makes a new base.
_CODE = ("models", "formats", "personas", "tasks", "core/persona.py", "core/problem.py",
          "core/keys.py", "core/randomness.py", "train/supervised.py",
         "train/state.py", "train/optimizer.py", "train/loop.py", "train/gradients.py")  # fmt: skip
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
    digest.update(code_digest(_CODE).encode())
    return cache / "bases" / digest.hexdigest()[:16]


def code_digest(parts: Sequence[str]) -> str:
    """A hash of the code in some folders and files of the package; ".": of all."""
    digest, root = hashlib.sha256(), Path(permix_jax.__file__).parent
    for part in parts:
        files = sorted((root / part).rglob("*.py")) if (root / part).is_dir() else [root / part]
        for file in files:
            digest.update(file.read_bytes())
    return digest.hexdigest()


def prepare_base(run: Run) -> None:
    """Trains the base policy into `run.base_folder`, unless it is there, or goes on with it.

    Another run's policy, `run.origin`, is copied there. Without both there is nothing to do. SFT
    trains all weights, in `model.param_dtype`, whether or not GRPO will train adapters. The folder
    gets `checkpoints/`, and of the SFT `metrics.jsonl` and `tensorboard/`. Of several runs one
    makes the base, and the others wait.
    """
    if not base_is_stored(run.config):
        return
    with locked(run.base_folder.with_suffix(".lock"), run.stop.check):
        with closing(Checkpoints(run.base_folder / "checkpoints")) as checkpoints:
            newest = checkpoints.latest_step()
            if run.origin and newest is None:
                checkpoints.save(0, run.origin.load_params())
        if run.config.sft.steps not in (0, newest):
            _train_base(run)
    finish(SFT)  # another run may have done it


def _train_base(run: Run) -> None:
    config, s = run.config, run.config.sft
    every, kept = s.checkpoint_every, 1
    loop = Loop(
        "SFT of the base policy", run.base_folder, s.steps, every, kept, SHOWN, SFT,
        tensorboard="tensorboard" in names_in(config.train.loggers),
    )  # fmt: skip
    run = replace(run, policy=run.initial.policy)  # without adapters

    def examples(step: int) -> tuple[list[Demonstration], Row]:
        rng = generator(config.seed, "sft", step)
        return [run.task.demonstrate(rng, run.task.train) for _ in range(s.batch_size)], {}

    size = s.batch_size, s.max_new_tokens
    learn(run, run.initial, loop, s, size, examples, counter="tokens")
