"""Hugging Face checkpoints of Llama models: config and weights, in and out.

One table (`_weights`) says which parameter is which tensor; both directions read it.
"""

import json
from collections.abc import Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  makes "bfloat16" a dtype name of numpy
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors import SafetensorError, safe_open

from permix_jax.models.config import ModelConfig

# Fields of config.json that change the function, each with the values the Decoder computes.
_SUPPORTED = {
    "architectures": (["LlamaForCausalLM"],),
    "hidden_act": (None, "silu"),
    "attention_bias": (None, False),
    "mlp_bias": (None, False),
    "sliding_window": (None,),
    "pretraining_tp": (None, 1),
    "quantization_config": (None,),
}


def config_from_hf(
    hf: Mapping[str, Any],
    param_dtype: str = "float32",
    dtype: str = "float32",
    remat: bool = False,
) -> ModelConfig:
    """The ModelConfig of a Llama config.json.

    Absent fields have the defaults of `transformers.LlamaConfig`; RoPE's are read where
    transformers 4 (`rope_theta`, `rope_scaling`) and 5 (`rope_parameters`) write them.

    Raises:
      ValueError: a field is missing, or asks for something that the Decoder does not compute.
    """
    rope = {**(hf.get("rope_scaling") or {}), **(hf.get("rope_parameters") or {})}
    for field, supported in _SUPPORTED.items():
        if hf.get(field) not in supported:
            _refuse(field, hf.get(field), supported[-1])
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        _refuse("rope_parameters" if hf.get("rope_parameters") else "rope_scaling", rope, None)
    try:
        return ModelConfig(
            vocab_size=hf["vocab_size"],
            embed_dim=hf["hidden_size"],
            num_layers=hf["num_hidden_layers"],
            num_heads=hf["num_attention_heads"],
            num_kv_heads=hf.get("num_key_value_heads") or hf["num_attention_heads"],
            head_dim=hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"],
            mlp_dim=hf["intermediate_size"],
            rope_theta=float(rope.get("rope_theta") or hf.get("rope_theta") or 10_000.0),
            norm_eps=hf.get("rms_norm_eps", 1e-6),
            tie_embeddings=hf.get("tie_word_embeddings", False),
            dtype=dtype,
            param_dtype=param_dtype,
            remat=remat,
        )
    except KeyError as error:
        raise ValueError(
            f"config.json: {error.args[0]} is missing; take the file from the original checkpoint"
        ) from None


def _refuse(field: str, value: Any, supported: Any):
    raise ValueError(
        f"config.json: {field} = {json.dumps(value)} is not supported; "
        f"use a checkpoint where it is {json.dumps(supported)}"
    )


class _Weight(NamedTuple):
    path: str  # in the Decoder's parameters, joined by "/"
    shape: tuple[int, ...]  # of the parameter
    name: str  # of the tensor
    inputs: int = 0  # how many leading axes of `shape` a linear layer sums over; 0: no linear layer

    @property
    def hf_shape(self) -> tuple[int, ...]:
        """A linear layer is [outputs, inputs] there, anything else as it is here."""
        cut = self.inputs
        return (prod(self.shape[cut:]), prod(self.shape[:cut])) if cut else self.shape


def _weights(c: ModelConfig) -> Iterator[_Weight]:
    V, E, F, H, K, D = (
        c.vocab_size, c.embed_dim, c.mlp_dim, c.num_heads, c.num_kv_heads, c.head_dim
    )  # fmt: skip
    yield _Weight("embedding", (V, E), "model.embed_tokens.weight")
    for i in range(c.num_layers):
        ours, theirs = f"layers_{i}", f"model.layers.{i}"
        yield _Weight(f"{ours}/attention_norm/scale", (E,), f"{theirs}.input_layernorm.weight")
        yield _Weight(f"{ours}/attention/query", (E, H, D), f"{theirs}.self_attn.q_proj.weight", 1)
        yield _Weight(f"{ours}/attention/key", (E, K, D), f"{theirs}.self_attn.k_proj.weight", 1)
        yield _Weight(f"{ours}/attention/value", (E, K, D), f"{theirs}.self_attn.v_proj.weight", 1)
        yield _Weight(f"{ours}/attention/out", (H, D, E), f"{theirs}.self_attn.o_proj.weight", 2)
        yield _Weight(f"{ours}/mlp_norm/scale", (E,), f"{theirs}.post_attention_layernorm.weight")
        yield _Weight(f"{ours}/mlp/gate", (E, F), f"{theirs}.mlp.gate_proj.weight", 1)
        yield _Weight(f"{ours}/mlp/up", (E, F), f"{theirs}.mlp.up_proj.weight", 1)
        yield _Weight(f"{ours}/mlp/down", (F, E), f"{theirs}.mlp.down_proj.weight", 1)
    yield _Weight("final_norm/scale", (E,), "model.norm.weight")
    if not c.tie_embeddings:
        yield _Weight("head", (V, E), "lm_head.weight")


def tensor_names(config: ModelConfig) -> list[str]:
    """The names of a checkpoint's tensors."""
    return [weight.name for weight in _weights(config)]


def params_from_hf(config: ModelConfig, tensors: Mapping[str, np.ndarray]) -> dict:
    """The Decoder's parameters, numpy arrays of `config.param_dtype`, from a checkpoint's tensors.

    Tensors are looked up one by one, so that a lazy mapping holds one of them at a time.

    Raises:
      ValueError: a tensor is missing, surplus or misshapen, or a tied head has weights of its own.
    """
    weights = list(_weights(config))
    names = {weight.name for weight in weights}
    # Old checkpoints carry a table of RoPE frequencies, which config.json determines.
    given = {name for name in tensors if not name.endswith(".rotary_emb.inv_freq")}
    if config.tie_embeddings and "lm_head.weight" in given:
        if not np.array_equal(tensors["lm_head.weight"], tensors["model.embed_tokens.weight"]):
            raise ValueError(
                "lm_head.weight differs from model.embed_tokens.weight: "
                "set tie_word_embeddings to false in config.json"
            )
        given.remove("lm_head.weight")
    for kind, odd in (("missing", names - given), ("surplus", given - names)):
        if odd:
            raise ValueError(
                f"{kind} tensor {min(odd)} ({len(odd)} in all): "
                "take the weights and config.json from the same checkpoint"
            )

    params = {}
    for weight in weights:
        tensor = tensors[weight.name]
        if tensor.shape != weight.hf_shape:
            raise ValueError(
                f"tensor {weight.name} has shape {tensor.shape}, expected {weight.hf_shape}: "
                "take the weights and config.json from the same checkpoint"
            )
        array = (tensor.T if weight.inputs else tensor).reshape(weight.shape)
        params[weight.path] = np.ascontiguousarray(array, config.param_dtype)
    return unflatten_dict(params, sep="/")


def params_to_hf(config: ModelConfig, params: Mapping) -> dict[str, np.ndarray]:
    """The inverse of `params_from_hf`; dtypes stay as they are."""
    flat = flatten_dict(params, sep="/")

    def tensor(weight: _Weight) -> np.ndarray:
        array = np.asarray(flat[weight.path])
        if weight.inputs:
            array = array.reshape(weight.hf_shape[::-1]).T
        return np.ascontiguousarray(array)

    return {weight.name: tensor(weight) for weight in _weights(config)}


class Checkpoint(Mapping):
    """The tensors of a folder's safetensors files, each read when it is looked up.

    Raises FileNotFoundError or ValueError for files that are missing or damaged.
    """

    def __init__(self, folder: Path):
        index = folder / "model.safetensors.index.json"
        if index.is_file():
            files = sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
        else:
            files = ["model.safetensors"]
        self._file_of = {
            name: f for f in (_open(folder / file) for file in files) for name in f.keys()
        }

    def __getitem__(self, name: str) -> np.ndarray:
        return self._file_of[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


def _open(path: Path):
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; copy the whole checkpoint folder")
    try:
        return safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise ValueError(f"{path}: damaged ({error}); fetch it again") from None
