"""The main job, from a config to a report: base policy, GRPO, evaluation of both."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.checkpoints import load_params
from permix_jax.config import require_mesh_divides, require_valid
from permix_jax.evaluation.evaluate import EvalSettings, evaluate
from permix_jax.evaluation.report import summary_table, write_report
from permix_jax.evaluation.results import read_evaluations
from permix_jax.models.config import ModelConfig
from permix_jax.models.params import create_params
from permix_jax.models.policy import Policy
from permix_jax.models.pretrained import load_pretrained
from permix_jax.models.transformer import Decoder
from permix_jax.personas.persona import default_bank, load_personas
from permix_jax.personas.prompts import fit_budget
from permix_jax.randomness import key
from permix_jax.rollout.sampling import Sampling
from permix_jax.sharding import make_mesh
from permix_jax.tasks.latent_style import build_tokenizer, latent_style_task
from permix_jax.tasks.problem import Task
from permix_jax.tasks.word_problems import word_problem_task
from permix_jax.training.base import base_folder, prepare_base
from permix_jax.training.grpo import train_grpo
from permix_jax.training.stop import StopRequest
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
        task = build_task(config)
        policy, initial_params = build_policy(config, cache, mesh)
        require_mesh_divides(policy.model.config, config)
        task = drop_overlong(config, task, policy)
        base = base_folder(config, task, policy, cache)
        claim_workdir(workdir, config, name, preset, base)

        with StopRequest() as stop:
            train_and_evaluate(config, task, policy, initial_params, mesh, base, workdir, stop)

    write_report(workdir)
    first, *_, last = read_evaluations(workdir)
    rows = {"base": first, "trained": last}
    return summary_table({row: (e.stability, e.fidelity) for row, e in rows.items()})


def train_and_evaluate(
    config: ConfigDict,
    task: Task,
    policy: Policy,
    initial_params,
    mesh: Mesh,
    base: Path,
    workdir: Path,
    stop: StopRequest,
) -> None:
    """The phases of a run; each is skipped, or gone on with, where its result is there already."""

    def load(folder: Path, step: int | None = None):
        return load_params(folder / "checkpoints", policy.model, mesh, step)

    def evaluate_at(step: int, get_params: Callable[[], dict], label: str) -> None:
        settings, folder = eval_settings(config), workdir / "eval" / str(step)
        if not (folder / "stability.json").exists():
            evaluate(task, policy, get_params(), mesh, settings, folder, label, stop.check)

    def after_step(state, step: int) -> None:
        if config.eval.every and step % config.eval.every == 0 and step < config.train.steps:
            evaluate_at(step, lambda: state.params, f"step {step}")

    # ---- base policy: SFT, once ----------------------------------------------------------------
    prepare_base(config, task, policy, initial_params, mesh, base, stop)

    # ---- GRPO on persona-mixed rollouts --------------------------------------------------------
    train_grpo(config, task, policy, lambda: load(base), mesh, workdir, stop, after_step)

    # ---- both policies under personas that RL never saw ----------------------------------------
    last = config.train.steps
    evaluate_at(0, lambda: load(base), "the base policy")
    evaluate_at(last, lambda: load(workdir, last), "the trained policy")


def build_task(config: ConfigDict) -> Task:
    """The problems and personas that the config names."""
    t = config.task
    if t.name == "latent_style":
        return latent_style_task(
            t.num_test, t.own_style_prior, t.arithmetic_share, t.plain_share, config.seed
        )
    personas = load_personas(config.personas.file) if config.personas.file else default_bank()
    return word_problem_task(
        config.data.folder, personas, config.data.max_steps, t.num_test, config.seed
    )


def build_policy(config: ConfigDict, cache: Path, mesh: Mesh) -> tuple[Policy, dict]:
    """The policy before any training of ours, and its parameters."""
    m = config.model
    if m.source:
        loaded = load_pretrained(m.source, cache, m.param_dtype, m.dtype, m.remat)
        policy = Policy(Decoder(loaded.config), loaded.tokenizer, loaded.end_tokens)
        return policy, loaded.params
    tokenizer = build_tokenizer()
    shape = ModelConfig(
        vocab_size=len(tokenizer),
        embed_dim=m.embed_dim,
        num_layers=m.num_layers,
        num_heads=m.num_heads,
        num_kv_heads=m.num_kv_heads,
        head_dim=m.head_dim,
        mlp_dim=m.mlp_dim,
        dtype=m.dtype,
        param_dtype=m.param_dtype,
        remat=m.remat,
    )
    policy = Policy(Decoder(shape), tokenizer, (tokenizer.eos_token_id,))
    return policy, create_params(policy.model, key(config.seed, "init"), mesh)


def drop_overlong(config: ConfigDict, task: Task, policy: Policy) -> Task:
    """The task without (or refused for) prompts over rollout.max_prompt_tokens."""
    r = config.rollout

    def fitting(problems, split):
        personas = [p for p in task.personas if p.split == split]
        return fit_budget(policy.tokenizer, problems, personas, r.max_prompt_tokens, r.on_overflow)

    return dataclasses.replace(
        task,
        train=fitting(task.train, "train"),
        test=fitting(task.test, "heldout"),
        role_play=fitting(task.role_play, "heldout"),
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
        sampling=Sampling(r.max_new_tokens, e.temperature),
    )
