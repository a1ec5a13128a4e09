"""Which files of a model's folder hold weights, and which of those are read.

As in `transformers`, model.safetensors is read if it is there, else the files of an index.
"""

import contextlib
import json
from fnmatch import fnmatch
from pathlib import Path

from permix_jax.core.files import require_file

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER = "adapter_model.safetensors"

# What is read of a repository on the hub.
FETCHED = ["config.json", "generation_config.json", SINGLE, INDEX, "model-*-of-*.safetensors"]
FETCHED += [ADAPTER_CONFIG, ADAPTER, "tokenizer*", "special_tokens_map.json", "chat_template*"]

COPY_ALL = "copy the whole checkpoint folder"

_CONVERT = (
    "convert the weights to safetensors (load the model with transformers and call save_pretrained)"
)
_AS_ADAPTER = f"copy the {ADAPTER_CONFIG} of this adapter, too"
_ORIGINAL = "take the checkpoint in the format of transformers"
# Files of weights that are not read: a pattern of their names, and what to do where a folder has no
# others.
_UNREAD = {
    "model-*-of-*.safetensors": f"copy {INDEX}, which says what is where, too",
    "adapter_model.safetensors": _AS_ADAPTER,
    "adapter_model.bin": f"{_AS_ADAPTER}, and save its weights as {ADAPTER}",
    "consolidated*.safetensors": _ORIGINAL,
    "consolidated*.pth": _ORIGINAL,
    "*.safetensors": f"if it is the whole model, rename it to {SINGLE}",
    "*.safetensors.index.json": f"if it is the model's, rename it to {INDEX}",
    "*.gguf": "name this file itself as the model",
    "pytorch_model*.bin": _CONVERT,
    "pytorch_model*.bin.index.json": _CONVERT,
    "tf_model*.h5": _CONVERT,
    "flax_model*.msgpack": _CONVERT,
}


def has_weights(folder: Path) -> bool:
    """Whether the folder holds safetensors files of a whole model, not of an adapter alone."""
    return any((folder / name).is_file() for name in (SINGLE, INDEX))


def weight_files(folder: Path) -> dict[Path, set[str]]:
    """The files of the model's weights, each with the tensors that the index says it holds.

    The set is empty for model.safetensors, which needs no index. Raises FileNotFoundError if there
    are none, or not all that the index names; ValueError for a damaged index or a Git LFS pointer.
    """
    single, index = folder / SINGLE, folder / INDEX
    files = {single: set()}
    if not single.is_file() and index.is_file():
        files = _indexed(index)
    elif not single.is_file() and (unread := _unread(folder)):
        name, remedy = next(iter(unread.items()))
        raise FileNotFoundError(f"{single}: no such file, and {name} is not read; {remedy}")
    for path in files:
        require_file(path, COPY_ALL)
    return files


def left_over(folder: Path) -> list[str]:
    """Names of the files with weights that `weight_files` does not give; without an adapter's."""
    used = {path.name for path in weight_files(folder)}
    if (folder / ADAPTER_CONFIG).exists():
        used.add(ADAPTER)
    if not (folder / SINGLE).is_file():
        used.add(INDEX)
    return [name for name in _unread(folder) if name not in used]


def _indexed(index: Path) -> dict[Path, set[str]]:
    require_file(index, COPY_ALL)
    files: dict[Path, set[str]] = {}
    with contextlib.suppress(ValueError, KeyError, TypeError, AttributeError, RecursionError):
        for name, file in json.loads(index.read_text("utf-8"))["weight_map"].items():
            files.setdefault(index.parent / file, set()).add(name)
        if files:
            return files
    raise ValueError(f"{index}: damaged (no weight_map); fetch it again")


def _unread(folder: Path) -> dict[str, str]:
    """Remedies by the names of files of weights, in the order of `_UNREAD`."""
    names = sorted(path.name for path in folder.glob("*"))
    found = {}
    for pattern, remedy in _UNREAD.items():
        found |= {n: remedy for n in names if n not in found and fnmatch(n, pattern)}
    return found
