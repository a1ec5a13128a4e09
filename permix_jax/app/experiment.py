"""The main job, from a config to a report: base policy, GRPO, evaluation of both."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
from ml_collections import ConfigDict

from permix_jax.app.base_answers import base_answers
from permix_jax.app.best import judge, last_step
from permix_jax.app.build import build_run, drop_overlong, kl_settings
from permix_jax.app.compilation import compiled_programs
from permix_jax.app.evaluations import evaluate_policy, measure_likelihoods, open_reference
from permix_jax.app.next_steps import after_training
from permix_jax.app.phases import phases_of_run
from permix_jax.app.policies import policy_of_run, run_identity
from permix_jax.app.start import find_start
from permix_jax.app.validation import require_model_fits, require_valid, rounding_warning
from permix_jax.app.workdir import claim_workdir, shared_cache
from permix_jax.core.distributed import on_main, require_shared
from permix_jax.core.field_rules import require_read
from permix_jax.core.fields import names_in
from permix_jax.core.files import write_json
from permix_jax.core.places import place_of
from permix_jax.core.problem import Task
from permix_jax.core.progress import Agenda, correct, following
from permix_jax.core.randomness import generator
from permix_jax.core.sharding import make_mesh
from permix_jax.evaluation.divergence import measure_kl
from permix_jax.evaluation.results import read_evaluations
from permix_jax.models.policy import StoredPolicy
from permix_jax.train.base import prepare_base
from permix_jax.train.grpo import train_grpo
from permix_jax.train.loggers import Loggers, require_installed
from permix_jax.train.loop import Verdict
from permix_jax.train.method import PERMIX, Method, describe, read_method, require_used
from permix_jax.train.rehearsal import build_rehearsal
from permix_jax.train.run import Run
from permix_jax.train.supervised import train_distill, train_sft

_LOG = logging.getLogger(__name__)


def run(
    config: ConfigDict,
    workdir: Path,
    name: str,
    preset: str = "",
    changed: Sequence[str] = (),
    method: Method = PERMIX,
    arguments: Sequence[str] | None = None,
) -> str:
    """Does the whole job in `workdir`, or goes on with it.

    Returns what to print: a table, where the report is, and what to do next.

    Args:
      changed: the fields that have another value than in the preset. The report marks them. One
        that nothing reads is refused.
      method: your own mixing, reward terms or advantages; the workdir is refused to another one.
      arguments: of the command line that made the config; see `after_training`.

    Raises ValueError or FileNotFoundError, in one line, for bad input; NonFiniteError where a
    step's loss or gradient is not finite; Stopped for Ctrl-C or SIGTERM, when all done is saved.
    """
    require_read([config.to_dict()], changed, "train")
    require_valid(config)
    if warning := rounding_warning(config):
        _LOG.warning(warning)
    if config.method:
        if method != PERMIX:
            raise ValueError(
                f"method is {config.method!r}, and another one is passed; leave one out"
            )
        method = read_method(config.method)
    require_used(method, config)
    require_installed(names := names_in(config.train.loggers))
    mesh = make_mesh(**config.mesh)

    with Loggers(names, workdir) as loggers, compiled_programs() as count, jax.set_mesh(mesh):
        start = find_start(config, workdir)
        this = build_run(config, workdir, mesh, method=method, start=start)
        this = replace(this, loggers=loggers)
        with this.verifier:
            _require_later_parts(this)
            require_shared(workdir, "--workdir")
            require_shared(shared_cache(workdir), "PERMIX_CACHE")
            claimed = workdir, config, name, preset, this.base_folder, changed, describe(method)
            on_main(partial(claim_workdir, *claimed, start, this.task.revisions))
            devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
            _LOG.info("%s; everything is written to %s; the first steps compile", devices, workdir)
            with this.stop, following(Agenda(phases_of_run(this))):
                train_and_evaluate(this)

        said = on_main(partial(_report, workdir, count, arguments))
        loggers.report(workdir / "report.html")
        return said


def train_and_evaluate(run: Run) -> None:
    """The phases of a run. A phase whose result is there is skipped; an interrupted one goes on."""
    prepare_base(run)  # by SFT, once
    _train(run)  # GRPO on persona-mixed rollouts, or a baseline in its place

    last = on_main(partial(last_step, run.config, run.workdir))
    if last < (t := run.config.train).steps:
        said = "ends early, after step %d of %d: no higher %s in %d evaluations (train.stop_after)"
        _LOG.info(said, last, t.steps, t.keep_best, t.stop_after)
        correct(phases_of_run(run))

    # Both policies, under personas that RL never saw.
    trained = replace(run.at(last), name="the trained policy")
    before = _evaluate(run, 0, run.base, base_answers(run))
    correct(phases_of_run(run))  # the base may have been asked by another run
    after = _evaluate(run, last, trained)
    if run.config.train.keep_best:
        on_main(partial(judge, run.config, run.workdir, last))

    # How much of the personas is in their responses, by the base's likelihoods.
    measure_likelihoods(run, [before, after])

    # How far the policy has moved from its base.
    kl_path = after / "kl.json"
    if run.config.eval.kl_responses and not on_main(kl_path.exists):
        settings = kl_settings(run.config, run.task)
        measure_kl(run.task, trained, run.base, settings, kl_path, run.stop.check)


def _train(run: Run) -> None:
    """Trains as `train.method` says, and evaluates and judges every `eval.every` steps."""
    config, verdict = run.config, None

    def after_step(params: dict, step: int) -> Verdict | None:
        nonlocal verdict
        due = config.eval.every and step % config.eval.every == 0 and step < config.train.steps
        if due:
            _evaluate(run, step, replace(run.at(step), load_params=lambda: params))
        if config.train.keep_best and (due or verdict is None):
            verdict = on_main(partial(judge, config, run.workdir, step))
        return verdict

    if config.train.method == "grpo":
        train_grpo(run, after_step)
    elif config.train.method == "sft":
        train_sft(run, after_step)
    else:
        train_distill(run, *_open_teacher(run), after_step)


def _evaluate(run: Run, step: int, policy: StoredPolicy, shared: Path | None = None) -> Path:
    """Evaluates the policy of a step into its folder, which is returned."""
    folder = run.workdir / "eval" / str(step)
    evaluate_policy(run, policy, run_identity(run.workdir, step, folder), folder, shared)
    return folder


def _require_later_parts(run: Run) -> None:
    """Raises ValueError or FileNotFoundError, in one line, where a later phase would fail: for
    demonstrations, the teacher, prompts of rehearsal, an evaluation's reference. Reads no weights.
    """
    config, task = run.config, run.task
    if config.sft.steps or config.train.method == "sft":
        task.demonstrate(generator(config.seed, "later_parts"), task.train)
    if config.train.method == "distill":
        _open_teacher(run)
    build_rehearsal(run)
    if config.eval.judge_free_candidates:
        open_reference(config, run.mesh)


def _open_teacher(run: Run) -> tuple[StoredPolicy, Task]:
    """The policy of the run `distill.teacher`, or else the base; and the task without problems
    that are over the budget in its tokens. Raises ValueError where the teacher cannot be used."""
    if not run.config.distill.teacher:
        return run.base, run.task
    workdir = place_of(run.config.distill.teacher)
    try:
        teacher = policy_of_run(workdir, run.mesh)
        require_model_fits(teacher.policy.model.config, run.config)
        return teacher, drop_overlong(run.config, run.task, teacher.policy)
    except (ValueError, OSError, ImportError) as error:
        raise ValueError(f"distill.teacher is {str(workdir)!r}: {error}") from None


def _report(workdir: Path, programs: Mapping[str, float], arguments: Sequence[str] | None) -> str:
    from permix_jax.report.overview import summary_table
    from permix_jax.report.run_page import best_lines, write_run_report

    write_json(workdir / "programs.json", programs)
    write_run_report(workdir)
    first, *_, last = read_evaluations(workdir)
    rows = {"base": first, "trained": last}
    table = summary_table({row: (e.stability, e.fidelity) for row, e in rows.items()})
    return "\n".join([table, *best_lines(workdir), after_training(workdir, arguments)])
