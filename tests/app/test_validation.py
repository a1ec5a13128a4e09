import json
import runpy

import pytest
from runs import ROOT, load_config

from permix_jax.app.build import build_run
from permix_jax.app.validation import require_model_fits, require_valid, rounding_warning
from permix_jax.core.config_fields import FIELDS
from permix_jax.core.fields import differing_fields
from permix_jax.models.config import ModelConfig

PRESETS = sorted(runpy.run_path(str(ROOT / "configs/permix.py"))["PRESETS"])


def config_with(**fields):
    """The default config with dotted fields changed."""
    return load_config("permix.py", "", **fields)


@pytest.mark.parametrize(("names", "holds"), [("", True), ("a,_b.c", True), ("a, b", False)])
def test_ignored_fields_are_names_with_commas(names, holds):
    config = config_with(**{"model.ignore_fields": names})
    if holds:
        require_valid(config)
    else:
        with pytest.raises(ValueError, match="^model.ignore_fields is 'a, b'; use names of fields"):
            require_valid(config)


# ---- the config files -----------------------------------------------------------------------


def test_the_evaluation_config_is_valid_and_reads_math500():
    config = load_config("eval_math500.py", "")
    with pytest.raises(ValueError, match="model.source is ''; task.name = problems takes a model"):
        require_valid(config)
    config.model.source = "org/model"
    require_valid(config)
    assert config.is_locked and config.data.test == "math500"
    with pytest.raises(ValueError, match="this config has none"):
        load_config("eval_math500.py", "tiny")


@pytest.mark.parametrize("file", ["permix.py", "rlvr.py", "sft.py", "distill.py"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid(preset, file):
    config = load_config(file, preset)
    require_valid(config)
    assert config.is_locked
    assert json.loads(config.to_json())["seed"] == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_the_other_methods_are_permix_but_for_one_field(preset):
    permix = load_config("permix.py", preset).to_dict()
    share = permix["personas"]["share"]
    assert share > 0
    for name, changed in {
        "rlvr": f"personas.share: 0.0 instead of {share}",
        "sft": "train.method: 'sft' instead of 'grpo'",
        "distill": "train.method: 'distill' instead of 'grpo'",
    }.items():
        assert differing_fields(load_config(f"{name}.py", preset).to_dict(), permix) == [changed]


# ---- impossible values ----------------------------------------------------------------------

CHOICES = {
    "task.name": "latent_style, arithmetic, problems",
    "data.answer_format": "boxed, hashes",
    "data.overlap": "drop, keep",
    "model.dtype": "float32, bfloat16",
    "model.param_dtype": "float32, bfloat16",
    "model.remat": "none, dots, full",
    "model.attention": "auto, blocks, tpu",
    "lora.base_dtype": "float32, bfloat16",
    "sft.decay": "none, linear, cosine",
    "train.method": "grpo, sft, distill",
    "train.decay": "none, linear, cosine",
    "rollout.on_overflow": "error, drop",
    "personas.placement": "system, user",
    "personas.weights": "uniform, category, adaptive",
    "personas.level": "problem, rollout",
    "grpo.advantage_group": "problem, problem_persona",
    "grpo.advantage_scale": "group, batch, none",
    "grpo.aggregation": "grpo, dapo, bnpo, dr_grpo",
    "grpo.kl_estimator": "k2, k3, k3_ratio (k1 in a loss has no gradient but noise)",
    "eval.pss": "min_over_max, mean_over_plain, one_minus_range, worst_over_plain, one_minus_cv",
}
NAN = float("nan")
# Remedy, impossible value, and the fields that it is impossible for.
IMPOSSIBLE = [
    ("use 0 or more", -1, "seed data.max_steps rewards.correctness personas.curriculum_steps"),
    ("use 0 or more", -1, "lora.rank sft.steps rehearsal.weight personas.count eval.kl_responses"),
    (
        "use 0 or more",
        -1,
        "train.warmup_steps train.weight_decay grpo.kl_weight eval.every",
    ),
    ("use 0 or more", -1, "eval.temperature train.stop_after"),
    ("use 0 or more, below 2**31", 2**31, "seed"),
    ("use 1 or more", 0, "task.num_test rollout.micro_batches model.head_chunk"),
    ("use 1 or more", 0, "sft.batch_size sft.checkpoint_every train.steps rehearsal.rows"),
    ("use 1 or more", 0, "train.problems_per_step train.micro_batch_tokens train.checkpoint_every"),
    ("use 1 or more", 0, "train.keep_checkpoints train.log_completions_every grpo.epochs"),
    ("use 1 or more", 0, "rollout.max_prompt_tokens eval.samples eval.batch_size eval.resamples"),
    ("use 1 or more", 0, "mesh.data mesh.fsdp"),
    ("use 1 or more", -2, "mesh.tensor"),
    ("use 2 or more", 1, "sft.max_new_tokens rollout.max_new_tokens rollout.group_size"),
    ("use 2 or more", 1, "task.max_operand"),
    ("use 1 or 2", 3, "task.operations"),
    ("use 2 or more: a group of one has no baseline", 1, "rollout.group_size"),
    ("use 5 or more", 4, "distributed.silent_seconds distributed.wait_seconds"),
    ("use a number above 0", 0, "lora.alpha sft.learning_rate grpo.clip_high"),
    ("use a number above 0", 0, "sft.max_grad_norm rollout.temperature"),
    ("use a number above 0", -1e-4, "train.learning_rate"),
    ("use a number above 0", NAN, "train.learning_rate"),
    ("use a number between 0 and 1", 1, "grpo.clip_low"),
    ("use a share from 0 to 1", 1.2, "task.own_style_prior task.plain_share personas.share"),
    ("use a share from 0 to 1", -0.1, "task.arithmetic_share personas.harmful_share"),
    ("use a share from 0 to 1", NAN, "personas.harmful_share personas.share"),
    ("use a share above 0, up to 1", 0, "personas.adaptive_floor"),
    ("use a share above 0, up to 1", 1.5, "personas.adaptive_floor"),
    ("use a share from 0, below 1", -0.5, "personas.adaptive_decay"),
    ("use a share from 0, below 1", 1, "personas.adaptive_decay"),
    ("use 0: the update scores the whole distribution", 5, "rollout.top_k"),
    ("use 1: the update scores the whole distribution", 0.9, "rollout.top_p"),
    ("use 0 (off), or 1 or more", 0.5, "grpo.importance_cap"),
    ("use 0 (off), or 2 or more", 1, "eval.judge_free_candidates"),
    ("use 0 (all), or 2 or more", 1, "eval.judge_free_questions"),
    ("use 0 (rollout.max_new_tokens), or 2 or more", 1, "eval.max_new_tokens"),
    ("use some of q_proj,k_proj,v_proj,o_proj,gate_proj", "q_proj,lm_head", "lora.targets"),
    ("use some of q_proj", "", "lora.targets"),
    ("use one or more of heldout,harmful,neutral,train, each", "heldout,pirates", "eval.sets"),
    ("use one or more of heldout,harmful,neutral,train, each", "", "eval.sets"),
    ("use one or more of heldout,harmful,neutral,train, each once", "train,train", "eval.sets"),
    ("use steps such as 50,100", "5,x", "train.keep_steps"),
    ("use steps such as 50,100", "0", "train.keep_steps"),
    ("use two steps such as 10:12", "12", "train.profile"),
    ("use two steps such as 10:12", "12:10", "train.profile"),
    ("use two steps such as 10:12", "0:3", "train.profile"),
    ("use one of pss, accuracy_worst,", "accuracy", "train.keep_best"),
    *((f"use one of {choices}", "x", field) for field, choices in CHOICES.items()),
]


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [(field, value, remedy) for remedy, value, fields in IMPOSSIBLE for field in fields.split()],
)
def test_an_impossible_value_is_one_line_with_field_value_and_remedy(field, value, remedy):
    value = type(FIELDS[field].default)(value)
    assert refusal(**{field: value}).startswith(f"{field} is {value!r}; {remedy}")


def refusal(**fields):
    with pytest.raises(ValueError) as error:
        require_valid(config_with(**fields))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "meant"),
    [
        # k1 is what the remedy warns of, and too short for a guess.
        ("grpo.kl_estimator", "k1", ""),
        ("grpo.kl_estimator", "use", ""),
        ("grpo.aggregation", "drgrpo", "; did you mean dr_grpo?"),
        ("eval.sets", "heldout,harmfull", "; did you mean harmful?"),
        ("lora.targets", "q_proj,gateproj", "; did you mean gate_proj?"),
        ("rollout.on_overflow", "one", ""),
    ],
)
def test_what_was_meant_is_one_of_the_choices(field, value, meant):
    said = refusal(**{field: value})
    assert said.endswith(meant) and ("did you mean" in said) == bool(meant)


@pytest.mark.parametrize("field", ["grpo.epochs", "rollout.group_size", "mesh.fsdp"])
def test_a_missing_field_is_named(field):
    config = config_with()
    section, name = field.split(".")
    with config.unlocked():
        del config[section][name]
    with pytest.raises(ValueError) as error:
        require_valid(config)
    assert str(error.value) == f"{field} is missing from the config; see configs/permix.py"


# ---- the mesh and the model -----------------------------------------------------------------

MODEL = ModelConfig(
    vocab_size=96, embed_dim=20, num_layers=1, num_heads=12, num_kv_heads=4, head_dim=4,
    mlp_dim=24, max_context=256,
)  # fmt: skip


def test_more_devices_than_key_value_heads_may_share_them():
    require_model_fits(MODEL, config_with(**{"mesh.tensor": 12}))


KV_HEADS = "the model's num_kv_heads"
PROMPTS, OVER = "rollout.max_prompt_tokens", "over the model's context of 256; lower one of them"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "mesh.tensor",
            6,
            f"mesh.tensor is 6; it must divide {KV_HEADS} of 4, or be a multiple of it",
        ),
        ("mesh.tensor", 8, "mesh.tensor is 8; it must divide the model's num_heads of 12"),
        ("mesh.tensor", 5, "mesh.tensor is 5; it must divide the model's vocab_size of 96"),
        ("mesh.fsdp", 8, "mesh.fsdp is 8; it must divide the model's embed_dim of 20"),
        ("rollout.max_new_tokens", 241, f"{PROMPTS} + rollout.max_new_tokens is 257, {OVER}"),
        ("sft.max_new_tokens", 250, f"{PROMPTS} + sft.max_new_tokens is 266, {OVER}"),
        ("eval.max_new_tokens", 241, f"{PROMPTS} + eval.max_new_tokens is 257, {OVER}"),
    ],
)
def test_a_model_that_the_mesh_does_not_divide_or_texts_outgrow(field, value, message):
    with pytest.raises(ValueError) as error:
        require_model_fits(MODEL, config_with(**{field: value}))
    assert str(error.value) == message


def test_kernels_for_another_platform_are_refused_before_anything_begins(tmp_path, mesh):
    message = "^model.attention is 'tpu', but the program is for a cpu; use auto or blocks$"
    with pytest.raises(ValueError, match=message):
        build_run(load_config("permix.py", "tiny", model__attention="tpu"), tmp_path, mesh)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "fields",
    [
        {"mesh.data": 8, "mesh.fsdp": 4, "mesh.tensor": 2},
        {"rollout.max_new_tokens": 240},
        {"eval.max_new_tokens": 240},
        {"sft.max_new_tokens": 500, "sft.steps": 0},
    ],
)
def test_a_model_that_fits(fields):
    require_model_fits(MODEL, config_with(**fields))


def test_trained_weights_that_are_kept_in_bf16_are_warned_of():
    """With adapters the base is still trained by SFT, where there are steps of it."""
    bf16 = {"model.param_dtype": "bfloat16", "sft.steps": 5}
    for trained in (bf16, bf16 | {"lora.rank": 4}):
        warning = rounding_warning(config_with(**trained))
        assert "model.param_dtype is 'bfloat16': most updates" in warning
    f32 = {"lora.rank": 4, "lora.base_dtype": "bfloat16"}
    for fine in (f32, bf16 | {"lora.rank": 4, "sft.steps": 0}):
        assert rounding_warning(config_with(**fine)) == ""


# ---- differing fields -----------------------------------------------------------------------


def test_differing_fields():
    mine = {"seed": 0, "train": {"steps": 3, "decay": "none"}, "new": 1}
    theirs = {"seed": 0, "train": {"steps": 4, "decay": "none"}, "old": {"x": 2}}
    assert differing_fields(mine, theirs) == [
        "new: 1 instead of '(absent)'",
        "old: '(absent)' instead of {'x': 2}",
        "train.steps: 3 instead of 4",
    ]
    assert differing_fields(mine, mine) == []
