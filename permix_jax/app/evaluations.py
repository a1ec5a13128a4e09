"""Evaluations of a run's checkpoints, or of any Hugging Face folder, as a config asks for them."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.app.build import (
    asked_personas,
    build_run,
    eval_identity,
    eval_settings,
    judge_free_settings,
)
from permix_jax.app.compilation import compiled_programs
from permix_jax.app.phases import phases_of_evaluations
from permix_jax.app.policies import (
    Subject,
    base_name,
    named_model,
    subject_of_model,
    subject_of_run,
)
from permix_jax.app.validation import require_valid
from permix_jax.core.distributed import on_main, require_shared
from permix_jax.core.progress import Agenda, following
from permix_jax.core.sharding import make_mesh
from permix_jax.evaluation.evaluate import evaluate
from permix_jax.evaluation.judge_free import measure_without_judge
from permix_jax.evaluation.likelihood import Reference
from permix_jax.models.policy import StoredPolicy
from permix_jax.report.evaluation_page import write_evaluation_report
from permix_jax.train.run import Run


def evaluate_policy(run: Run, asked: StoredPolicy, of: dict[str, Any], folder: Path) -> None:
    """Evaluates into `folder`, or goes on, or does nothing where it is done; see `evaluate`.

    `of` says which policy this is; the folder of another one is refused.
    """
    settings = eval_settings(run.config)
    identity = {"policy": of, "config": eval_identity(run.config)}
    evaluate(run.task, asked, run.verifier, settings, identity, folder, run.stop.check)


def measure_likelihoods(run: Run, folders: Sequence[Path]) -> None:
    """Adds judge_free.json to finished evaluations, where the config asks for it.

    The reference is the run's base, unless the config names another.
    """
    config = run.config
    if config.eval.judge_free_candidates:
        name = reference_name(config, run.base_folder)
        batch, check = config.eval.batch_size, run.stop.check
        reference = make_reference(config, replace(run.base, name=name), batch, check)
        personas, settings = asked_personas(config, run.task), judge_free_settings(config)
        measure_without_judge(reference, personas, settings, folders)


def make_reference(
    config: ConfigDict, base: StoredPolicy, batch_size: int, check_stop: Callable[[], None]
) -> Reference:
    """What responses are scored by: `base`, unless the config names another model."""
    policy = base
    if other := config.eval.judge_free_reference:
        policy = named_model(config, other, base.mesh)
    at_once = config.train.micro_batch_tokens
    return Reference(policy, batch_size, at_once, config.model.head_chunk, check_stop)


def require_reference(config: ConfigDict, mesh: Mesh) -> None:
    """Raises ValueError where a model that the config names as the reference cannot be opened:
    better before anything is answered than when it is to score the answers."""
    if other := config.eval.judge_free_reference:
        try:
            named_model(config, other, mesh)
        except (ValueError, OSError, ImportError) as error:
            raise ValueError(f"eval.judge_free_reference is {other!r}: {error}") from None


def reference_name(config: ConfigDict, base: Path) -> str:
    """Of the reference: the model that the config names, or else of the run's base policy."""
    return config.eval.judge_free_reference or base_name(config, base)


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
    return _evaluate(subject_of_run(config, workdir, step, out, ("seed", "task")))


def evaluate_model(config: ConfigDict, source: str, out: Path) -> str:
    """Evaluates a Hugging Face folder or hub id as it is; otherwise as `evaluate_run`.

    Its reference for fidelity without a judge is `eval.judge_free_reference`, or itself.
    """
    subject = subject_of_model(config, source, out)
    require_valid(subject.config)
    return _evaluate(subject)


def _evaluate(subject: Subject) -> str:
    config, folder = subject.config, subject.folder
    mesh = make_mesh(**config.mesh)
    with compiled_programs(), jax.set_mesh(mesh):
        run = build_run(config, subject.workdir, mesh, subject.base, testing_only=True)
        with run.verifier:
            if config.eval.judge_free_candidates:
                require_reference(config, mesh)
            require_shared(folder, "the evaluation's folder")
            agenda = Agenda(phases_of_evaluations(run, [folder], [folder]))
            with run.stop, following(agenda):
                asked = replace(run.at(subject.step), name=subject.name)
                evaluate_policy(run, asked, subject.of, folder)
                measure_likelihoods(run, [folder])
    table = on_main(partial(write_evaluation_report, folder))
    return f"{table}\nreport: {folder / 'report.html'}"
