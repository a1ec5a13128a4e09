"""Evaluations of a run's checkpoints, or of any Hugging Face folder, as a config asks for them."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.app.build import (
    asked_personas,
    build_task,
    build_verifier,
    drop_overlong,
    eval_identity,
    eval_settings,
    judge_free_settings,
)
from permix_jax.app.compilation import compiled_programs
from permix_jax.app.phases import phases_of_evaluations
from permix_jax.app.policies import build_policy, load_base_params, load_trained_params
from permix_jax.app.validation import (
    require_mesh_fits,
    require_model_fits,
    require_valid,
)
from permix_jax.app.workdir import cache_folder, config_at_start
from permix_jax.core.distributed import on_main, require_shared
from permix_jax.core.field_rules import fixed_fields
from permix_jax.core.fields import differing_fields, filled_up
from permix_jax.core.problem import Task
from permix_jax.core.progress import Agenda, following
from permix_jax.core.sharding import make_mesh
from permix_jax.core.stop import StopRequest
from permix_jax.evaluation.evaluate import evaluate
from permix_jax.evaluation.judge_free import measure_without_judge
from permix_jax.evaluation.likelihood import Reference
from permix_jax.evaluation.results import read_json
from permix_jax.models.params import without_lora
from permix_jax.models.policy import Policy
from permix_jax.report.evaluation_page import write_evaluation_report
from permix_jax.rewards.verifier import Verifier
from permix_jax.train.checkpoints import newest_step

# What computes a policy, but does not decide which one it is.
_HOW = {"dtype", "param_dtype", "base_dtype"}


@dataclass(frozen=True)
class Evaluator:
    """Evaluates policies as one config says."""

    config: ConfigDict
    task: Task
    mesh: Mesh
    verifier: Verifier
    check_stop: Callable[[], None]

    def evaluate(
        self,
        policy: Policy,
        get_params: Callable[[], dict],
        of: dict[str, Any],
        folder: Path,
        label: str,
    ) -> None:
        """Evaluates into `folder`, or goes on, or does nothing where it is done; see `evaluate`.

        `of` says which policy this is; the folder of another one is refused.
        """
        evaluate(
            self.task,
            policy,
            get_params,
            self.mesh,
            self.verifier,
            eval_settings(self.config),
            {"policy": of, "config": eval_identity(self.config)},
            folder,
            label,
            self.check_stop,
        )

    def measure_without_judge(
        self, policy: Policy, get_params: Callable[[], dict], name: str, folders: Sequence[Path]
    ) -> None:
        """Adds judge_free.json to finished evaluations, where the config asks for it.

        The reference is `policy`, which is called `name`, unless the config names another.
        """
        if self.config.eval.judge_free_candidates:
            batch, personas = self.config.eval.batch_size, asked_personas(self.config, self.task)
            reference = make_reference(
                self.config, policy, get_params, name, self.mesh, batch, self.check_stop
            )
            settings = judge_free_settings(self.config)
            measure_without_judge(reference, personas, settings, folders)


def make_reference(
    config: ConfigDict,
    policy: Policy,
    get_params: Callable[[], dict],
    name: str,
    mesh: Mesh,
    batch_size: int,
    check_stop: Callable[[], None],
) -> Reference:
    """What responses are scored by: `policy` by its `name`, unless the config names another."""
    if other := config.eval.judge_free_reference:
        policy, get_params = named_model(config, other, mesh)
    name, at_once = reference_name(config, name), config.train.micro_batch_tokens
    chunk = config.model.head_chunk
    return Reference(name, policy, get_params, mesh, batch_size, at_once, chunk, check_stop)


def require_reference(config: ConfigDict, mesh: Mesh) -> None:
    """Raises ValueError where a model that the config names as the reference cannot be opened:
    better before anything is answered than when it is to score the answers."""
    if other := config.eval.judge_free_reference:
        try:
            named_model(config, other, mesh)
        except (ValueError, OSError, ImportError) as error:
            raise ValueError(f"eval.judge_free_reference is {other!r}: {error}") from None


def reference_name(config: ConfigDict, name: str) -> str:
    """Of the reference: the model that the config names, or else `name`."""
    return config.eval.judge_free_reference or name


def base_name(config: ConfigDict, base: Path) -> str:
    """Of a run's base policy, the same for all runs that start there."""
    return f"base {base.name}" if config.sft.steps else config.model.source or f"seed {config.seed}"


def evaluate_run(
    config: ConfigDict, workdir: Path, step: int | None = None, out: Path | None = None
) -> str:
    """Evaluates a checkpoint of a run, 0 being its base and None its newest; returns what to print.

    The config says how; which policy it is has to be what the run's own config says, and so must
    the problems be that were held out of its training.

    Args:
      out: the evaluation's folder; None: `eval/<step>` of the workdir.

    Raises:
      ValueError, FileNotFoundError, OSError: bad input or a full disk, in one line.
      Stopped: Ctrl-C or SIGTERM; what is done is kept, and the same call goes on.
    """
    require_valid(config)
    return _evaluate(config, subject_of_run(config, workdir, step, out, ("seed", "task")))


def evaluate_model(config: ConfigDict, source: str, out: Path) -> str:
    """Evaluates a Hugging Face folder or hub id as it is; otherwise as `evaluate_run`.

    Its reference for fidelity without a judge is `eval.judge_free_reference`, or itself.
    """
    config = config_of_model(config, source)
    require_valid(config)
    return _evaluate(config, subject_of_model(source, out))


def config_of_model(config: ConfigDict, source: str) -> ConfigDict:
    """The config of a Hugging Face folder or hub id as it is: no adapters, no SFT."""
    config = config.copy_and_resolve_references()
    config.model.source, config.lora.rank, config.sft.steps = source, 0, 0
    return config


class Subject(NamedTuple):
    """The policy that is asked, and the one whose likelihoods measure its fidelity.

    of: says which policy it is; plain values.
    folder: of the evaluation.
    label: what the progress bar calls the policy.
    base: the reference's name.
    load: (policy, its first parameters, mesh) -> policy and reference, each with what gives its
      parameters.
    """

    of: dict[str, Any]
    folder: Path
    label: str
    base: str
    load: Callable


def subject_of_model(source: str, folder: Path) -> Subject:
    """A model as it is; it is its own reference."""

    def load(policy: Policy, initial_params: Callable, mesh: Mesh):
        load_params = partial(initial_params, policy.model)
        return policy, load_params, policy, load_params

    return Subject({"model": source}, folder, source, source, load)


def subject_of_run(
    config: ConfigDict,
    workdir: Path,
    step: int | None,
    folder: Path | None,
    parts: Sequence[str] = (),
) -> Subject:
    """A checkpoint by its step (None: the newest; 0: the base); the base is its reference.

    Args:
      folder: of the evaluation; None: `eval/<step>` of the workdir.
      parts: of the config, "seed" or "task", in which it must be the run's, as in model and LoRA.

    Raises:
      FileNotFoundError, ValueError: no run, no such checkpoint, or the run of another policy.
    """
    record = read_json(workdir / "config.json")
    _require_same_policy(config, record, workdir, parts)
    if step != 0:
        step = newest_step(workdir / "checkpoints", step)
    base, of_base = Path(record["base"]), config.copy_and_resolve_references()
    of_base.sft.steps = record["config"]["sft"]["steps"]

    def load(policy: Policy, initial_params: Callable, mesh: Mesh):
        load_base = partial(load_base_params, of_base, policy, initial_params, base, mesh)
        reference = policy._replace(model=without_lora(policy.model))
        if step == 0:
            return reference, load_base, reference, load_base
        load_trained = partial(load_trained_params, policy, load_base, workdir, step, mesh)
        return policy, load_trained, reference, load_base

    folder = folder or workdir / "eval" / str(step)
    of = run_identity(workdir, step, folder)
    return Subject(of, folder, f"step {step}", base_name(of_base, base), load)


def _evaluate(config: ConfigDict, subject: Subject) -> str:
    cache = cache_folder()
    mesh = make_mesh(**config.mesh)
    with compiled_programs(), jax.set_mesh(mesh):
        task = build_task(config, cache, testing_only=True)
        policy, initial_params = build_policy(config, cache, mesh)
        require_model_fits(policy.model.config, config)
        task = drop_overlong(config, task, policy)
        if config.eval.judge_free_candidates:
            require_reference(config, mesh)
        require_shared(subject.folder, "the evaluation's folder")
        policy, load_params, *reference = subject.load(policy, initial_params, mesh)
        folders = [subject.folder]
        agenda = Agenda(phases_of_evaluations(config, task, folders, folders))
        with StopRequest() as stop, build_verifier(config, task) as verifier, following(agenda):
            evaluator = Evaluator(config, task, mesh, verifier, stop.check)
            evaluator.evaluate(policy, load_params, subject.of, subject.folder, subject.label)
            evaluator.measure_without_judge(*reference, subject.base, folders)
    table = on_main(partial(write_evaluation_report, subject.folder))
    return f"{table}\nreport: {subject.folder / 'report.html'}"


def named_model(config: ConfigDict, source: str, mesh: Mesh) -> tuple[Policy, Callable[[], dict]]:
    """Any pretrained model as it is, and what gives its parameters; dtypes are the config's. No
    weights are read yet."""
    other = config_of_model(config, source)
    policy, initial_params = build_policy(other, cache_folder(), mesh)
    require_mesh_fits(policy.model.config, config)
    return policy, partial(initial_params, policy.model)


def run_identity(workdir: Path, step: int, folder: Path) -> dict[str, Any]:
    """Says of which checkpoint an evaluation is: the run's place, seen from the evaluation's (both
    may be moved together), and the config that it began with."""
    config = json.dumps(config_at_start(read_json(workdir / "config.json")), sort_keys=True)
    return {
        "run": os.path.relpath(workdir.resolve(), folder.resolve()),
        "run_config_sha256": hashlib.sha256(config.encode()).hexdigest(),
        "step": step,
    }


def _require_same_policy(
    config: ConfigDict, record: dict, workdir: Path, parts: Sequence[str]
) -> None:
    """Raises ValueError, with the differing fields, unless the config is of the run's policy.

    A field that is newer than the run is not compared.
    """

    def deciding(config: dict) -> dict:
        whole = fixed_fields(config)
        kept = {part: whole[part] for part in parts}
        for part in ("model", "lora"):
            kept[part] = {name: x for name, x in whole[part].items() if name not in _HOW}
        if "task" in parts and not whole["data"]["test"]:
            kept["data"] = whole["data"]
        return kept

    mine = deciding(config.to_dict())
    theirs = filled_up(deciding(record["config"]), mine)
    if fields := differing_fields(mine, theirs):
        made = f"{record['name']}.py" + (f":{record['preset']}" if record.get("preset") else "")
        raise ValueError(
            f"{workdir} is a run of another policy or world, made with {made} "
            f"({'; '.join(fields)}); set these fields as the run has them, or leave --config out, "
            "for the run's own"
        )
