"""LoRA adapters in PEFT's format, merged into their base as it is loaded.

What is in the files: https://huggingface.co/docs/peft/developer_guides/checkpoint
"""

import json
import math
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from permix_jax.core.files import read_object, require_file
from permix_jax.formats.folder import ADAPTER, ADAPTER_CONFIG, COPY_ALL
from permix_jax.formats.huggingface import text_name, weights
from permix_jax.formats.weights import DTYPES, open_safetensors
from permix_jax.models.config import ModelConfig
from permix_jax.models.params import add_low_rank

_PREFIX = "base_model.model."

# Fields that decide what an adapter computes, with the values that are read here.
_REQUIRED = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    # Other ways to initialise change the base's own weights before training.
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),
}
_READ = frozenset({"base_model_name_or_path", "r", "lora_alpha", "use_rslora"})
# Fields of training, or of which layers have adapters, which the tensors' names tell.
_NEUTRAL = frozenset(
    "task_type inference_mode lora_dropout peft_version auto_mapping target_modules "
    "exclude_modules layers_to_transform layers_pattern megatron_core qalora_group_size".split()
)


class Adapter(NamedTuple):
    """Low-rank adapters of a model: W x becomes W x + scale B A x (arXiv 2106.09685)."""

    folder: Path
    base: str | None  # the source of the model, as in `model.source`, if the config names it
    scale: float


def read_adapter(folder: Path) -> Adapter | None:
    """The adapter of a PEFT folder; None where the folder has none.

    Raises FileNotFoundError without its weights; ValueError, which names file and field, if it is
    no plain LoRA.
    """
    path = folder / ADAPTER_CONFIG
    if not path.exists():
        return None
    fields = read_object(path, COPY_ALL)
    for name, value in (dict.fromkeys(_REQUIRED) | fields).items():
        # An unknown field that is off or empty changes nothing.
        supported = _REQUIRED.get(name, (None, False, {}, []))
        if name not in _READ | _NEUTRAL and value not in supported:
            raise ValueError(
                f"{path}: {name} = {json.dumps(value)} is not supported; merge the adapter into "
                "its base with peft (merge_and_unload), and name the merged folder"
            )
    rank, alpha = fields.get("r"), fields.get("lora_alpha")
    for name, value in ("r", rank), ("lora_alpha", alpha):
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise ValueError(f"{path}: {name} is {value!r}; it must be a number above 0")
    remedy = f"save the adapter with peft as {ADAPTER}; files in other formats are not read"
    require_file(folder / ADAPTER, remedy)
    scale = alpha / (math.sqrt(rank) if fields.get("use_rslora") else rank)
    return Adapter(folder, fields.get("base_model_name_or_path"), scale)


def merge_peft(adapter: Adapter, config: ModelConfig, params: dict) -> dict:
    """Adds the adapter to the parameters of its base; dtypes and shardings are the base's.

    Raises ValueError if its file is damaged, or an adapter is not of one of the model's linear
    layers.
    """
    path, flat = adapter.folder / ADAPTER, flatten_dict(params, sep="/")
    tensors = _tensors(path)
    for weight in (weight for weight in weights(config) if weight.inputs):
        name, base, cut = weight.name.removesuffix(".weight"), flat[weight.path], weight.inputs
        a, b = (tensors.pop(f"{name}.lora_{half}.weight", None) for half in "AB")
        if a is None and b is None:
            continue
        found = [None if x is None else x.shape for x in (a, b)]
        outputs, inputs = weight.hf_shape
        rank = len(a) if a is not None and a.ndim else 0
        if found != [(rank, inputs), (outputs, rank)]:
            raise ValueError(
                f"{path}: lora_A and lora_B of {weight.name} have shapes {found[0]} and "
                f"{found[1]}, expected (rank, {inputs}) and ({outputs}, rank); take adapter and "
                "base that belong together"
            )
        a = a.T.reshape(*weight.shape[:cut], -1)  # now in the shapes of our own adapters
        b = b.T.reshape(-1, *weight.shape[cut:])
        merged = add_low_rank(base, a, b, adapter.scale)
        flat[weight.path] = jax.device_put(merged, base.sharding)
    if tensors:
        raise ValueError(
            f"{path}: tensor {min(tensors)} is no adapter of a linear layer of the base; merge "
            "the adapter with peft (merge_and_unload), and name the merged folder"
        )
    return unflatten_dict(flat, sep="/")


def _tensors(path: Path) -> dict[str, np.ndarray]:
    """The tensors f32, by names such as "model.layers.0.self_attn.q_proj.lora_A.weight"."""
    tensors = {}
    with open_safetensors(path) as file:
        for name in file.keys():
            dtype = file.get_slice(name).get_dtype()
            if dtype not in DTYPES:
                kinds = ", ".join(DTYPES)
                raise ValueError(f"{path}: tensor {name} has dtype {dtype}; use one of {kinds}")
            module = text_name(name.removeprefix(_PREFIX))
            if module is not None:  # None for tensors of the part that reads images
                tensors[module] = file.get_tensor(name).astype(np.float32)
    if not tensors:
        raise ValueError(f"{path}: holds no adapter; fetch it again")
    return tensors
