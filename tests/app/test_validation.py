import json
import runpy
from pathlib import Path

import pytest

from permix_jax.app.validation import require_model_fits, require_valid, rounding_warning
from permix_jax.core.fields import differing_fields
from permix_jax.models.config import ModelConfig

CONFIGS = Path(__file__).parents[2] / "configs"
PERMIX = runpy.run_path(str(CONFIGS / "permix.py"))
PRESETS = sorted(PERMIX["PRESETS"])


def get_config(preset="", file="permix.py"):
    return runpy.run_path(str(CONFIGS / file))["get_config"](preset)


def config_with(**fields):
    """The default config with dotted fields changed."""
    config = get_config()
    for field, value in fields.items():
        *path, name = field.split(".")
        part = config
        for section in path:
            part = part[section]
        part[name] = value
    return config


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
    config = get_config(file="eval_math500.py")
    with pytest.raises(ValueError, match="model.source is ''; task.name = problems takes a model"):
        require_valid(config)
    config.model.source = "org/model"
    require_valid(config)
    assert config.is_locked and config.data.test == "math500"
    with pytest.raises(ValueError, match="this config has none"):
        get_config("tiny", "eval_math500.py")


@pytest.mark.parametrize("file", ["permix.py", "rlvr.py", "sft.py", "distill.py"])
@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_valid(preset, file):
    config = get_config(preset, file)
    require_valid(config)
    assert config.is_locked
    assert json.loads(config.to_json())["seed"] == 0


@pytest.mark.parametrize("preset", PRESETS)
def test_the_other_methods_are_permix_but_for_one_field(preset):
    permix = get_config(preset).to_dict()
    share = permix["personas"]["share"]
    assert share > 0
    for name, changed in {
        "rlvr": f"personas.share: 0.0 instead of {share}",
        "sft": "train.method: 'sft' instead of 'grpo'",
        "distill": "train.method: 'distill' instead of 'grpo'",
    }.items():
        assert differing_fields(get_config(preset, f"{name}.py").to_dict(), permix) == [changed]


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="no preset 'tinny'; use tiny, .*; did you mean tiny?"):
        get_config("tinny")


def test_an_unknown_field_is_refused_and_the_nearest_named():
    config = get_config()
    with pytest.raises(AttributeError, match='Did you mean "steps"'):
        config.train.stepss = 3
    with pytest.raises(AttributeError, match='Did you mean "rollout"'):
        config.rolout = 3


def test_a_value_of_another_type_is_refused():
    with pytest.raises(TypeError, match="group_size"):
        get_config().rollout.group_size = "many"


# ---- impossible values ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "remedy"),
    [
        ("seed", -1, "use 0 or more"),
        ("seed", 2**31, "below 2**31"),
        ("task.name", "chess", "use one of latent_style, problems"),
        ("task.num_test", 0, "use 1 or more"),
        ("task.own_style_prior", 1.2, "use a share from 0 to 1"),
        ("task.arithmetic_share", -0.1, "use a share from 0 to 1"),
        ("task.plain_share", 2.0, "use a share from 0 to 1"),
        ("data.max_steps", -1, "use 0 or more"),
        ("data.answer_format", "xml", "use one of boxed, hashes"),
        ("data.overlap", "warn", "use one of drop, keep"),
        ("rewards.correctness", -1.0, "use 0 or more"),
        ("rewards.workers", 0, "use 1 or more"),
        ("rewards.item_seconds", 0.0, "use a number above 0"),
        ("rollout.micro_batches", 0, "use 1 or more"),
        ("personas.placement", "assistant", "use one of system, user"),
        ("personas.weights", "random", "use one of uniform, category, adaptive"),
        ("personas.harmful_share", 1.5, "use a share from 0 to 1"),
        ("personas.harmful_share", float("nan"), "use a share from 0 to 1"),
        ("personas.curriculum_steps", -1, "use 0 or more"),
        ("personas.adaptive_floor", 0.0, "use a share above 0, up to 1"),
        ("personas.adaptive_floor", 1.5, "use a share above 0, up to 1"),
        ("personas.adaptive_decay", -0.5, "use a share from 0, below 1"),
        ("personas.adaptive_decay", 1.0, "use a share from 0, below 1"),
        ("eval.pss", "mean", "use one of min_over_max, mean_over_plain, one_minus_range"),
        ("model.dtype", "float16", "use one of float32, bfloat16"),
        ("model.param_dtype", "int8", "use one of float32, bfloat16"),
        ("model.head_chunk", 0, "use 1 or more"),
        ("model.remat", "some", "use one of none, dots, full"),
        ("lora.rank", -1, "use 0 or more"),
        ("lora.alpha", 0.0, "use a number above 0"),
        ("lora.targets", "q_proj,lm_head", "use some of q_proj,k_proj,v_proj,o_proj,gate_proj"),
        ("lora.targets", "", "use some of q_proj"),
        ("lora.base_dtype", "int4", "use one of float32, bfloat16"),
        ("sft.steps", -1, "use 0 or more"),
        ("sft.batch_size", 0, "use 1 or more"),
        ("sft.max_new_tokens", 1, "use 2 or more"),
        ("sft.learning_rate", 0.0, "use a number above 0"),
        ("sft.decay", "step", "use one of none, linear, cosine"),
        ("sft.max_grad_norm", 0.0, "use a number above 0"),
        ("sft.checkpoint_every", 0, "use 1 or more"),
        ("train.method", "ppo", "use one of grpo, sft, distill"),
        ("train.steps", 0, "use 1 or more"),
        ("rehearsal.weight", -0.5, "use 0 or more"),
        ("rehearsal.rows", 0, "use 1 or more"),
        ("personas.count", -1, "use 0 or more"),
        ("eval.kl_responses", -1, "use 0 or more"),
        ("train.problems_per_step", 0, "use 1 or more"),
        ("train.learning_rate", -1e-4, "use a number above 0"),
        ("train.learning_rate", float("nan"), "use a number above 0"),
        ("train.warmup_steps", -1, "use 0 or more"),
        ("train.decay", "wsd", "use one of none, linear, cosine"),
        ("train.weight_decay", -0.1, "use 0 or more"),
        ("train.micro_batch_tokens", 0, "use 1 or more"),
        ("train.checkpoint_every", 0, "use 1 or more"),
        ("train.keep_checkpoints", 0, "use 1 or more"),
        ("train.keep_steps", "5,x", "use steps such as 50,100"),
        ("train.keep_steps", "0", "use steps such as 50,100"),
        (
            "train.keep_best",
            "accuracy",
            "use one of pss, accuracy_worst,",
        ),
        ("train.stop_after", -1, "use 0 or more"),
        ("train.log_completions_every", 0, "use 1 or more"),
        ("rollout.group_size", 1, "a group of one has no baseline"),
        ("rollout.max_prompt_tokens", 0, "use 1 or more"),
        ("rollout.max_new_tokens", 1, "use 2 or more"),
        ("rollout.on_overflow", "cut", "use one of error, drop"),
        ("rollout.temperature", 0.0, "use a number above 0"),
        ("rollout.top_k", 5, "use 0: the update scores the whole distribution"),
        ("rollout.top_p", 0.9, "use 1: the update scores the whole distribution"),
        ("personas.share", 1.5, "use a share from 0 to 1"),
        ("personas.share", float("nan"), "use a share from 0 to 1"),
        ("personas.level", "token", "use one of problem, rollout"),
        ("grpo.advantage_group", "step", "use one of problem, problem_persona"),
        ("grpo.advantage_scale", "std", "use one of group, batch, none"),
        ("grpo.aggregation", "gspo", "use one of grpo, dapo, dr_grpo"),
        ("grpo.clip_low", 1.0, "use a number between 0 and 1"),
        ("grpo.clip_high", 0.0, "use a number above 0"),
        ("grpo.epochs", 0, "use 1 or more"),
        ("grpo.importance_cap", 0.5, "use 0 (off), or 1 or more"),
        ("grpo.kl_weight", -0.1, "use 0 or more"),
        ("grpo.kl_estimator", "k1", "use one of k2, k3 (k1 in a loss has no gradient but noise)"),
        ("eval.every", -1, "use 0 or more"),
        ("eval.samples", 0, "use 1 or more"),
        ("eval.temperature", -1.0, "use 0 or more"),
        ("eval.batch_size", 0, "use 1 or more"),
        ("eval.resamples", 0, "use 1 or more"),
        ("eval.sets", "heldout,pirates", "use one or more of heldout,harmful,neutral,train"),
        ("eval.sets", "", "use one or more of heldout,harmful,neutral,train"),
        ("eval.sets", "train,train", "each once"),
        ("eval.judge_free_candidates", 1, "use 0 (off), or 2 or more"),
        ("eval.judge_free_questions", 1, "use 0 (all), or 2 or more"),
        ("mesh.data", 0, "use 1 or more"),
        ("mesh.fsdp", 0, "use 1 or more"),
        ("mesh.tensor", -2, "use 1 or more"),
        ("distributed.silent_seconds", 4, "use 5 or more"),
        ("distributed.wait_seconds", 0, "use 5 or more"),
    ],
)
def test_an_impossible_value_is_one_line_with_field_value_and_remedy(field, value, remedy):
    message = refusal(**{field: value})
    assert message.startswith(f"{field} is {value!r}; ")
    assert remedy in message


def refusal(**fields):
    with pytest.raises(ValueError) as error:
        require_valid(config_with(**fields))
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"mesh.data": 2, "mesh.fsdp": 3},
            "train.problems_per_step is 32; use a multiple of mesh.data * mesh.fsdp = 6 times "
            "rollout.micro_batches = 1",
        ),
        # Each alone divides, together they do not.
        (
            {"rollout.micro_batches": 8, "mesh.data": 8},
            "train.problems_per_step is 32; use a multiple of mesh.data * mesh.fsdp = 8 times "
            "rollout.micro_batches = 8",
        ),
        (
            {"eval.temperature": 0.0},
            "eval.temperature is 0.0; greedy answers do not vary: use 1 sample, or more than 0",
        ),
        (
            {"eval.temperature": 0.0, "eval.role_play_samples": 0, "eval.samples": 2},
            "eval.temperature is 0.0; greedy answers do not vary: use 1 sample, or more than 0",
        ),
        (
            {"personas.level": "rollout", "grpo.advantage_group": "problem_persona"},
            "grpo.advantage_group is 'problem_persona'; with personas.level = rollout such groups "
            "mostly hold one rollout, which has no baseline: use problem, or at most half as many "
            "personas.count as rollout.group_size",
        ),
        (
            {"personas.placement": "user"},
            "personas.placement is 'user'; the embedded world's policy knows system messages alone",
        ),
        (
            {"personas.paraphrase": True},
            "personas.paraphrase is True; the embedded world lacks the words: set it to False",
        ),
        (
            {"rehearsal.weight": 0.5, "train.method": "sft"},
            "rehearsal.weight is 0.5; rehearsal stands beside GRPO: use 0, or train.method = grpo",
        ),
        (
            {"distill.teacher": "runs/rlvr"},
            "distill.teacher is 'runs/rlvr'; only train.method = distill has a teacher: leave it "
            "empty",
        ),
        (
            {"train.method": "distill", "personas.weights": "adaptive"},
            "personas.weights is 'adaptive'; they adapt under train.method = grpo alone: use "
            "uniform",
        ),
        (
            {"train.keep_best": "pss"},
            "train.keep_best is 'pss'; without evaluations on the way there is no best: set "
            "eval.every, or leave it empty",
        ),
        (
            {"train.stop_after": 2, "eval.every": 5},
            "train.stop_after is 2; name the figure that has to rise in train.keep_best, or use 0",
        ),
        (
            {"train.keep_steps": "150, 151"},
            "train.keep_steps is '150, 151'; use steps up to train.steps = 150",
        ),
        (
            {"rewards.correctness": 0.0},
            "rewards.correctness is 0.0; every term has weight 0: give one a weight",
        ),
        (
            {"rewards.overlong": 1.0},
            "rewards.overlong_tokens is 0; use 1 to rollout.max_new_tokens = 16",
        ),
        (
            {"rollout.micro_batches": 3},
            "train.problems_per_step is 32; use a multiple of mesh.data * mesh.fsdp = 1 times "
            "rollout.micro_batches = 3",
        ),
    ],
)
def test_values_that_are_impossible_together(fields, message):
    assert refusal(**fields) == message


@pytest.mark.parametrize(
    "fields",
    [
        {"personas.share": 0.0},
        {"personas.share": 1.0},
        {"rollout.group_size": 2},
        {"grpo.kl_weight": 0.0},
        {"mesh.data": 2, "mesh.fsdp": 2, "rollout.micro_batches": 4},
        {"eval.temperature": 0.0, "eval.role_play_samples": 1},
        {"personas.level": "rollout"},
        {"sft.steps": 0},
        {"train.keep_steps": "1,150", "train.keep_best": "pss", "eval.every": 150},
        {
            "personas.level": "rollout",
            "grpo.advantage_group": "problem_persona",
            "personas.count": 4,
        },
        # Batches that the mesh does not divide are filled up to it.
        {"mesh.data": 8, "rehearsal.weight": 0.5, "rehearsal.rows": 3, "eval.batch_size": 7}
        | {"sft.batch_size": 5, "personagym.batch_size": 3, "eval.role_play_samples": 3},
        {"mesh.data": 8, "train.method": "sft", "train.problems_per_step": 3},
        # Nothing is played where there is no rule of style.
        {"task.name": "problems", "model.source": "x", "eval.temperature": 0.0},
        {"train.method": "distill", "distill.teacher": "runs/rlvr"},
    ],
    ids=str,
)
def test_the_edges_of_what_is_possible(fields):
    require_valid(config_with(**fields))


@pytest.mark.parametrize(
    ("field", "value", "meant"),
    [
        # k1 is what the remedy warns of; and what is near all of the few choices says nothing.
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
    config = get_config()
    section, name = field.split(".")
    with config.unlocked():
        del config[section][name]
    with pytest.raises(ValueError) as error:
        require_valid(config)
    assert str(error.value) == f"{field} is missing from the config; see configs/permix.py"


# ---- the mesh and the model -----------------------------------------------------------------

MODEL = ModelConfig(
    vocab_size=96, embed_dim=20, num_layers=1, num_heads=8, num_kv_heads=2, head_dim=4, mlp_dim=24,
    max_context=256,
)  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mesh.tensor": 4}, "mesh.tensor is 4; it must divide the model's num_kv_heads of 2"),
        ({"mesh.tensor": 16}, "mesh.tensor is 16; it must divide the model's num_heads of 8"),
        ({"mesh.tensor": 5}, "mesh.tensor is 5; it must divide the model's vocab_size of 96"),
        ({"mesh.fsdp": 8}, "mesh.fsdp is 8; it must divide the model's embed_dim of 20"),
        (
            {"rollout.max_new_tokens": 241},
            "rollout.max_prompt_tokens + rollout.max_new_tokens is 257, over the model's context "
            "of 256; lower one of them",
        ),
        (
            {"sft.max_new_tokens": 250},
            "rollout.max_prompt_tokens + sft.max_new_tokens is 266, over the model's context "
            "of 256; lower one of them",
        ),
    ],
)
def test_a_model_that_the_mesh_does_not_divide_or_texts_outgrow(fields, message):
    with pytest.raises(ValueError) as error:
        require_model_fits(MODEL, config_with(**fields))
    assert str(error.value) == message


@pytest.mark.parametrize(
    "fields",
    [
        {"mesh.data": 8, "mesh.fsdp": 4, "mesh.tensor": 2},
        {"rollout.max_new_tokens": 240},
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
