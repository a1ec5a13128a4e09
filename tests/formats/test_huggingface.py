"""config.json in and out, the table of weights, and what is refused; nothing here needs torch."""

import json
import math
import re
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from hypothesis import given
from hypothesis import strategies as st

from permix_jax.formats.huggingface import (
    config_from_hf,
    config_to_hf,
    params_to_hf,
    text_name,
    weights,
)
from permix_jax.models.config import Lora, ModelConfig, Rope
from permix_jax.models.params import init_params
from permix_jax.models.transformer import Decoder

HF = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
QWEN2 = {**HF, "architectures": ["Qwen2ForCausalLM"]}
QWEN = {**HF, "architectures": ["Qwen3ForCausalLM"], "head_dim": 4}
GEMMA = {
    **QWEN,
    "architectures": ["Gemma3ForCausalLM"],
    "num_hidden_layers": 7,
    "sliding_window": 5,
    "query_pre_attn_scalar": 16,
}
IMAGES = {"architectures": ["Gemma3ForConditionalGeneration"]}
LINEAR = {"type": "linear", "factor": 2}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 32.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SIZES = dict(
    vocab_size=11, embed_dim=8, num_layers=2, num_heads=4, num_kv_heads=2, head_dim=4, mlp_dim=12
)


def test_config_defaults_are_those_of_llama():
    config = config_from_hf({k: v for k, v in HF.items() if k != "num_key_value_heads"})
    sizes = {**SIZES, "num_kv_heads": 4, "head_dim": 2}
    assert config == ModelConfig(
        **sizes, rope=Rope(10_000.0), max_context=2048, norm_eps=1e-6, tie_embeddings=False
    )


def test_gemma_has_its_own_function():
    config = config_from_hf(GEMMA)
    assert config.qk_norm and config.post_norms and config.tie_embeddings
    assert (config.norm_offset, config.activation) == (1.0, "gelu")
    assert (config.embed_scale, config.query_scale) == (8**0.5, 0.25)
    assert (config.local_layers, config.window) == ((0, 1, 2, 3, 4, 6), 5)
    assert (config.rope, config.local_rope) == (Rope(1e6), Rope(1e4))


@pytest.mark.parametrize(
    "fields, rope",
    [
        ({"rope_theta": 7}, Rope(7.0)),
        ({"rope_theta": 7, "rope_scaling": None}, Rope(7.0)),
        ({"rope_parameters": {"rope_theta": 7, "rope_type": "default"}}, Rope(7.0)),
        ({"rope_theta": 7, "rope_scaling": LINEAR}, Rope(7.0, 2)),
        ({"rope_theta": 7, "rope_scaling": LLAMA3_ROPE}, Rope(7.0, 32, 1, 4, 64)),
        ({"rope_parameters": {**LLAMA3_ROPE, "rope_theta": 7}}, Rope(7.0, 32, 1, 4, 64)),
    ],
)
def test_rope_is_read_where_either_version_of_transformers_writes_it(fields, rope):
    assert config_from_hf({**HF, **fields}).rope == rope


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_theta": 7, "rope_local_base_freq": 3, "rope_scaling": LINEAR},
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 7.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 3.0},
            }
        },
    ],
)
def test_local_layers_have_their_own_rope(fields):
    config = config_from_hf({**GEMMA, **fields})
    assert (config.rope, config.local_rope) == (Rope(7.0, 2), Rope(3.0))


@pytest.mark.parametrize(
    "fields",
    [
        {"sliding_window_pattern": 2},
        {"_sliding_window_pattern": 2},
        {"layer_types": ["sliding_attention", "full_attention"] * 3 + ["sliding_attention"]},
    ],
)
def test_local_layers_are_read_where_any_version_of_transformers_writes_them(fields):
    assert config_from_hf({**GEMMA, **fields}).local_layers == (0, 2, 4, 6)


@pytest.mark.parametrize("qwen", [QWEN2, QWEN])
def test_the_window_of_qwen_counts_only_where_it_is_used(qwen):
    fields = {"sliding_window": 3, "max_window_layers": 1}
    off = config_from_hf({**qwen, **fields, "use_sliding_window": False})
    on = config_from_hf({**qwen, **fields, "use_sliding_window": True, "rope_theta": 9})
    assert (off.local_layers, off.window) == ((), 0)
    assert (on.local_layers, on.window, on.local_rope) == ((1,), 3, Rope(9.0))
    types = ["sliding_attention", "full_attention"]
    said = config_from_hf({**qwen, **fields, "use_sliding_window": True, "layer_types": types})
    assert said.local_layers == (0,)


def test_qwen_2_has_biases_and_the_head_size_that_its_width_gives():
    config = config_from_hf(QWEN2)
    assert config.qkv_bias and not config.qk_norm
    assert config.head_dim == 8 // 4
    assert config_from_hf({**QWEN2, "head_dim": 6}).head_dim == 6
    for said in (True, False):  # transformers does not read it
        assert config_from_hf({**QWEN2, "attention_bias": said}) == config
    written = config_to_hf(config)
    assert "attention_bias" not in written and written["model_type"] == "qwen2"
    others = (config_from_hf(hf) for hf in (HF, QWEN, GEMMA))
    assert not any(other.qkv_bias for other in others)


# What DeepSeek-R1-Distill-Qwen-1.5B's config.json holds beside the sizes.
R1_DISTILL = {
    **QWEN2,
    "attention_dropout": 0.0,
    "bos_token_id": 151643,
    "eos_token_id": 151643,
    "initializer_range": 0.02,
    "max_position_embeddings": 131072,
    "max_window_layers": 21,
    "model_type": "qwen2",
    "rms_norm_eps": 1e-06,
    "rope_theta": 10000,
    "sliding_window": 4096,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "transformers_version": "4.44.0",
    "use_cache": True,
    "use_mrope": False,
    "use_sliding_window": False,
}


def test_the_config_of_a_distilled_qwen_is_read():
    config = config_from_hf(R1_DISTILL)
    assert (config.rope, config.max_context, config.norm_eps) == (Rope(1e4), 131072, 1e-6)
    assert (config.tie_embeddings, config.local_layers) == (False, ())


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("Qwen3MoeForCausalLM", "a mixture of experts; use a dense Qwen, such as Qwen/Qwen3-8B, "),
        ("Qwen2MoeForCausalLM", "a mixture of experts; use a dense Qwen, such as Qwen/Qwen2.5-7B-"),
        ("Gemma3nForConditionalGeneration", "a Gemma 3n, whose layers are not Gemma 3's; use goog"),
        ("Gemma3nForCausalLM", "a Gemma 3n, whose layers are not Gemma 3's; use google/gemma-3-1b"),
    ],
)
def test_a_relative_that_is_not_computed_is_named_with_what_to_take(architecture, message):
    message = f'config.json: architectures = ["{architecture}"] is not supported: it is {message}'
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*$"):
        config_from_hf({**QWEN, "architectures": [architecture]})


def test_the_text_part_of_a_model_with_images_is_read():
    text = {k: v for k, v in GEMMA.items() if k != "architectures"}
    whole = {**IMAGES, "vision_config": {"hidden_size": 3}, "mm_tokens_per_image": 256}
    whole |= {"model_type": "gemma3", "text_config": text}
    assert config_from_hf(whole) == config_from_hf(GEMMA)
    untied = config_from_hf({**whole, "tie_word_embeddings": False})
    assert not untied.tie_embeddings
    with pytest.raises(ValueError, match="^config.json: text_config is missing; .*$"):
        config_from_hf({k: v for k, v in whole.items() if k != "text_config"})
    with pytest.raises(ValueError, match=r"^config.json: quantization_config = \{.*$"):
        config_from_hf({**whole, "quantization_config": {"bits": 4}})


@pytest.mark.parametrize(
    "base, field, value",
    [
        (HF, "architectures", ["MistralForCausalLM"]),
        (HF, "architectures", []),
        (HF, "architectures", None),
        (HF, "model_type", "mistral"),
        (HF, "hidden_act", "gelu"),
        (HF, "attention_bias", True),
        (HF, "mlp_bias", True),
        (HF, "sliding_window", 4096),
        (HF, "pretraining_tp", 2),
        (HF, "quantization_config", {"bits": 4}),
        (HF, "rope_interleaved", True),
        (HF, "transformers_weights", "x.safetensors"),  # the file that transformers reads
        (HF, "partial_rotary_factor", 0.5),
        (HF, "rope_scaling", "linear"),
        (HF, "rope_scaling", {"rope_type": "yarn", "factor": 2.0}),
        (HF, "rope_parameters", {"rope_type": "dynamic", "rope_theta": 5e5}),
        (HF, "num_attention_heads", 0),
        (HF, "hidden_size", "8"),
        (HF, "rope_theta", -1.0),
        (HF, "rope_theta", None),
        (HF, "rms_norm_eps", math.nan),
        (HF, "attention_sinks", 4),
        (HF, "qk_layernorm", True),
        (QWEN, "num_experts", 8),
        (GEMMA, "hidden_activation", "gelu"),
        (GEMMA, "attn_logit_softcapping", 50.0),
        (GEMMA, "final_logit_softcapping", 30.0),
        (GEMMA, "use_bidirectional_attention", True),
        (GEMMA, "sliding_window", None),
        (GEMMA, "sliding_window", 0),
    ],
)
def test_an_unsupported_field_is_refused_by_name_and_value(base, field, value):
    message = re.escape(f"config.json: {field} = {json.dumps(value)} is not supported; use a ")
    with pytest.raises(ValueError, match=f"^{message}.*$"):
        config_from_hf({**base, field: value})


@pytest.mark.parametrize(
    "rope, message",
    [
        ({**LLAMA3_ROPE, "factor": 0}, "rope_scaling.factor = 0 is not supported; "),
        ({**LLAMA3_ROPE, "factor": "8"}, 'rope_scaling.factor = "8" is not supported; '),
        ({**LLAMA3_ROPE, "high_freq_factor": 1.0}, ".*high_freq_factor = 1.0 .*it is over 1.0"),
        ({"rope_type": "linear"}, "rope_scaling.factor is missing; "),
        ({"rope_type": "linear", "factor": 2.0, "mscale": 1.0}, "rope_scaling.mscale = 1.0 is not"),
    ],
)
def test_a_wrong_parameter_of_rope_is_named(rope, message):
    with pytest.raises(ValueError, match=f"^config.json: {message}.*$"):
        config_from_hf({**HF, "rope_scaling": rope})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": None}, "hidden_size is missing; "),
        ({"vocab_size": None}, "vocab_size is missing; "),
        ({"num_hidden_layers": None}, "num_hidden_layers is missing; "),
        ({"rms_norm_eps": "1"}, ".*'rms_norm_eps'.*'1'.*; take the file "),
    ],
)
def test_a_missing_field_or_one_of_the_wrong_type_is_named(change, message):
    hf = {name: value for name, value in {**HF, **change}.items() if value is not None}
    with pytest.raises(ValueError, match=f"^config.json: {message}.*$"):
        config_from_hf(hf)


def test_fields_that_change_nothing_are_passed_over():
    metadata = {
        "_name_or_path": "x",
        "torch_dtype": "bfloat16",
        "transformers_version": "4.40.0",
        "transformers.js_config": {"dtype": "q4"},
        "is_llama_config": True,
        "rope_interleaved": False,
        "eos_token_id": [1, 2],
        "attention_dropout": 0.1,
        "a_switch_of_next_year": False,
        "a_number_of_next_year": None,
    }
    assert config_from_hf({**HF, **metadata}) == config_from_hf(HF)


BOOKKEEPING = (
    "unk_token_id _model_name_or_path name_or_path num_beams tokenizer_class task_specific_params "
    "repetition_penalty max_new_tokens suppress_tokens _commit_hash attn_implementation "
    "gradient_checkpointing neftune_noise_alpha sep_token_id torchscript"
)


def test_bookkeeping_and_defaults_of_generation_are_passed_over():
    fields = dict.fromkeys(BOOKKEEPING.split(), 7)
    assert config_from_hf({**HF, **fields}) == config_from_hf(HF)
    assert config_from_hf({**GEMMA, **dict.fromkeys(fields, "x")}) == config_from_hf(GEMMA)


def test_a_field_that_is_not_known_can_be_ignored_by_name():
    odd = {**HF, "mark": 1, "mode": "x"}
    remedy = "without it, or if it changes nothing that is computed, name it in model.ignore_fields"
    message = f'mode = "x" is not supported; use a checkpoint {remedy}$'
    with pytest.raises(ValueError, match=message):
        config_from_hf(odd, ignore=["mark", "another"])
    assert config_from_hf(odd, ignore=["mark", "mode"]) == config_from_hf(HF)
    text = {**GEMMA, "model_type": "gemma3_text", "mark": 2}
    whole = {**IMAGES, "mark": 1, "text_config": text}
    assert config_from_hf(whole, ignore=["mark"]) == config_from_hf(GEMMA)


@pytest.mark.parametrize(
    "field", ["rope_scaling", "hidden_size", "mlp_bias", "transformers_weights"]
)
def test_a_field_that_decides_what_is_computed_cannot_be_ignored(field):
    message = f"^model.ignore_fields names {field}, which decides what the model computes; name "
    with pytest.raises(ValueError, match=message):
        config_from_hf({**HF, field: 3}, ignore=[field])


THETAS, FACTORS = st.floats(1.0, 1e7), st.floats(1.0, 64.0)
LOW, HIGH, CONTEXTS = st.floats(0.5, 1.0), st.floats(2.0, 8.0), st.integers(1, 8192)
LOCAL = st.sets(st.integers(0, 1), min_size=1).map(lambda layers: tuple(sorted(layers)))
LLAMAS = st.builds(
    ModelConfig,
    **{k: st.just(v) for k, v in SIZES.items()},
    rope=st.builds(Rope, THETAS, FACTORS) | st.builds(Rope, THETAS, FACTORS, LOW, HIGH, CONTEXTS),
    max_context=st.integers(10_000, 200_000),
    norm_eps=st.floats(1e-7, 1e-4),
    tie_embeddings=st.booleans(),
)
QWENS_2 = LLAMAS.map(lambda c: replace(c, qkv_bias=True))
QWENS = LLAMAS.map(lambda c: replace(c, qk_norm=True))
LOCAL_QWENS = st.builds(
    lambda c, layers: replace(c, local_layers=layers, window=3, local_rope=c.rope),
    st.one_of(QWENS, QWENS_2),
    LOCAL,
)
GEMMAS = st.builds(
    partial(replace, post_norms=True, norm_offset=1.0, activation="gelu", embed_scale=8**0.5),
    QWENS,
    query_scale=st.integers(1, 512).map(lambda scalar: scalar**-0.5),
    local_layers=LOCAL,
    window=st.integers(1, 4096),
    local_rope=st.builds(Rope, THETAS),
)


@given(st.one_of(LLAMAS, QWENS_2, QWENS, LOCAL_QWENS, GEMMAS))
def test_a_config_survives_the_way_out_and_back(config):
    assert config_from_hf(json.loads(json.dumps(config_to_hf(config)))) == config


def test_biases_go_with_no_norms_of_queries_and_keys():
    for field, family in (("qk_norm", "Qwen3"), ("post_norms", "Gemma3")):
        config = ModelConfig(**SIZES, qkv_bias=True, **{field: True})
        message = f"^model: qkv_bias = True does not go into the config.json of {family}ForCausalLM"
        with pytest.raises(ValueError, match=message):
            config_to_hf(config)


def test_what_a_config_json_does_not_hold_is_no_obstacle():
    ours = {"lora": Lora(2, 4.0), "dtype": "bfloat16", "remat": "full", "attention": "blocks"}
    config = ModelConfig(**SIZES, **ours)
    assert config_from_hf(config_to_hf(config)) == ModelConfig(**SIZES, max_context=2048)


@pytest.mark.parametrize(
    "field, value",
    {
        "activation": "gelu",
        "embed_scale": 2.0,
        "query_scale": 1.0,
        "norm_offset": 1.0,
        "local_layers": (0,),
    }.items(),
)
def test_a_function_that_no_architecture_computes_is_refused(field, value):
    config = ModelConfig(**SIZES, window=3, **{field: value})
    message = re.escape(f"model: {field} = {value} does not go into the config.json of Llama")
    with pytest.raises(ValueError, match=f"^{message}.*$"):
        config_to_hf(config)


@pytest.mark.parametrize("base", [HF, QWEN2, QWEN, GEMMA], ids=lambda hf: hf["architectures"][0])
@pytest.mark.parametrize("tied", [True, False])
def test_the_table_of_weights_has_exactly_the_decoders_parameters(base, tied):
    config = config_from_hf({**base, "tie_word_embeddings": tied})
    params = jax.eval_shape(lambda: nn.unbox(init_params(Decoder(config), jax.random.key(0))))
    shapes = {path: leaf.shape for path, leaf in flatten_dict(params, sep="/").items()}
    table = list(weights(config))
    assert {weight.path: weight.shape for weight in table} == shapes
    assert len({weight.name for weight in table}) == len(table)


def test_tensors_come_out_one_by_one_in_their_own_dtype():
    config = config_from_hf(HF)
    rng = np.random.default_rng(0)
    flat = {w.path: rng.normal(size=w.shape).astype("bfloat16") for w in weights(config)}
    out = params_to_hf(config, unflatten_dict(flat, sep="/"))
    assert next(out)[0] == "model.embed_tokens.weight"
    tensors = dict(out)
    query = tensors["model.layers.1.self_attn.q_proj.weight"]
    assert query.dtype == "bfloat16" and query.flags.c_contiguous
    # Row 3 of the tensor is output 3: head 1, place 1.
    assert np.array_equal(query[3], flat["layers_1/attention/query"][:, 1, 1])
    out = tensors["model.layers.0.self_attn.o_proj.weight"]
    assert np.array_equal(out[:, 3], flat["layers_0/attention/out"][1, 1])


@pytest.mark.parametrize(
    ("stored", "text"),
    {
        "model.layers.0.mlp.up_proj.weight": "model.layers.0.mlp.up_proj.weight",
        "lm_head.weight": "lm_head.weight",
        "language_model.model.norm.weight": "model.norm.weight",
        "language_model.lm_head.weight": "lm_head.weight",
        "model.language_model.norm.weight": "model.norm.weight",
        "vision_tower.vision_model.embeddings.position_embedding.weight": None,
        "model.vision_tower.vision_model.head.probe": None,
        "multi_modal_projector.mm_soft_emb_norm.weight": None,
        "model.multi_modal_projector.mm_input_projection_weight": None,
    }.items(),
)
def test_tensors_of_the_text_part_are_told_from_others(stored, text):
    assert text_name(stored) == text
