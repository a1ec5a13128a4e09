"""Evaluates checkpoints of a run, or any Hugging Face folder, as a config asks for it."""

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
from permix_jax.app.policies import Subject, named_model
from permix_jax.core.distributed import on_main, require_shared
from permix_jax.core.progress import Agenda, following
from permix_jax.core.sharding import make_mesh
from permix_jax.evaluation.evaluate import evaluate
from permix_jax.evaluation.judge_free import measure_without_judge
from permix_jax.evaluation.likelihood import Reference
from permix_jax.models.policy import StoredPolicy
from permix_jax.train.run import Run, base_is_stored


def evaluate_policy(
    run: Run, asked: StoredPolicy, of: dict[str, Any], folder: Path, shared: Path | None = None
) -> None:
    """Evaluates a policy into `folder`, or goes on there; does nothing where it is done.

    `of` says which policy it is. A folder that holds the evaluation of another policy is refused.
    `shared`: see `evaluate`.
    """
    settings = eval_settings(run.config)
    identity = {"policy": of, "config": eval_identity(run.config)}
    evaluate(run.task, asked, run.verifier, settings, identity, folder, run.stop.check, shared)


def measure_likelihoods(run: Run, folders: Sequence[Path]) -> None:
    """Adds judge_free.json to finished evaluations, where the config asks for it."""
    config = run.config
    if config.eval.judge_free_candidates:
        size, check_stop = config.eval.batch_size, run.stop.check
        reference = make_reference(config, run.base, run.base_folder, size, check_stop)
        personas, settings = asked_personas(config, run.task), judge_free_settings(config)
        measure_without_judge(reference, personas, settings, folders)


def make_reference(
    config: ConfigDict,
    base: StoredPolicy,
    base_folder: Path,
    batch_size: int,
    check_stop: Callable[[], None],
) -> Reference:
    """What scores responses: the model that the config names, or else the run's base."""
    stored = open_reference(config, base.mesh) or base
    stored = replace(stored, name=reference_name(config, base_folder))
    chunk = config.model.head_chunk
    return Reference(stored, batch_size, config.train.micro_batch_tokens, chunk, check_stop)


def open_reference(config: ConfigDict, mesh: Mesh) -> StoredPolicy | None:
    """The model that `eval.judge_free_reference` names, if any. Reads no weights.

    Raises ValueError where it cannot be opened: call it before anything is answered.
    """
    if not (other := config.eval.judge_free_reference):
        return None
    try:
        return named_model(config, other, mesh)
    except (ValueError, OSError, ImportError) as error:
        raise ValueError(f"eval.judge_free_reference is {other!r}: {error}") from None


def reference_name(config: ConfigDict, base_folder: Path) -> str:
    """The reference by a name that is the same for all runs that start from the same base."""
    named = config.eval.judge_free_reference
    if not named and base_is_stored(config):
        return f"base {base_folder.name}"
    return named or config.model.source or f"seed {config.seed}"


def evaluate_subject(subject: Subject) -> str:
    """Evaluates the policy of a command into its folder, or goes on there; returns what to print.

    A model's reference for fidelity without a judge is `eval.judge_free_reference`, or itself.
    Raises ValueError or OSError, in one line, for bad input or a full disk; Stopped for Ctrl-C or
    SIGTERM: what is done is kept, and the same call goes on.
    """
    config, folder = subject.config, subject.folder
    mesh = make_mesh(**config.mesh)
    with compiled_programs(), jax.set_mesh(mesh):
        run = build_run(config, subject.workdir, mesh, subject.base, testing_only=True)
        with run.verifier:
            if config.eval.judge_free_candidates:
                open_reference(config, mesh)
            require_shared(folder, "the evaluation's folder")
            agenda = Agenda(phases_of_evaluations(run, [folder], [folder]))
            with run.stop, following(agenda):
                asked = replace(run.at(subject.step), name=subject.name)
                evaluate_policy(run, asked, subject.of, folder)
                measure_likelihoods(run, [folder])
    from permix_jax.report.run_page import write_evaluation_report  # with matplotlib

    table = on_main(partial(write_evaluation_report, folder))
    return f"{table}\nreport: {folder / 'report.html'}"
