"""GGUF files of Llama models, turned into Hugging Face folders.

Format and key names: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from permix_jax.core.files import require_file
from permix_jax.core.progress import Progress
from permix_jax.formats.huggingface import config_from_hf, weights
from permix_jax.formats.weights import write_weights
from permix_jax.models.config import ModelConfig

try:
    import gguf
except ModuleNotFoundError:
    gguf = None

_SHARD_BYTES = 2**28  # size of the written files, each of which is in memory at once

# Known hyperparameters. A file with any other is refused: it may compute another function.
_HYPERPARAMETERS = {
    "llama.block_count",
    "llama.context_length",
    "llama.embedding_length",
    "llama.feed_forward_length",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.attention.key_length",
    "llama.attention.value_length",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.rope.dimension_count",
    "llama.rope.freq_base",
    "llama.vocab_size",
}

# Values that model and tokenizer need to have.
_REQUIRED = {
    "general.architecture": "llama",
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "smollm",
    "tokenizer.ggml.add_bos_token": False,
    "tokenizer.ggml.add_eos_token": False,
}


class _Metadata(dict):
    def __missing__(self, key: str):
        raise ValueError(f"GGUF: {key} is missing; fetch the file again")


def require_gguf():
    """Raises ImportError, with a message of one line, without the optional package."""
    if gguf is None:
        raise ImportError("reading GGUF weights needs a package: pip install -e '.[gguf]'")


def convert_gguf(path: Path, folder: Path):
    """Writes config, weights (f32), tokenizer and generation config of a GGUF file to `folder`.

    Shows a progress bar.

    Raises:
      ImportError: the `gguf` package is not installed.
      FileNotFoundError: there is no such file.
      ValueError: the file is damaged, one part of several, or holds something other than a Llama
        model with a byte-level tokenizer in types of numbers that the package reads.
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
        write_weights(folder, _tensors(reader, config, progress), _SHARD_BYTES)


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
    for key, value in _REQUIRED.items():
        if metadata.get(key, False) != value:
            raise ValueError(
                f"GGUF: {key} = {metadata.get(key)!r} is not supported; use a file where it is "
                f"{value!r}, or the model's Hugging Face folder"
            )
    for key in metadata:
        if key.startswith("llama.") and key not in _HYPERPARAMETERS:
            raise ValueError(
                f"GGUF: {key} = {metadata[key]!r} is not supported; use a file without it"
            )
    rotated = metadata.get("llama.rope.dimension_count", _head_dim(metadata))
    if rotated != _head_dim(metadata):
        raise ValueError(
            f"GGUF: llama.rope.dimension_count = {rotated} is not supported; "
            f"use a file where it is the head size, {_head_dim(metadata)}"
        )


def _head_dim(metadata: _Metadata) -> int:
    default = metadata["llama.embedding_length"] // metadata["llama.attention.head_count"]
    return metadata.get("llama.attention.key_length", default)


def _hf_config(metadata: _Metadata, tied: bool) -> dict[str, Any]:
    heads = metadata["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(metadata["tokenizer.ggml.tokens"]),
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.get("llama.attention.head_count_kv", heads),
        "head_dim": _head_dim(metadata),
        "max_position_embeddings": metadata["llama.context_length"],
        "rope_theta": metadata.get("llama.rope.freq_base", 10_000.0),
        "rms_norm_eps": metadata["llama.attention.layer_norm_rms_epsilon"],
        "tie_word_embeddings": tied,
        "bos_token_id": metadata.get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": metadata.get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": metadata.get("tokenizer.ggml.padding_token_id"),
    }


def _tensors(reader, config: ModelConfig, progress: Progress) -> Iterator[tuple[str, np.ndarray]]:
    """Yields (Hugging Face name, tensor f32), de-quantised."""
    name_map = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_layers)
    hf_names = {name_map.get_name(w.name, (".weight",)): w.name for w in weights(config)}
    for tensor in reader.tensors:
        if tensor.name not in hf_names:
            raise ValueError(f"GGUF: surplus tensor {tensor.name}; use a file of a plain Llama")
        array = gguf.dequantize(tensor.data, tensor.tensor_type)
        if tensor.name.endswith("attn_q.weight"):
            array = _rope_halves(array, config.num_heads)
        elif tensor.name.endswith("attn_k.weight"):
            array = _rope_halves(array, config.num_kv_heads)
        yield hf_names.pop(tensor.name), np.ascontiguousarray(array, np.float32)
        progress.advance()
    if hf_names:
        raise ValueError(f"GGUF: missing tensor {min(hf_names)}; fetch the file again")


def _rope_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Reorders each head's rows [heads * D, E] from adjacent RoPE pairs to (i, i + D/2).

    The inverse of `permute` in llama.cpp's convert_hf_to_gguf.py.
    """
    pairs = rows.reshape(heads, -1, 2, rows.shape[-1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)


def _tokenizer(metadata: _Metadata) -> PreTrainedTokenizerFast:
    tokens = metadata["tokenizer.ggml.tokens"]
    vocab = {token: i for i, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in metadata["tokenizer.ggml.merges"]]
    backend = Tokenizer(models.BPE(vocab, merges))
    # llama.cpp's "smollm" splits digits one by one, then by GPT-2's regular expression on bytes.
    digits = pre_tokenizers.Digits(individual_digits=True)
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, words])
    backend.decoder = decoders.ByteLevel()
    special = {gguf.TokenType.CONTROL: True, gguf.TokenType.USER_DEFINED: False}
    backend.add_tokens(
        [
            AddedToken(token, normalized=False, special=special[kind])
            for token, kind in zip(tokens, metadata["tokenizer.ggml.token_type"], strict=True)
            if kind in special
        ]
    )

    roles = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    named = {
        f"{ours}_token": tokens[metadata[f"tokenizer.ggml.{theirs}_token_id"]]
        for ours, theirs in roles.items()
        if f"tokenizer.ggml.{theirs}_token_id" in metadata
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=metadata.get("tokenizer.chat_template"),
        model_max_length=metadata["llama.context_length"],
        clean_up_tokenization_spaces=False,
        **named,
    )
