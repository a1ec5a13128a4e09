"""The main job, from a config to a report: base policy, GRPO, evaluation of both."""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.app.build import build_task, build_verifier, drop_overlong, kl_settings
from permix_jax.app.compilation import compiled_programs
from permix_jax.app.evaluations import Evaluator, base_name, run_identity
from permix_jax.app.later_parts import open_teacher, require_later_parts
from permix_jax.app.next_steps import after_training
from permix_jax.app.phases import phases_of_run
from permix_jax.app.policies import build_policy, load_base_params, load_trained_params
from permix_jax.app.validation import require_model_fits, require_valid, rounding_warning
from permix_jax.app.workdir import cache_folder, claim_workdir
from permix_jax.core.distributed import on_main, require_shared
from permix_jax.core.field_rules import require_read
from permix_jax.core.files import write_json
from permix_jax.core.problem import Task
from permix_jax.core.progress import Agenda, following
from permix_jax.core.sharding import make_mesh
from permix_jax.core.stop import StopRequest
from permix_jax.evaluation.divergence import measure_kl
from permix_jax.evaluation.results import read_evaluations
from permix_jax.models.params import without_lora
from permix_jax.models.policy import Policy
from permix_jax.models.transformer import Decoder
from permix_jax.report.overview import summary_table
from permix_jax.report.run_page import write_run_report
from permix_jax.rewards.verifier import Verifier
from permix_jax.train.base import base_folder, prepare_base
from permix_jax.train.grpo import train_grpo
from permix_jax.train.method import PERMIX, Method, describe, require_used
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
    """Does the whole job in `workdir`, or goes on with it, and returns what to print.

    That is a table, where the report is, and what to do next.

    Args:
      changed: the fields that have another value than in the preset; the report marks them, and one
        that nothing reads is refused.
      method: your own mixing, reward terms or advantages; the workdir is refused to another one.
      arguments: of the command line that made the config; see `after_training`.

    Raises:
      ValueError, FileNotFoundError: bad input, in one line.
      NonFiniteError: a step's loss or gradient was not finite.
      Stopped: Ctrl-C or SIGTERM; everything done so far is saved.
    """
    require_read([config.to_dict()], changed, "train")
    require_valid(config)
    if warning := rounding_warning(config):
        _LOG.warning(warning)
    require_used(method, config)
    cache = cache_folder()
    mesh = make_mesh(**config.mesh)

    with compiled_programs() as count, jax.set_mesh(mesh):
        # ---- problems, personas, and a policy to start from --------------------------------------
        task = build_task(config, cache)
        policy, initial_params = build_policy(config, cache, mesh)
        require_model_fits(policy.model.config, config)
        task = drop_overlong(config, task, policy)
        require_later_parts(config, task, policy, mesh)
        base = base_folder(config, task, policy, cache)
        require_shared(workdir, "--workdir")
        require_shared(cache, "PERMIX_CACHE")
        claim = partial(claim_workdir, workdir, config, name, preset, base, changed)
        on_main(partial(claim, describe(method)))
        devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
        _LOG.info("%s; everything is written to %s; the first steps compile", devices, workdir)

        agenda = Agenda(phases_of_run(config, task, workdir, base))
        with StopRequest() as stop, build_verifier(config, task) as verifier, following(agenda):
            train_and_evaluate(
                config, task, policy, initial_params, mesh, base, verifier, workdir, stop, method
            )

    return on_main(partial(_report, workdir, count, arguments))


def _report(workdir: Path, programs: Mapping[str, float], arguments: Sequence[str] | None) -> str:
    write_json(workdir / "programs.json", programs)
    write_run_report(workdir)
    first, *_, last = read_evaluations(workdir)
    rows = {"base": first, "trained": last}
    table = summary_table({row: (e.stability, e.fidelity) for row, e in rows.items()})
    return f"{table}\n{after_training(workdir, arguments)}"


def train_and_evaluate(
    config: ConfigDict,
    task: Task,
    policy: Policy,
    initial_params: Callable[[Decoder], dict],
    mesh: Mesh,
    base: Path,
    verifier: Verifier,
    workdir: Path,
    stop: StopRequest,
    method: Method,
) -> None:
    """The phases of a run; each is skipped, or gone on with, where its result is there already."""

    base_policy = policy._replace(model=without_lora(policy.model))
    load_base = partial(load_base_params, config, policy, initial_params, base, mesh)
    last = config.train.steps
    load_trained = partial(load_trained_params, policy, load_base, workdir, last, mesh)
    evaluator = Evaluator(config, task, mesh, verifier, stop.check)

    def evaluate_at(step: int, policy: Policy, get_params: Callable[[], dict], label: str) -> Path:
        folder = workdir / "eval" / str(step)
        evaluator.evaluate(policy, get_params, run_identity(workdir, step, folder), folder, label)
        return folder

    def after_step(params: dict, step: int) -> None:
        if config.eval.every and step % config.eval.every == 0 and step < last:
            evaluate_at(step, policy, lambda: params, f"step {step}")

    # ---- base policy: SFT, once ----------------------------------------------------------------
    if config.sft.steps:
        prepare_base(config, task, policy, initial_params, mesh, base, stop)

    # ---- GRPO on persona-mixed rollouts, or a baseline in its place ----------------------------
    phase = (mesh, verifier, workdir, stop, after_step)
    if config.train.method == "grpo":
        train_grpo(config, task, policy, load_base, *phase, method)
    elif config.train.method == "sft":
        train_sft(config, task, policy, load_base, mesh, workdir, stop, after_step)
    else:
        teacher, load_teacher, asked = base_policy, load_base, task
        if config.distill.teacher:
            teacher, load_teacher, asked = open_teacher(config, task, mesh)
        train_distill(config, asked, policy, load_base, teacher, load_teacher, *phase, method)

    # ---- both policies under personas that RL never saw ----------------------------------------
    before = evaluate_at(0, base_policy, load_base, "the base policy")
    after = evaluate_at(last, policy, load_trained, "the trained policy")

    # ---- how much of the personas is in their responses, by the base's likelihoods -------------
    name = base_name(config, base)
    evaluator.measure_without_judge(base_policy, load_base, name, [before, after])

    # ---- how far the policy has moved from its base ----------------------------------------------
    kl_path = after / "kl.json"
    if config.eval.kl_responses and not on_main(kl_path.exists):
        pairs = (policy, load_trained, base_policy, load_base)
        measure_kl(task, *pairs, mesh, kl_settings(config, task), kl_path, stop.check)
