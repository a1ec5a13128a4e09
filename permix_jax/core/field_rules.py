"""What is declared of config fields beside their values: which may change when a run goes on, and
which are read where.

Plain data, by dotted field. Imports no JAX, so that a command can read it before its job begins.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from permix_jax.core.fields import flat_fields

# Fields in which a run may go on with another value than it began with, and why its results stay
# the same. `app/workdir.py` writes each change into the history of config.json. None of them is
# part of what an evaluation or a cached base policy is known by.
CHANGEABLE: dict[str, str] = {
    "train.steps": "the steps done are the same; refused where train.decay was computed from it",
    "train.micro_batch_tokens": "an update's sums are taken in other parts: equal up to rounding",
    "train.checkpoint_every": "only says when the state is saved",
    "train.keep_checkpoints": "only says what is kept",
    "train.log_completions_every": "only says what is written",
    "sft.checkpoint_every": "only says when the state is saved",
    "rollout.micro_batches": "rollouts are sampled in other batches: equal up to rounding",
    "rollout.halvings": "rows are decoded in other batches: equal up to rounding",
    "rewards.workers": "only says how many answers are compared at once",
    "model.head_chunk": "an update's sums are taken in other parts: equal up to rounding",
    "model.remat": "the backward pass computes the same again: equal up to rounding",
    "eval.batch_size": "an answer depends on its own key alone: equal up to rounding",
    "personagym.batch_size": "an answer depends on its own key alone: equal up to rounding",
    "mesh.data": "sums are taken over other devices: equal up to rounding",
    "mesh.fsdp": "sums are taken over other devices: equal up to rounding",
    "mesh.tensor": "sums are taken over other devices: equal up to rounding",
    "mesh.deterministic": "sums are taken in a fixed order: equal up to rounding",
    "model.ignore_fields": "only says which fields of config.json are passed over",
    "distributed.silent_seconds": "only says when processes that wait are ended",
    "distributed.wait_seconds": "only says when processes that wait are ended",
}


def fixed_fields(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The config, or its section `prefix` ("model."), without the fields of CHANGEABLE."""
    return {
        name: fixed_fields(value, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in config.items()
        if prefix + name not in CHANGEABLE
    }


class OtherThan(NamedTuple):
    """Any value but this one."""

    value: Any


# A condition: {field: the value, or values, or OtherThan}, all of which hold.
Condition = Mapping[str, Any]

_ROLLS_OUT = {"train.method": ("grpo", "distill")}
_MIXES = _ROLLS_OUT | {"personas.share": OtherThan(0)}
_GRPO = {"train.method": "grpo"}
_PROBLEMS = {"task.name": "problems"}
_WORLD = {"task.name": "latent_style"}
_DEMONSTRATES = ({"sft.steps": OtherThan(0)}, {"train.method": "sft"})
_SCRATCH = ({"model.source": ""},)
_REAL = ({"model.source": OtherThan("")}, {"eval.judge_free_reference": OtherThan("")})

# Field, or section -> conditions; it is read where one of them holds. Where a field and its section
# are both here, both must be read. A field that is not here is always read. So is a field that its
# own condition asks about: sft.steps decides about the section sft, and about itself it does not.
# "command" is the command of launch/ that reads the config.
READ_WHERE: dict[str, Sequence[Condition]] = {
    "task.own_style_prior": [_WORLD | each for each in _DEMONSTRATES],
    "task.arithmetic_share": [_WORLD | each for each in _DEMONSTRATES],
    "task.plain_share": [_WORLD | each for each in _DEMONSTRATES],
    "data": [_PROBLEMS],
    "model.embed_dim": _SCRATCH,
    "model.num_layers": _SCRATCH,
    "model.num_heads": _SCRATCH,
    "model.num_kv_heads": _SCRATCH,
    "model.head_dim": _SCRATCH,
    "model.mlp_dim": _SCRATCH,
    "model.thinking": _REAL,
    "model.ignore_fields": _REAL,
    "model.pad_token": _REAL,
    "model.param_dtype": [{"lora.rank": 0}, {"sft.steps": OtherThan(0)}],
    "lora": [{"lora.rank": OtherThan(0)}],
    "sft": [{"sft.steps": OtherThan(0)}],
    "train.log_completions_every": [_ROLLS_OUT],
    "rollout.micro_batches": [_ROLLS_OUT],
    "rollout.temperature": [_ROLLS_OUT, {"eval.kl_responses": OtherThan(0)}],
    "rewards.correctness": [_GRPO],
    "rewards.format": [_GRPO],
    "rewards.overlong": [_GRPO],
    "rewards.overlong_tokens": [_GRPO | {"rewards.overlong": OtherThan(0)}],
    "rewards.last_number": [_PROBLEMS],
    "rewards.workers": [_PROBLEMS],
    "rewards.item_seconds": [_PROBLEMS],
    "rewards.batch_seconds": [_PROBLEMS],
    "personas.file": [_PROBLEMS],
    "personas.placement": [_PROBLEMS],
    "personas.count": [_MIXES, {"rehearsal.weight": OtherThan(0)}],
    "personas.share": [_ROLLS_OUT],
    "personas.level": [_MIXES],
    "personas.paraphrase": [_MIXES | _PROBLEMS],
    "personas.weights": [_MIXES],
    "personas.category_weights": [_MIXES],
    "personas.harmful_share": [_MIXES],
    "personas.curriculum_steps": [_MIXES],
    "personas.adaptive_floor": [_MIXES | {"personas.weights": "adaptive"}],
    "personas.adaptive_decay": [_MIXES | {"personas.weights": "adaptive"}],
    "grpo": [_GRPO],
    "grpo.kl_estimator": [{"grpo.kl_weight": OtherThan(0)}],
    "distill": [{"train.method": "distill"}],
    "rehearsal": [_GRPO],
    "rehearsal.rows": [{"rehearsal.weight": OtherThan(0)}],
    "rehearsal.prompts": [{"rehearsal.weight": OtherThan(0)}],
    "eval.role_play_samples": [_WORLD],
    "eval.judge_free_questions": [{"eval.judge_free_candidates": OtherThan(0)}],
    "eval.judge_free_reference": [
        {"eval.judge_free_candidates": OtherThan(0)},
        {"command": "personagym", "personagym.candidates": OtherThan(0)},
    ],
    "personagym": [{"command": "personagym"}],
    "personagym.examples": [{"personagym.judges": OtherThan("")}],
    "reproduce.methods": [{"reproduce.ablation": "none"}],
}


def require_read(
    configs: Sequence[Mapping[str, Any]], changed: Sequence[str], command: str
) -> None:
    """Raises ValueError, in one line, for the first field that was set and that nothing reads.

    Args:
      configs: those that are made of the user's, resolved; one of them has to read a field.
      changed: the fields that the user gave another value than the preset has.
      command: of launch/, without ".py".
    """
    resolved = [flat_fields(config) | {"command": command} for config in configs]
    for field in changed:
        lacking = [what_reading_takes(field, fields) for fields in resolved]
        if lacking and all(lacking):
            raise ValueError(
                f"{field} is {resolved[0][field]!r}, which nothing reads here: that takes "
                f"{lacking[0]}; set that too, or leave {field} out"
            )


def what_reading_takes(field: str, fields: Mapping[str, Any]) -> str:
    """What would have to hold for a field to be read in a config, flat; "" where it is read."""
    lacking = []
    for name in (field.partition(".")[0], field):
        conditions = READ_WHERE.get(name, ())
        if not any(field in each for each in conditions):
            missing = [_missing(each, fields) for each in conditions]
            if missing and all(missing):
                lacking.append(", or ".join(missing))
    return " and ".join(lacking)


def _missing(condition: Condition, fields: Mapping[str, Any]) -> str:
    """The parts of a condition that do not hold, in words."""
    wrong = [name for name, wanted in condition.items() if not _is(fields.get(name), wanted)]
    return " and ".join(_in_words(name, condition[name], fields.get(name)) for name in wrong)


def _is(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, OtherThan):
        return value != wanted.value
    return value in wanted if isinstance(wanted, tuple) else value == wanted


def _in_words(name: str, wanted: Any, value: Any) -> str:
    if name == "command":
        return f"launch/{wanted}.py"
    if isinstance(wanted, OtherThan):
        return f"a {name} other than {wanted.value!r}"
    choices = wanted if isinstance(wanted, tuple) else (wanted,)
    return f"{name} = {' or '.join(map(repr, choices))} instead of {value!r}"
