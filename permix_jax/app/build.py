"""Builds what a config means: a run, its task, the settings of its parts."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.app.policies import build_policy
from permix_jax.app.start import open_start
from permix_jax.app.validation import require_model_fits
from permix_jax.app.workdir import cache_folder, known_revisions, shared_cache
from permix_jax.core.config_fields import FIELDS
from permix_jax.core.field_rules import call_with, fixed_fields
from permix_jax.core.persona import Persona
from permix_jax.core.problem import Task
from permix_jax.evaluation.divergence import KlSettings
from permix_jax.evaluation.evaluate import EvalSettings, chosen_personas
from permix_jax.evaluation.judge_free import JudgeFreeSettings
from permix_jax.models.packed_attention import require_attention
from permix_jax.models.policy import Policy
from permix_jax.personas.bank import default_bank, load_personas
from permix_jax.personas.mixture import build_mixture
from permix_jax.personas.paraphrases import all_paraphrases
from permix_jax.personas.prompts import fit_budget, render_text
from permix_jax.rewards.thinking import answer_part, begins_thought, behind_thinking
from permix_jax.rewards.verifier import Verifier
from permix_jax.tasks.arithmetic import arithmetic_task
from permix_jax.tasks.embedded_world import latent_style_task
from permix_jax.tasks.problem_task import problem_task
from permix_jax.train.base import base_folder
from permix_jax.train.method import PERMIX, Method
from permix_jax.train.programs import rollout_sampling
from permix_jax.train.run import Run
from permix_jax.train.saved_steps import saved_steps


def build_run(
    config: ConfigDict,
    workdir: Path,
    mesh: Mesh,
    base: Path | None = None,
    method: Method = PERMIX,
    testing_only: bool = False,
    start: Mapping[str, Any] | None = None,
) -> Run:
    """The run of a config. Reads no weights. The verifier has a thread: enter it.

    `base` is the folder of the base policy (None: its place in the cache). With `testing_only`,
    training problems are left out where they are other data than the test's. `start` is what
    `find_start` found.
    """
    cache = cache_folder()
    task = build_task(config, cache, testing_only, known_revisions(workdir))
    policy, initial = build_policy(config, cache, mesh)
    require_model_fits(policy.model.config, config)
    require_attention(policy.model.config.attention, mesh.devices.flat[0].platform)
    task = with_thinking(config, drop_overlong(config, task, policy), policy)
    origin = None
    if start:
        base = shared_cache(workdir) / "bases" / start["sha256"][:16]
        begun = (workdir / "config.json").exists()
        if not (begun and 0 in saved_steps(base / "checkpoints")):
            origin = open_start(start, policy, base, mesh)
    base = base or base_folder(config, task, policy, shared_cache(workdir))
    verifier = Verifier(task.grade)
    return Run(config, workdir, task, policy, initial, base, verifier, method=method, origin=origin)


def build_task(
    config: ConfigDict,
    cache: Path,
    testing_only: bool = False,
    revisions: Mapping[str, str] | None = None,
) -> Task:
    """The problems and personas that the config names; `testing_only` as for `build_run`.

    `revisions`: the commits of data sets of the hub that a run began with.
    """
    t, file = config.task, config.personas.file
    if t.name == "latent_style":
        return call_with(latent_style_task, t, config)
    personas = load_personas(file) if file else default_bank()
    personas = [replace(p, placement=config.personas.placement) for p in personas]
    if t.name == "arithmetic":
        task = call_with(arithmetic_task, t, config, personas=personas)
    else:
        drawn = config.data, personas, t.num_test, config.seed, cache
        task = problem_task(*drawn, testing_only, revisions)
    last = {"last_number": config.rewards.last_number}
    return replace(task, grade=partial(task.grade, **last), stated=partial(task.stated, **last))


def drop_overlong(config: ConfigDict, task: Task, policy: Policy) -> Task:
    """The task without prompts over the budget; ValueError with rollout.on_overflow = "error"."""
    r = config.rollout
    drawn = drawn_personas(config, task) if task.train else ()
    asked = asked_personas(config, task)

    def fitting(problems, personas):
        return fit_budget(policy.tokenizer, problems, personas, r.max_prompt_tokens, r.on_overflow)

    train, test = fitting(task.train, drawn), fitting(task.test, asked)
    return replace(task, train=train, test=test, role_play=fitting(task.role_play, asked))


def with_thinking(config: ConfigDict, task: Task, policy: Policy) -> Task:
    """The task whose answers are looked for behind `rewards.thinking_end`.

    Raises ValueError where texts of completions would not have that: it is a special token.
    """
    end, tokenizer = config.rewards.thinking_end, policy.tokenizer
    if not end or task.name == "latent_style":
        return task
    added = tokenizer.added_tokens_decoder.values()
    thinks = config.model.thinking or end in (tokenizer.chat_template or "")
    if thinks and any(token.special and token.content == end for token in added):
        raise ValueError(
            f"rewards.thinking_end is {end!r}, a special token of the tokenizer, without which "
            'texts are graded: write "special": false for it in tokenizer.json'
        )
    begun = begins_thought(render_text(tokenizer, None, "What is 2 + 3?"), end)
    part = partial(answer_part, end=end, begun=begun)
    grade, stated = (behind_thinking(rule, part) for rule in (task.grade, task.stated))
    return replace(task, grade=grade, stated=stated, answer_part=part)


def drawn_personas(config: ConfigDict, task: Task) -> Sequence[Persona]:
    """The personas that training may draw, in all of their wordings."""
    drawn = build_mixture(task.personas, config.personas).personas
    return all_paraphrases(drawn) if config.personas.paraphrase else drawn


def asked_personas(config: ConfigDict, task: Task) -> list[Persona]:
    """The personas of an evaluation; ValueError where the config asks for more than there are."""
    e = config.eval
    asked = chosen_personas(task.personas, e.sets, e.personas)
    if e.judge_free_candidates > len(asked):
        raise ValueError(
            f"eval.judge_free_candidates is {e.judge_free_candidates}; the evaluation has "
            f"{len(asked)} personas, use 2 to that many, or 0"
        )
    return asked


def eval_settings(config: ConfigDict) -> EvalSettings:
    """The evaluation that the config asks for."""
    e = config.eval
    budget = e.max_new_tokens or config.rollout.max_new_tokens
    sampling = rollout_sampling(config)
    sampling = replace(sampling, temperature=e.temperature, max_new_tokens=budget)
    return call_with(EvalSettings, e, config.rollout, config, sampling=sampling)


def kl_settings(config: ConfigDict, task: Task) -> KlSettings:
    """How the KL to the base is estimated: on the evaluation's prompts, sampled as in training."""
    e, r = config.eval, config.rollout
    return call_with(
        KlSettings, e, r, config,
        responses=e.kl_responses,
        role_play=bool(task.in_style and e.role_play_samples),
        batch_size=min(e.batch_size, e.kl_responses),
        micro_batch_tokens=config.train.micro_batch_tokens,
        logits_chunk=config.model.head_chunk,
        sampling=rollout_sampling(config),
    )  # fmt: skip


def judge_free_settings(config: ConfigDict) -> JudgeFreeSettings:
    """The measures of fidelity without a judge that the config asks for."""
    e = config.eval
    named = {"candidates": e.judge_free_candidates, "questions": e.judge_free_questions}
    return call_with(JudgeFreeSettings, e, config, **named)


def eval_identity(config: ConfigDict) -> dict:
    """The fields of the config that an evaluation's results depend on.

    `eval.max_new_tokens` is among them where it is set, `rewards.thinking_end` where the model is
    asked to think or the field is not at its default, and so are newer fields of `data`: older
    evaluations lack them.
    """
    newer = ("subset", "split", "test_split", "fields", "prompt_template")
    defaults = {name: FIELDS[f"data.{name}"].default for name in newer}
    at_default = {name for name, x in defaults.items() if config.data.get(name, x) == x}
    left_out = {"every"} if config.eval.max_new_tokens else {"every", "max_new_tokens"}
    thinking = config.rewards.thinking_end != FIELDS["rewards.thinking_end"].default
    thinking = {"thinking_end"} if thinking or config.model.thinking else set()
    return identity(
        config,
        task=config.task,
        data={*config.data} - at_default,
        rewards={"last_number"} | thinking,
        personas={"file", "placement"},
        rollout={"max_prompt_tokens", "max_new_tokens", "on_overflow"},
        eval={name for name in config.eval if name not in left_out and "judge" not in name},
    )


def identity(config: ConfigDict, **parts: Container[str]) -> dict:
    """The seed, the sections model and lora, and the named fields of the other sections, without
    fields of CHANGEABLE, which change a result by rounding at most."""
    whole = fixed_fields(config.to_dict())
    kept = {"seed": whole["seed"]}
    for part, names in {"model": whole["model"], "lora": whole["lora"], **parts}.items():
        kept[part] = {name: x for name, x in sorted(whole[part].items()) if name in names}
    return kept
