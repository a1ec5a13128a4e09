"""GGUF files of Llama and Qwen models, turned into Hugging Face folders.

Format and key names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from permix_jax.core.files import require_file
from permix_jax.core.progress import Progress
from permix_jax.formats.hf_fields import LLAMA, QWEN2, QWEN3
from permix_jax.formats.huggingface import config_from_hf, weights
from permix_jax.formats.weights import write_weights
from permix_jax.models.config import ModelConfig

try:
    import gguf
except ModuleNotFoundError:
    gguf = None

_SHARD_BYTES = 2**28  # size of the written files, each of which is in memory at once

_ARCHITECTURES = {"llama": LLAMA, "qwen2": QWEN2, "qwen3": QWEN3}
# The hyperparameters that config.json has, too, by their names there. In the file the name of the
# architecture stands before each.
_FIELDS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length",
    "rope_theta": "rope.freq_base",
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
}
# A file with any other is refused: it may compute another function.
_KNOWN = {*_FIELDS.values(), "vocab_size", "attention.value_length", "rope.dimension_count"}
# Qwen's regular expression: as GPT-2's, but digits stand alone, and a word takes one character of
# any kind along, not only a space.
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Values that model and tokenizer need to have: any of these.
_REQUIRED = {
    "general.architecture": tuple(_ARCHITECTURES),
    "tokenizer.ggml.model": ("gpt2",),
    "tokenizer.ggml.pre": ("smollm", "qwen2"),
    "tokenizer.ggml.add_bos_token": (False,),
    "tokenizer.ggml.add_eos_token": (False,),
}
_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}  # of tokens


class _Metadata(dict):
    def __missing__(self, key: str):
        raise ValueError(f"GGUF: {key} is missing; fetch the file again")

    def of_model(self, name: str) -> str:
        """The key of a hyperparameter: "qwen2.block_count"."""
        return f"{self['general.architecture']}.{name}"


def require_gguf():
    """Raises ImportError, with a message of one line, without the optional package."""
    if gguf is None:
        raise ImportError("reading GGUF weights needs a package: pip install -e '.[gguf]'")


def convert_gguf(path: Path, folder: Path):
    """Writes config, weights (f32), tokenizer and generation config of a GGUF file to `folder`.

    Shows a progress bar. Raises ImportError without the `gguf` package, FileNotFoundError, and
    ValueError if the file is damaged, one part of several, or holds something other than a model
    of `_ARCHITECTURES` with a byte-level tokenizer in types of numbers that the package reads.
    """
    require_gguf()
    require_file(path, "name a GGUF file")
    reader, metadata = _read(path)
    _check(metadata)
    _check_types(reader)
    hf_config = _hf_config(metadata, tied="output.weight" not in {t.name for t in reader.tensors})
    config = config_from_hf(hf_config)

    folder.mkdir(parents=True)
    _tokenizer(metadata).save_pretrained(folder)
    ends = {key: hf_config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    for name, content in (("config.json", hf_config), ("generation_config.json", ends)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", "utf-8")
    with Progress(f"converting {path.name}", len(reader.tensors)) as progress:
        tensors = _tensors(reader, metadata["general.architecture"], config, progress)
        write_weights(folder, tensors, _SHARD_BYTES)


def _read(path: Path) -> tuple[Any, _Metadata]:
    try:
        reader = gguf.GGUFReader(path)
        fields = [(name, field.contents()) for name, field in reader.fields.items()]
    except (ValueError, IndexError, KeyError, OverflowError, TypeError, MemoryError) as error:
        # The reader trusts the file: which error a damaged one raises depends on the damage.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path}: not a whole GGUF file ({reason}); fetch it again") from None
    return reader, _Metadata(fields)


def _check_types(reader) -> None:
    """De-quantises a row of each type of tensor. Raises ValueError for a type that is not read."""
    for tensor in {t.tensor_type: t for t in reader.tensors}.values():
        row = tensor.data[:1] if tensor.data.ndim > 1 else tensor.data
        try:
            gguf.dequantize(row, tensor.tensor_type)
        except NotImplementedError:
            raise ValueError(
                f"GGUF: tensor {tensor.name} is of type {tensor.tensor_type.name}, which is not "
                "read; use a file of F16, Q8_0 or Q4_K, or the model's Hugging Face folder"
            ) from None


def _check(metadata: _Metadata):
    if (parts := metadata.get("split.count", 1)) > 1:
        raise ValueError(
            f"GGUF: split.count = {parts}: the file is one part of the model; join the parts "
            "(llama-gguf-split --merge)"
        )

    def refuse(key: str, what: str):
        raise ValueError(f"GGUF: {key} = {metadata.get(key)!r} is not supported; use a file {what}")

    for key, values in _REQUIRED.items():
        if metadata.get(key, False) not in values:
            wanted = " or ".join(map(repr, values))
            refuse(key, f"where it is {wanted}, or the model's Hugging Face folder")
    of_model = metadata.of_model
    for key in metadata:
        if key.startswith(of_model("")) and key.removeprefix(of_model("")) not in _KNOWN:
            refuse(key, "without it")
    heads = metadata[of_model("attention.head_count")]
    head_dim = metadata[of_model("embedding_length")] // heads
    head_dim = metadata.setdefault(of_model("attention.key_length"), head_dim)
    if metadata.get(of_model("rope.dimension_count"), head_dim) != head_dim:
        refuse(of_model("rope.dimension_count"), f"where it is the head size, {head_dim}")
    metadata.setdefault(of_model("attention.head_count_kv"), heads)
    metadata.setdefault(of_model("rope.freq_base"), 10_000.0)


def _hf_config(metadata: _Metadata, tied: bool) -> dict[str, Any]:
    name = metadata["general.architecture"]
    return {
        "architectures": [_ARCHITECTURES[name]],
        "model_type": name,  # the same in transformers
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        **{field: metadata[metadata.of_model(key)] for field, key in _FIELDS.items()},
        "tie_word_embeddings": tied,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
    }


def _tensors(
    reader, architecture: str, config: ModelConfig, progress: Progress
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (Hugging Face name, tensor f32), de-quantised.

    In each head of a Llama's query and key, adjacent rows are a pair for RoPE; here, rows i and
    i + D/2 are. (llama.cpp's convert_hf_to_gguf.py permutes them. It leaves Qwen's as they are.)
    """
    known = getattr(gguf.MODEL_ARCH, architecture.upper())
    name_map = gguf.get_tensor_name_map(known, config.num_layers)
    hf_names = {name_map.get_name(w.name, (".weight", ".bias")): w.name for w in weights(config)}
    is_llama = architecture == "llama"
    rotated = {"q_proj": config.num_heads, "k_proj": config.num_kv_heads} if is_llama else {}
    for tensor in reader.tensors:
        if tensor.name not in hf_names:
            kind = _ARCHITECTURES[architecture].removesuffix("ForCausalLM")
            raise ValueError(f"GGUF: surplus tensor {tensor.name}; use a file of a plain {kind}")
        name = hf_names.pop(tensor.name)
        array = gguf.dequantize(tensor.data, tensor.tensor_type)
        if heads := rotated.get(name.split(".")[-2]):
            pairs = array.reshape(heads, -1, 2, array.shape[-1])
            array = pairs.swapaxes(1, 2).reshape(array.shape)
        yield name, np.ascontiguousarray(array, np.float32)
        progress.advance()
    if hf_names:
        raise ValueError(f"GGUF: missing tensor {min(hf_names)}; fetch the file again")


def _tokenizer(metadata: _Metadata) -> PreTrainedTokenizerFast:
    tokens, kinds = (metadata[f"tokenizer.ggml.{key}"] for key in ("tokens", "token_type"))
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    # Rows of the embedding that no token has are filled up with tokens of this kind.
    used = enumerate(zip(tokens, kinds, strict=True))
    used = {token: i for i, (token, kind) in used if kind != gguf.TokenType.UNUSED}
    backend = Tokenizer(models.BPE(used, merges))
    if metadata["tokenizer.ggml.pre"] == "qwen2":
        backend.normalizer = normalizers.NFC()
        first = pre_tokenizers.Split(Regex(_QWEN_WORDS), "isolated")
        on_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    else:  # "smollm" splits digits one by one, then by GPT-2's regular expression on bytes
        first = pre_tokenizers.Digits(individual_digits=True)
        on_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([first, on_bytes])
    backend.decoder = decoders.ByteLevel()
    special = {gguf.TokenType.CONTROL: True, gguf.TokenType.USER_DEFINED: False}
    backend.add_tokens(
        [
            AddedToken(token, normalized=False, special=special[kind])
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in special
        ]
    )
    named = {
        f"{ours}_token": tokens[metadata[key]]
        for ours, theirs in _ROLES.items()
        if (key := f"tokenizer.ggml.{theirs}_token_id") in metadata
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=metadata.get("tokenizer.chat_template"),
        model_max_length=metadata[metadata.of_model("context_length")],
        clean_up_tokenization_spaces=False,
        **named,
    )
