"""Hugging Face checkpoints of Llama 3, Qwen 2 and 3, Gemma 3: config.json and tensors."""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, replace
from math import prod
from typing import Any, NamedTuple

import numpy as np
from flax.traverse_util import flatten_dict

from permix_jax.formats.hf_fields import (
    FAMILIES,
    GEMMA,
    LAYER_TYPES,
    LLAMA,
    QWEN2,
    QWEN3,
    read_fields,
)
from permix_jax.models.config import ModelConfig, Rope

# Fields that hold the same in config.json and in ModelConfig, under these names.
_SAME = {
    "vocab_size": "vocab_size",
    "hidden_size": "embed_dim",
    "intermediate_size": "mlp_dim",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "num_key_value_heads": "num_kv_heads",
    "head_dim": "head_dim",
    "rms_norm_eps": "norm_eps",
    "tie_word_embeddings": "tie_embeddings",
    "max_position_embeddings": "max_context",
}
# The parameters of RoPE's scaling, in config.json and in Rope.
_SCALING = {
    "factor": "factor",
    "low_freq_factor": "low_freq_factor",
    "high_freq_factor": "high_freq_factor",
    "original_max_position_embeddings": "original_context",
}


def config_from_hf(hf: Mapping[str, Any], ignore: Collection[str] = ()) -> ModelConfig:
    """The ModelConfig of a config.json. Of a model that reads images it is the text part's.

    Absent fields have the defaults of transformers' config classes. Fields of RoPE and of local
    layers are found where transformers 4 writes them, and where version 5 does. Dtypes and remat
    are the defaults of ModelConfig. `ignore` and what raises are as in `read_fields`.
    """
    architecture, c = read_fields(hf, ignore)
    layer_types = getattr(c, "layer_types", ())
    local = tuple(i for i, kind in enumerate(layer_types) if kind == "sliding_attention")
    ropes = c.rope_parameters
    if architecture != GEMMA:
        ropes = dict.fromkeys(LAYER_TYPES, ropes)
    same = {ours: getattr(c, theirs, None) for theirs, ours in _SAME.items()}
    if same["head_dim"] is None:  # of Qwen 2, whose config class has no such field
        same["head_dim"] = c.hidden_size // c.num_attention_heads
    config = ModelConfig(
        **same,
        rope=_rope(ropes["full_attention"]),
        qkv_bias=architecture == QWEN2,
        qk_norm=architecture in (QWEN3, GEMMA),
        local_layers=local,
        window=c.sliding_window if local else 0,
        local_rope=_rope(ropes["sliding_attention"]) if local else Rope(),
    )
    if architecture != GEMMA:
        return config
    return replace(
        config,
        post_norms=True,
        norm_offset=1.0,
        activation="gelu",
        embed_scale=math.sqrt(c.hidden_size),
        query_scale=c.query_pre_attn_scalar**-0.5,
    )


def _rope(parameters: Mapping[str, Any]) -> Rope:
    scaling = {ours: parameters[name] for name, ours in _SCALING.items() if name in parameters}
    return Rope(theta=float(parameters["rope_theta"]), **scaling)


def config_to_hf(config: ModelConfig) -> dict[str, Any]:
    """The config.json of the architecture that computes what `config` says.

    It does not hold dtypes, remat, adapters or an unknown longest context; all else
    `config_from_hf` reads back. RoPE is written as transformers 4 does, which version 5 reads, too.
    The caller adds the token ids.

    Raises:
      ValueError: no supported architecture computes it.
    """
    c = config
    layer_types = [LAYER_TYPES[i in c.local_layers] for i in range(c.num_layers)]
    if c.post_norms:
        architecture = GEMMA
        special = {
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": round(_query_scale(c) ** -2),
            "rope_local_base_freq": c.local_rope.theta,
            "sliding_window": c.window or None,
            "layer_types": layer_types,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
        }
    elif c.qk_norm or c.qkv_bias:
        architecture = QWEN3 if c.qk_norm else QWEN2
        special = {
            "hidden_act": "silu",
            "use_sliding_window": bool(c.local_layers),
            "sliding_window": c.window or None,
            "max_window_layers": min(c.local_layers, default=c.num_layers),
        }
        if c.local_layers:  # older readers know max_window_layers alone, layer_types can say more
            special["layer_types"] = layer_types
    else:
        architecture, special = LLAMA, {"hidden_act": "silu", "mlp_bias": False}
    scaling = None if c.rope.factor == 1 else {"rope_type": "linear", "factor": c.rope.factor}
    if c.rope.original_context:
        parameters = {name: getattr(c.rope, ours) for name, ours in _SCALING.items()}
        scaling = {"rope_type": "llama3", **parameters}
    hf = {
        "architectures": [architecture],
        "model_type": FAMILIES[architecture].model_type,
        **{theirs: getattr(c, ours) for theirs, ours in _SAME.items()},
        "attention_bias": False,
        "rope_theta": c.rope.theta,
        "rope_scaling": scaling,
        **special,
    }
    if c.max_context is None:
        del hf["max_position_embeddings"]
    if c.qkv_bias:  # of Qwen 2, whose config.json has no such field
        del hf["attention_bias"]
    wanted, computed = _function(c), _function(config_from_hf(hf))
    for field, value in wanted.items():
        if value != computed[field]:
            raise ValueError(
                f"model: {field} = {value} does not go into the config.json of {architecture}, "
                f"which computes {computed[field]}; set it to that before training"
            )
    return hf


def _query_scale(c: ModelConfig) -> float:
    return c.head_dim**-0.5 if c.query_scale is None else c.query_scale


def _function(c: ModelConfig) -> dict[str, Any]:
    """The fields that decide what is computed; configs that compute the same have the same ones."""
    fields = asdict(c) | {"query_scale": _query_scale(c)}
    for field in ("max_context", "lora", "dtype", "param_dtype", "remat", "attention"):
        del fields[field]
    if not c.local_layers:
        del fields["window"], fields["local_rope"]
    return fields


class Weight(NamedTuple):
    """A parameter of the Decoder, and the tensor of a checkpoint that holds it."""

    path: str  # of the parameter, its parts joined by "/"
    shape: tuple[int, ...]  # of the parameter
    name: str  # of the tensor
    inputs: int = 0  # leading axes that a linear layer sums over; 0 for all other weights

    @property
    def hf_shape(self) -> tuple[int, ...]:
        """The tensor's shape: [outputs, inputs] for a linear layer, else the parameter's."""
        cut = self.inputs
        return (prod(self.shape[cut:]), prod(self.shape[:cut])) if cut else self.shape


def weights(c: ModelConfig) -> Iterator[Weight]:
    """All weights of a model without adapters: embedding first, layer by layer, head last."""
    V, E, F, D = c.vocab_size, c.embed_dim, c.mlp_dim, c.head_dim
    H, K = c.num_heads, c.num_kv_heads
    norms = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
    if c.post_norms:
        norms = {
            "attention_norm": "input_layernorm",
            "attention_post_norm": "post_attention_layernorm",
            "mlp_norm": "pre_feedforward_layernorm",
            "mlp_post_norm": "post_feedforward_layernorm",
        }
    layer = [(f"{norm}/scale", (E,), f"{name}.weight") for norm, name in norms.items()]
    layer += [
        ("attention/query", (E, H, D), "self_attn.q_proj.weight", 1),
        ("attention/key", (E, K, D), "self_attn.k_proj.weight", 1),
        ("attention/value", (E, K, D), "self_attn.v_proj.weight", 1),
        ("attention/out", (H, D, E), "self_attn.o_proj.weight", 2),
    ]
    if c.qkv_bias:
        layer.append(("attention/query_bias", (H * D,), "self_attn.q_proj.bias"))
        layer.append(("attention/key_bias", (K * D,), "self_attn.k_proj.bias"))
        layer.append(("attention/value_bias", (K * D,), "self_attn.v_proj.bias"))
    if c.qk_norm:
        layer.append(("attention/query_norm/scale", (D,), "self_attn.q_norm.weight"))
        layer.append(("attention/key_norm/scale", (D,), "self_attn.k_norm.weight"))
    layer += [
        ("mlp/gate", (E, F), "mlp.gate_proj.weight", 1),
        ("mlp/up", (E, F), "mlp.up_proj.weight", 1),
        ("mlp/down", (F, E), "mlp.down_proj.weight", 1),
    ]
    yield Weight("embedding", (V, E), "model.embed_tokens.weight")
    for i in range(c.num_layers):
        for path, shape, name, *inputs in layer:
            yield Weight(f"layers_{i}/{path}", shape, f"model.layers.{i}.{name}", *inputs)
    yield Weight("final_norm/scale", (E,), "model.norm.weight")
    if not c.tie_embeddings:
        yield Weight("head", (V, E), "lm_head.weight")


def text_name(name: str) -> str | None:
    """A tensor's name in a text-only checkpoint; None if it belongs to the part for images.

    Models that read images name their text part language_model.* (Gemma 3 on the hub) or
    model.language_model.* (transformers' own layout).
    """
    if name.removeprefix("model.").startswith(("vision_tower.", "multi_modal_projector.")):
        return None
    if name.startswith("model.language_model."):
        return name.replace("language_model.", "", 1)
    return name.removeprefix("language_model.")


def params_to_hf(config: ModelConfig, params: Mapping) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (name, array) of a checkpoint's tensors, one at a time, in the parameters' dtypes."""
    flat = flatten_dict(params, sep="/")
    for weight in weights(config):
        array = np.asarray(flat[weight.path])
        if weight.inputs:
            array = array.reshape(weight.hf_shape[::-1]).T
        yield weight.name, np.ascontiguousarray(array)
