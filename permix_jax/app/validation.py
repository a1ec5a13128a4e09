"""What a config must satisfy, checked before anything is built."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from permix_jax.core.fields import did_you_mean
from permix_jax.core.persona import EVAL_SETS, PLACEMENTS
from permix_jax.models.config import LORA_TARGETS, REMAT, ModelConfig
from permix_jax.personas.mixture import LEVELS, WEIGHTS
from permix_jax.stats.stability import PSS
from permix_jax.tasks.demonstrations import INSTRUCTIONS
from permix_jax.tasks.problem_task import OVERLAPS
from permix_jax.train.advantages import GROUPS, SCALES
from permix_jax.train.loss import AGGREGATIONS, KL_ESTIMATORS

_DECAYS = ("none", "linear", "cosine")
_DTYPES = ("float32", "bfloat16")
METHODS = ("grpo", "sft", "distill")


def require_valid(config: ConfigDict) -> None:
    """Raises ValueError, one line with field, value and remedy, for the first impossible value."""
    for field in _RULES:
        valid_field(config, field)
    for field, remedy in _between_fields(config):
        raise ValueError(f"{field} is {_get(config, field)!r}; {remedy}")


def rounding_warning(config: ConfigDict) -> str:
    """What to know where weights that the run trains are kept in bf16; "" elsewhere.

    Neighbours in bf16 differ by 0.4 to 0.8 % of themselves, and an update of AdamW is about the
    learning rate: at 1e-6 nearly every weight is rounded back to what it was.
    """
    trains_all = config.sft.steps or not config.lora.rank
    if not trains_all or config.model.param_dtype == "float32":
        return ""
    return (
        f"model.param_dtype is {config.model.param_dtype!r}: most updates are smaller than the "
        "rounding of a bf16 weight, and are lost; use float32, or where memory is short lora.rank "
        "= 16 with sft.steps = 0, which trains f32 adapters on a base in bf16"
    )


def valid_field(config: ConfigDict, field: str) -> Any:
    """The value of a dotted field that keeps its rule; raises ValueError, one line, where not."""
    rule, value = _RULES[field], _get(config, field)
    if not rule.holds(value):
        near = did_you_mean(_wrong_part(value, rule.choices), rule.choices)
        raise ValueError(f"{field} is {value!r}; {rule.remedy}{near}")
    return value


def require_model_fits(model: ModelConfig, config: ConfigDict) -> None:
    """Raises ValueError where rollouts outgrow the model's context; and as `require_mesh_fits`."""
    prompt = config.rollout.max_prompt_tokens
    for part in ("rollout", "sft") if config.sft.steps else ("rollout",):
        length = prompt + config[part].max_new_tokens
        if model.max_context and length > model.max_context:
            raise ValueError(
                f"rollout.max_prompt_tokens + {part}.max_new_tokens is {length}, over the model's "
                f"context of {model.max_context}; lower one of them"
            )
    require_mesh_fits(model, config)


def require_mesh_fits(model: ModelConfig, config: ConfigDict) -> None:
    """Raises ValueError where the mesh cuts an axis of the model into unequal parts."""
    axes = {
        "mesh.tensor": {
            "vocab_size": model.vocab_size,
            "num_heads": model.num_heads,
            "num_kv_heads": model.num_kv_heads,
            "mlp_dim": model.mlp_dim,
        },
        "mesh.fsdp": {"embed_dim": model.embed_dim},
    }
    for field, sizes in axes.items():
        for name, size in sizes.items():
            if size % _get(config, field):
                raise ValueError(
                    f"{field} is {_get(config, field)}; it must divide the model's {name} of {size}"
                )


def _get(config: ConfigDict, field: str) -> Any:
    """The value of a dotted field; ValueError where a config file lacks it."""
    value = config
    for name in field.split("."):
        if name not in value:
            raise ValueError(f"{field} is missing from the config; see configs/permix.py")
        value = value[name]
    return value


class _Rule(NamedTuple):
    """What one field must satisfy; `choices`: of a text, all that it, or a part of it, may be."""

    holds: Callable[[Any], bool]
    remedy: str
    choices: Sequence[str] = ()


def _wrong_part(value: Any, choices: Sequence[str]) -> str:
    """The first of the comma-separated parts that is no choice."""
    return next((part for part in str(value).split(",") if part not in choices), "")


def _at_least(low: float) -> _Rule:
    return _Rule((lambda v: v >= low), f"use {low} or more")


def _one_of(*choices: str, because: str = "") -> _Rule:
    return _Rule((lambda v: v in choices), f"use one of {', '.join(choices)}{because}", choices)


def _above(low: float) -> _Rule:
    return _Rule((lambda v: v > low), f"use a number above {low}")


_SHARE = _Rule((lambda v: 0 <= v <= 1), "use a share from 0 to 1")
_CANDIDATES = _Rule(
    (lambda v: v == 0 or v >= 2),
    "use 0 (off), or 2 or more: the persona that was asked for, and others",
)
_RULES: dict[str, _Rule] = {
    "seed": _Rule((lambda v: 0 <= v < 2**31), "use 0 or more, below 2**31"),
    "task.name": _one_of("latent_style", "problems"),
    "task.num_test": _at_least(1),
    "task.own_style_prior": _SHARE,
    "task.arithmetic_share": _SHARE,
    "task.plain_share": _SHARE,
    "data.answer_format": _one_of(*INSTRUCTIONS),
    "data.max_steps": _at_least(0),
    "data.overlap": _one_of(*OVERLAPS),
    "rewards.correctness": _at_least(0),
    "rewards.format": _at_least(0),
    "rewards.overlong": _at_least(0),
    "rewards.overlong_tokens": _at_least(0),
    "rewards.workers": _at_least(1),
    "rewards.item_seconds": _above(0),
    "rewards.batch_seconds": _above(0),
    "model.dtype": _one_of(*_DTYPES),
    "model.param_dtype": _one_of(*_DTYPES),
    "model.embed_dim": _at_least(1),
    "model.num_layers": _at_least(1),
    "model.num_heads": _at_least(1),
    "model.num_kv_heads": _at_least(1),
    "model.head_dim": _at_least(2),
    "model.mlp_dim": _at_least(1),
    "model.head_chunk": _at_least(1),
    "model.remat": _one_of(*REMAT),
    "model.ignore_fields": _Rule(
        (lambda v: v == "" or all(re.fullmatch(r"[\w.]+", name) for name in v.split(","))),
        "use names of fields of the model's config.json, with commas and no spaces",
    ),
    "lora.rank": _at_least(0),
    "lora.alpha": _above(0),
    "lora.targets": _Rule(
        (lambda v: set(v.split(",")) <= LORA_TARGETS.keys()),
        f"use some of {','.join(LORA_TARGETS)}",
        tuple(LORA_TARGETS),
    ),
    "lora.base_dtype": _one_of(*_DTYPES),
    "sft.steps": _at_least(0),
    "sft.batch_size": _at_least(1),
    "sft.max_new_tokens": _at_least(2),
    "sft.learning_rate": _above(0),
    "sft.warmup_steps": _at_least(0),
    "sft.decay": _one_of(*_DECAYS),
    "sft.weight_decay": _at_least(0),
    "sft.max_grad_norm": _above(0),
    "sft.checkpoint_every": _at_least(1),
    "train.method": _one_of(*METHODS),
    "train.steps": _at_least(1),
    "train.problems_per_step": _at_least(1),
    "train.learning_rate": _above(0),
    "train.warmup_steps": _at_least(0),
    "train.decay": _one_of(*_DECAYS),
    "train.weight_decay": _at_least(0),
    "train.max_grad_norm": _above(0),
    "train.micro_batch_tokens": _at_least(1),
    "train.checkpoint_every": _at_least(1),
    "train.keep_checkpoints": _at_least(1),
    "train.log_completions_every": _at_least(1),
    "rollout.group_size": _Rule(
        (lambda v: v >= 2),
        "use 2 or more: a group of one has no baseline, so its advantage is always 0",
    ),
    "rollout.micro_batches": _at_least(1),
    "rollout.halvings": _at_least(0),
    "rollout.max_prompt_tokens": _at_least(1),
    "rollout.max_new_tokens": _at_least(2),
    "rollout.on_overflow": _one_of("error", "drop"),
    "rollout.temperature": _above(0),
    "rollout.top_k": _Rule(
        (lambda v: v == 0),
        "use 0: the update scores the whole distribution, not a truncated one",
    ),
    "rollout.top_p": _Rule(
        (lambda v: v == 1),
        "use 1: the update scores the whole distribution, not a truncated one",
    ),
    "personas.count": _at_least(0),
    "personas.share": _SHARE,
    "personas.level": _one_of(*LEVELS),
    "personas.placement": _one_of(*PLACEMENTS),
    "personas.weights": _one_of(*WEIGHTS),
    "personas.harmful_share": _SHARE,
    "personas.curriculum_steps": _at_least(0),
    "personas.adaptive_floor": _SHARE,
    "personas.adaptive_decay": _SHARE,
    "eval.pss": _one_of(*PSS),
    "grpo.advantage_group": _one_of(*GROUPS),
    "grpo.advantage_scale": _one_of(*SCALES),
    "grpo.aggregation": _one_of(*AGGREGATIONS),
    "grpo.clip_low": _Rule((lambda v: 0 < v < 1), "use a number between 0 and 1"),
    "grpo.clip_high": _above(0),
    "grpo.epochs": _at_least(1),
    "grpo.importance_cap": _Rule(
        (lambda v: v == 0 or v >= 1),
        "use 0 (off), or 1 or more: weights that correct nothing are 1",
    ),
    "grpo.kl_weight": _at_least(0),
    "grpo.kl_estimator": _one_of(
        *KL_ESTIMATORS, because=" (k1 in a loss has no gradient but noise)"
    ),
    "rehearsal.weight": _at_least(0),
    "rehearsal.rows": _at_least(1),
    "eval.every": _at_least(0),
    "eval.kl_responses": _at_least(0),
    "eval.samples": _at_least(1),
    "eval.role_play_samples": _at_least(0),
    "eval.sets": _Rule(
        (lambda v: sorted(v.split(",")) == sorted(set(v.split(",")) & set(EVAL_SETS))),
        f"use one or more of {','.join(EVAL_SETS)}, each once",
        EVAL_SETS,
    ),
    "eval.personas": _at_least(0),
    "eval.temperature": _at_least(0),
    "eval.batch_size": _at_least(1),
    "eval.resamples": _at_least(1),
    "eval.judge_free_candidates": _CANDIDATES,
    "eval.judge_free_questions": _Rule(
        (lambda v: v == 0 or v >= 2),
        "use 0 (all), or 2 or more: the interval is over questions",
    ),
    "personagym.personas": _at_least(0),
    "personagym.per_task": _at_least(0),
    "personagym.temperature": _at_least(0),
    "personagym.top_p": _Rule((lambda v: 0 < v <= 1), "use a share above 0, up to 1"),
    "personagym.max_new_tokens": _at_least(1),
    "personagym.batch_size": _at_least(1),
    "personagym.candidates": _CANDIDATES,
    "mesh.data": _at_least(1),
    "mesh.fsdp": _at_least(1),
    "mesh.tensor": _at_least(1),
    "mesh.deterministic": _Rule((lambda v: v in (True, False)), "use True or False"),
    "distributed.silent_seconds": _at_least(5),
    "distributed.wait_seconds": _at_least(5),
}


def _between_fields(c: ConfigDict) -> Iterator[tuple[str, str]]:
    """(field, remedy) of each rule between fields that is broken."""
    devices = c.mesh.data * c.mesh.fsdp
    rows = f"mesh.data * mesh.fsdp = {devices}"
    # Every other batch is filled up to the mesh; rollouts that count for nothing would cost most.
    rolls_out = c.train.method != "sft"
    if rolls_out and c.train.problems_per_step % (devices * c.rollout.micro_batches):
        parts = f"{rows} times rollout.micro_batches = {c.rollout.micro_batches}"
        yield "train.problems_per_step", f"use a multiple of {parts}"
    played = c.eval.role_play_samples if c.task.name == "latent_style" else 0
    if c.eval.temperature == 0 and max(c.eval.samples, played) > 1:
        remedy = "greedy answers do not vary: use 1 sample, or more than 0"
        yield "eval.temperature", remedy
    if (
        c.personas.level == "rollout"
        and c.grpo.advantage_group == "problem_persona"
        and not 0 < 2 * c.personas.count <= c.rollout.group_size
    ):
        remedy = "with personas.level = rollout such groups mostly hold one rollout, which has no "
        remedy += "baseline: use problem, or at most half as many personas.count as "
        yield "grpo.advantage_group", remedy + "rollout.group_size"
    if c.task.name == "problems" and not c.model.source:
        remedy = "task.name = problems takes a model that reads: name a Hugging Face id or folder"
        yield "model.source", remedy
    if c.task.name == "latent_style" and c.personas.file:
        yield "personas.file", "the embedded world has its own personas: leave it empty"
    if c.task.name == "latent_style" and c.personas.placement != "system":
        yield "personas.placement", "the embedded world's policy knows system messages alone"
    if c.task.name == "latent_style" and c.personas.paraphrase:
        yield "personas.paraphrase", "the embedded world lacks the words: set it to False"
    if c.rehearsal.weight and c.train.method != "grpo":
        yield "rehearsal.weight", "rehearsal stands beside GRPO: use 0, or train.method = grpo"
    if c.distill.teacher and c.train.method != "distill":
        yield "distill.teacher", "only train.method = distill has a teacher: leave it empty"
    if c.train.method != "grpo" and c.personas.weights == "adaptive":
        yield "personas.weights", "they adapt under train.method = grpo alone: use uniform"
    if not any(c.rewards[term] for term in ("correctness", "format", "overlong")):
        yield "rewards.correctness", "every term has weight 0: give one a weight"
    ramp, budget = c.rewards.overlong_tokens, c.rollout.max_new_tokens
    if c.rewards.overlong and not 1 <= ramp <= budget:
        yield "rewards.overlong_tokens", f"use 1 to rollout.max_new_tokens = {budget}"
