"""Which fields of a Hugging Face config.json are understood, and with which values.

A field that may change what the model computes and is not known here is refused, never ignored.
"""

import copy
import json
from collections.abc import Collection, Mapping
from functools import cache
from numbers import Real
from typing import Any, NamedTuple

from huggingface_hub.errors import StrictDataclassError

LLAMA, QWEN2, QWEN3 = "LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"
GEMMA = "Gemma3ForCausalLM"
LAYER_TYPES = ("full_attention", "sliding_attention")

_MULTIMODAL = "Gemma3ForConditionalGeneration"  # its text part is a GEMMA, the rest is not read
_ORIGINAL = "take the file from the original checkpoint"


class _Family(NamedTuple):
    """The fields of one architecture."""

    model_type: str  # names transformers' config class. Absent fields have its defaults.
    needed: tuple[str, ...]  # fields that must be there, because no default would be right
    read: frozenset[str]  # fields that are translated
    required: dict[str, tuple]  # with the values that the Decoder computes; the last is recommended


_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers")
_SIZES_AND_HEADS = (*_SIZES, "vocab_size", "num_attention_heads")
_COUNTS = frozenset(
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads "
    "num_key_value_heads head_dim max_position_embeddings".split()
)
_ROPES = {"rope_theta", "rope_scaling", "rope_parameters"}
_READ = _COUNTS | _ROPES | {"rms_norm_eps", "tie_word_embeddings"}
_WINDOWS = {"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"}
_PLAIN_WEIGHTS = {"quantization_config": (None,), "transformers_weights": (None,)}
_REQUIRED = {
    "attention_bias": (None, False),
    "partial_rotary_factor": (None, 1.0),
    **_PLAIN_WEIGHTS,
}
FAMILIES = {
    LLAMA: _Family(
        "llama",
        _SIZES_AND_HEADS,
        _READ,
        {
            **_REQUIRED,
            "hidden_act": (None, "silu"),
            "mlp_bias": (None, False),
            "pretraining_tp": (None, 1),
            "rope_interleaved": (None, False),
            "sliding_window": (None,),
        },
    ),
    QWEN2: _Family(  # has biases, also where attention_bias says that it has none
        "qwen2",
        (*_SIZES_AND_HEADS, "num_key_value_heads"),
        _READ | _WINDOWS,
        {**_REQUIRED, "attention_bias": (None, False, True), "hidden_act": (None, "silu")},
    ),
    QWEN3: _Family(
        "qwen3",
        (*_SIZES_AND_HEADS, "num_key_value_heads"),
        _READ | _WINDOWS,
        {**_REQUIRED, "hidden_act": (None, "silu")},
    ),
    GEMMA: _Family(
        "gemma3_text",
        _SIZES,
        _READ
        | {"query_pre_attn_scalar", "rope_local_base_freq", "layer_types", "sliding_window"}
        | {"sliding_window_pattern", "_sliding_window_pattern"},
        {
            **_REQUIRED,
            "hidden_activation": (None, "gelu_pytorch_tanh"),
            "attn_logit_softcapping": (None,),
            "final_logit_softcapping": (None,),
            "use_bidirectional_attention": (None, False),
        },
    ),
    _MULTIMODAL: _Family(
        "gemma3",
        ("text_config",),
        frozenset(
            "text_config vision_config tie_word_embeddings mm_tokens_per_image boi_token_index "
            "eoi_token_index image_token_index boi_token_id eoi_token_id image_token_id".split()
        ),
        _PLAIN_WEIGHTS,
    ),
}
# Relatives that are not computed: how each differs, and what to take in its place.
_EXPERTS = "a mixture of experts; use a dense Qwen, such as {}, or DeepSeek's distillation of R1"
_NOT_COMPUTED = {
    "Qwen3MoeForCausalLM": _EXPERTS.format("Qwen/Qwen3-8B"),
    "Qwen2MoeForCausalLM": _EXPERTS.format("Qwen/Qwen2.5-7B-Instruct"),
    **dict.fromkeys(
        ("Gemma3nForConditionalGeneration", "Gemma3nForCausalLM"),
        "a Gemma 3n, whose layers are not Gemma 3's; use google/gemma-3-1b-it or gemma-3-4b-it",
    ),
}
# Fields that do not change what any of them computes.
_NEUTRAL = frozenset(
    # what the model is called, what wrote or trained it, how transformers computes the same, what
    # it returns, tokenizers and prompts
    "architectures model_type name_or_path _name_or_path _model_name_or_path model_name "
    "_commit_hash finetuning_task torch_dtype dtype use_bfloat16 xla_device torchscript "
    "transformers_version transformers.js_config is_llama_config is_decoder tf_legacy_loss "
    "unsloth_fixed unsloth_version initializer_range attention_dropout gradient_checkpointing "
    "neftune_noise_alpha attn_implementation _attn_implementation _attn_implementation_internal "
    "_attn_implementation_autoset _experts_implementation _flash_attn_2_enabled return_dict "
    "output_hidden_states output_attentions chunk_size_feed_forward id2label label2id num_labels "
    "problem_type tokenizer_class prefix task_specific_params unk_token_id sep_token_id "
    "cls_token_id mask_token_id".split()
)
# The types of RoPE, each with what its parameters hold beside the type and theta.
_LLAMA3 = "factor low_freq_factor high_freq_factor original_max_position_embeddings".split()
_ROPE_TYPES = {"default": set(), "linear": {"factor"}, "llama3": set(_LLAMA3)}


def read_fields(hf: Mapping[str, Any], ignore: Collection[str] = ()) -> tuple[str, Any]:
    """The architecture of a config.json's text model, and its fields as transformers 5 names them
    (a PreTrainedConfig).

    `ignore` names unknown fields that change nothing; they are passed over. Raises ValueError with
    one line that names a field that is missing, not known, or not supported; or one of `ignore`
    that decides what is computed.
    """
    from transformers import CONFIG_MAPPING  # imports PyTorch, where it is installed

    architecture, fields = _text_model(hf, frozenset(ignore))
    family = FAMILIES[architecture]
    given = copy.deepcopy({name: fields[name] for name in family.read if name in fields})
    if (pattern := given.pop("_sliding_window_pattern", None)) is not None:
        given.setdefault("sliding_window_pattern", pattern)
    for name in _COUNTS | {"rope_theta", "rope_local_base_freq", "query_pre_attn_scalar"}:
        if given.get(name) is not None:
            _check_over(0, name, given[name])
    _check_ropes(given, by_layer_type=architecture == GEMMA)
    try:
        config = CONFIG_MAPPING[family.model_type](**given)
    except (StrictDataclassError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"config.json: {reason}; {_ORIGINAL}") from None
    _check_over(0, "rms_norm_eps", config.rms_norm_eps)
    _check_over(0, "rope_theta", given.get("rope_theta", 1))  # null is refused, too
    layer_types = set(getattr(config, "layer_types", ()))
    if odd := layer_types - set(LAYER_TYPES):
        refuse("layer_types", min(odd), f"where they are {' and '.join(LAYER_TYPES)}")
    if "sliding_attention" in layer_types:
        _check_over(0, "sliding_window", config.sliding_window)
    return architecture, config


@cache
def _of_generation() -> frozenset[str]:
    """Fields that transformers does not read from config.json."""
    from transformers import GenerationConfig  # imports PyTorch, where it is installed

    return frozenset(vars(GenerationConfig()))


def refuse(field: str, value: Any, kind: str):
    """Raises ValueError for a field; `kind` says which checkpoint to use: "where it is 1"."""
    raise ValueError(
        f"config.json: {field} = {json.dumps(value)} is not supported; use a checkpoint {kind}"
    )


def _text_model(hf: Mapping[str, Any], ignore: frozenset[str]) -> tuple[str, Mapping[str, Any]]:
    architectures = hf.get("architectures")
    for name in architectures if isinstance(architectures, list) else ():
        if isinstance(name, str) and name in _NOT_COMPUTED:
            raise ValueError(
                f"config.json: architectures = {json.dumps(architectures)} is not supported: it is "
                f"{_NOT_COMPUTED[name]}"
            )
    if architectures not in ([name] for name in FAMILIES):
        refuse("architectures", architectures, f"of {', '.join(FAMILIES)}")
    (architecture,) = architectures
    _check_fields(architecture, hf, ignore)
    if architecture != _MULTIMODAL:
        return architecture, hf
    if not isinstance(hf["text_config"], Mapping):
        refuse("text_config", hf["text_config"], "where it holds fields")
    # The head belongs to the whole model, so the whole model's config says whether it is tied.
    tied = {name: hf[name] for name in ("tie_word_embeddings",) if hf.get(name) is not None}
    fields = {**hf["text_config"], **tied}
    _check_fields(GEMMA, fields, ignore)
    return GEMMA, fields


def _check_fields(architecture: str, fields: Mapping[str, Any], ignore: frozenset[str]):
    family = FAMILIES[architecture]
    for field in family.needed:
        if fields.get(field) is None:
            raise ValueError(f"config.json: {field} is missing; {_ORIGINAL}")
    required = {"model_type": (None, family.model_type), **family.required}
    if deciding := ignore & (family.read | required.keys()):
        raise ValueError(
            f"model.ignore_fields names {min(deciding)}, which decides what the model computes; "
            "name fields that change nothing"
        )
    for field, supported in required.items():
        if fields.get(field) not in supported:
            refuse(field, fields[field], f"where it is {json.dumps(supported[-1])}")
    remedy = "without it, or if it changes nothing that is computed, name it in model.ignore_fields"
    known = family.read | required.keys() | _NEUTRAL | _of_generation() | ignore
    for field, value in fields.items():
        # An unknown field that is off changes nothing.
        if field not in known and value is not None and value is not False:
            refuse(field, value, remedy)


def _check_ropes(fields: dict[str, Any], by_layer_type: bool):
    """Checks rope_scaling and rope_parameters; the latter may hold parameters by layer type."""
    ropes = {name: fields.get(name) for name in ("rope_scaling", "rope_parameters")}
    if by_layer_type:
        for name, rope in (ropes.pop("rope_parameters") or {}).items():
            if name not in LAYER_TYPES:
                refuse(f"rope_parameters.{name}", rope, "without it")
            ropes[f"rope_parameters.{name}"] = rope
    for field, rope in ropes.items():
        if not rope:
            continue
        if not isinstance(rope, Mapping):
            refuse(field, rope, "where it holds fields")
        # Older files call it "type", which transformers does not read everywhere.
        kind = rope.setdefault("rope_type", rope.pop("type", "default"))
        if kind not in _ROPE_TYPES:
            refuse(field, rope, f"where rope_type is one of {', '.join(_ROPE_TYPES)}")
        given = rope.keys() - {"rope_type", "type"}
        if odd := given - _ROPE_TYPES[kind] - {"rope_theta"}:
            refuse(f"{field}.{min(odd)}", rope[min(odd)], "without it")
        if odd := _ROPE_TYPES[kind] - given:
            raise ValueError(f"config.json: {field}.{min(odd)} is missing; {_ORIGINAL}")
        for name in given:
            _check_over(0, f"{field}.{name}", rope[name])
        if kind == "llama3":
            low, high = rope["low_freq_factor"], rope["high_freq_factor"]
            _check_over(low, f"{field}.high_freq_factor", high)


def _check_over(bound: float, field: str, value: Any):
    if not isinstance(value, Real) or not value > bound:
        refuse(field, value, f"where it is over {bound}")
