"""The main job, from a config to a report: base policy, GRPO, evaluation of both."""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.config import require_model_fits, require_valid
from permix_jax.evaluation.divergence import KlSettings, measure_kl
from permix_jax.evaluation.evaluate import EvalSettings, evaluate
from permix_jax.evaluation.report import summary_table, write_report
from permix_jax.evaluation.results import read_evaluations
from permix_jax.models.params import without_lora
from permix_jax.models.policy import Policy
from permix_jax.models.transformer import Decoder
from permix_jax.personas.mixture import build_mixture
from permix_jax.personas.paraphrases import all_paraphrases
from permix_jax.personas.persona import default_bank, load_personas
from permix_jax.personas.prompts import fit_budget
from permix_jax.policies import (
    build_policy,
    load_base_params,
    load_trained_params,
    policy_of_run,
)
from permix_jax.rewards.verifier import Verifier
from permix_jax.rollout.sampling import Sampling
from permix_jax.sharding import make_mesh
from permix_jax.tasks.latent_style import latent_style_task
from permix_jax.tasks.problem import Task
from permix_jax.tasks.problem_task import DataSettings, problem_task
from permix_jax.training.base import base_folder, prepare_base
from permix_jax.training.grpo import train_grpo
from permix_jax.training.stop import StopRequest
from permix_jax.training.supervised import train_distill, train_sft
from permix_jax.workdir import cache_folder, claim_workdir


def run(config: ConfigDict, workdir: Path, name: str, preset: str = "") -> str:
    """Does the whole job in `workdir`, or goes on with it, and returns the table to print.

    Raises:
      ValueError, FileNotFoundError: bad input, in one line.
      NonFiniteError: a step's loss or gradient was not finite.
      Stopped: Ctrl-C or SIGTERM; everything done so far is saved.
    """
    require_valid(config)
    cache = cache_folder()
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache / "xla"))
    mesh = make_mesh(**config.mesh)

    with jax.set_mesh(mesh):
        # ---- problems, personas, and a policy to start from --------------------------------------
        task = build_task(config, cache)
        policy, initial_params = build_policy(config, cache, mesh)
        require_model_fits(policy.model.config, config)
        task = drop_overlong(config, task, policy)
        base = base_folder(config, task, policy, cache)
        claim_workdir(workdir, config, name, preset, base)

        with StopRequest() as stop, build_verifier(config, task) as verifier:
            train_and_evaluate(
                config, task, policy, initial_params, mesh, base, verifier, workdir, stop
            )

    write_report(workdir)
    first, *_, last = read_evaluations(workdir)
    rows = {"base": first, "trained": last}
    return summary_table({row: (e.stability, e.fidelity) for row, e in rows.items()})


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
) -> None:
    """The phases of a run; each is skipped, or gone on with, where its result is there already."""

    base_policy = policy._replace(model=without_lora(policy.model))
    load_base = partial(load_base_params, config, policy, initial_params, base, mesh)
    last = config.train.steps
    load_trained = partial(load_trained_params, policy, load_base, workdir, last, mesh)

    def evaluate_at(step: int, policy: Policy, get_params: Callable[[], dict], label: str) -> None:
        settings, folder = eval_settings(config), workdir / "eval" / str(step)
        if not (folder / "stability.json").exists():
            evaluate(
                task, policy, get_params(), mesh, verifier, settings, folder, label, stop.check
            )

    def after_step(params: dict, step: int) -> None:
        if config.eval.every and step % config.eval.every == 0 and step < last:
            evaluate_at(step, policy, lambda: params, f"step {step}")

    # ---- base policy: SFT, once ----------------------------------------------------------------
    if config.sft.steps:
        prepare_base(config, task, policy, initial_params, mesh, base, stop)

    # ---- GRPO on persona-mixed rollouts, or a baseline in its place ----------------------------
    phase = (mesh, verifier, workdir, stop, after_step)
    if config.train.method == "grpo":
        train_grpo(config, task, policy, load_base, *phase)
    elif config.train.method == "sft":
        train_sft(config, task, policy, load_base, mesh, workdir, stop, after_step)
    else:
        load_teacher = partial(teacher_of, config, base_policy, load_base, mesh)
        train_distill(config, task, policy, load_base, load_teacher, *phase)

    # ---- both policies under personas that RL never saw ----------------------------------------
    evaluate_at(0, base_policy, load_base, "the base policy")
    evaluate_at(last, policy, load_trained, "the trained policy")
    kl_path = workdir / "eval" / str(last) / "kl.json"
    if config.eval.kl_responses and not kl_path.exists():
        pairs = (policy, load_trained, base_policy, load_base)
        measure_kl(task, *pairs, mesh, kl_settings(config, task), kl_path, stop.check)


def teacher_of(
    config: ConfigDict, base_policy: Policy, load_base: Callable[[], dict], mesh: Mesh
) -> tuple[Policy, dict]:
    """The policy that `distill.teacher` means, and its parameters."""
    if not config.distill.teacher:
        return base_policy, load_base()
    return policy_of_run(Path(config.distill.teacher), cache_folder(), mesh)


def build_task(config: ConfigDict, cache: Path) -> Task:
    """The problems and personas that the config names."""
    t = config.task
    if t.name == "latent_style":
        return latent_style_task(
            t.num_test, t.own_style_prior, t.arithmetic_share, t.plain_share, config.seed
        )
    personas = load_personas(config.personas.file) if config.personas.file else default_bank()
    personas = [dataclasses.replace(p, placement=config.personas.placement) for p in personas]
    task = problem_task(DataSettings(**config.data), personas, t.num_test, config.seed, cache)
    return dataclasses.replace(
        task, grade=partial(task.grade, last_number=config.rewards.last_number)
    )


def build_verifier(config: ConfigDict, task: Task) -> Verifier:
    """What grades completions; its processes, where the task needs some, start at once."""
    r = config.rewards
    workers = r.workers if task.symbolic else 0
    return Verifier(task.grade, workers, r.item_seconds, r.batch_seconds)


def drop_overlong(config: ConfigDict, task: Task, policy: Policy) -> Task:
    """The task without (or refused for) prompts over rollout.max_prompt_tokens."""
    r = config.rollout
    drawn = build_mixture(task.personas, config.personas).personas
    if config.personas.paraphrase:
        drawn = all_paraphrases(drawn)
    asked = [p for p in task.personas if p.split == "heldout"]

    def fitting(problems, personas):
        return fit_budget(policy.tokenizer, problems, personas, r.max_prompt_tokens, r.on_overflow)

    return dataclasses.replace(
        task,
        train=fitting(task.train, drawn),
        test=fitting(task.test, asked),
        role_play=fitting(task.role_play, asked),
    )


def kl_settings(config: ConfigDict, task: Task) -> KlSettings:
    """How the KL to the base is estimated: on the evaluation's prompts, sampled as in training."""
    e, r = config.eval, config.rollout
    return KlSettings(
        seed=config.seed,
        responses=e.kl_responses,
        role_play=bool(task.in_style and e.role_play_samples),
        personas=e.personas,
        batch_size=min(e.batch_size, e.kl_responses),
        max_prompt_tokens=r.max_prompt_tokens,
        chunk_tokens=config.model.head_chunk,
        sampling=Sampling(r.max_new_tokens, r.temperature),
    )


def eval_settings(config: ConfigDict) -> EvalSettings:
    """The evaluation that the config asks for; completions have the budget of training."""
    e, r = config.eval, config.rollout
    return EvalSettings(
        seed=config.seed,
        samples=e.samples,
        role_play_samples=e.role_play_samples,
        personas=e.personas,
        batch_size=e.batch_size,
        max_prompt_tokens=r.max_prompt_tokens,
        resamples=e.resamples,
        pss=e.pss,
        sampling=Sampling(r.max_new_tokens, e.temperature),
    )
