"""A tiny Llama (or Qwen) with random weights, as Hugging Face folder and as GGUF file."""

import json
from pathlib import Path

import numpy as np
import pytest
from dense import dense_logits
from safetensors.numpy import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from permix_jax.core.sharding import make_mesh
from permix_jax.formats.huggingface import config_from_hf, weights
from permix_jax.formats.pretrained import open_pretrained
from permix_jax.formats.weights import load_weights
from permix_jax.models.transformer import Decoder

# A vocabulary in GPT-2's spelling of bytes, "Ġ" being the space, as a GGUF file lists it.
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "Ġ he", "Ġ Ġ", "1 2", "Ġ 1"]
TOKENS = [*CONTROL, *"helo12", "Ġ", "Ċ", *(merge.replace(" ", "") for merge in MERGES)]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
HF = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": len(TOKENS),
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rope_theta": 500.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
}


# The same as another family, for monkeypatch.setitem(HF, ...).
QWENS = {
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"},
}


def random_tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    table = weights(config_from_hf(HF))
    return {w.name: rng.normal(0, 0.3, w.hf_shape).astype(np.float32) for w in table}


def write_folder(path: Path) -> None:
    """Writes the Hugging Face folder of the model."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(HF))
    save_file(random_tensors(), path / "model.safetensors")
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(TOKENS)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(CONTROL)
    PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token=CONTROL[0], chat_template=TEMPLATE
    ).save_pretrained(path)


def open_(source, cache="unused", **options):
    return open_pretrained(str(source), Path(cache), **options)


def params_of(opened):
    return load_weights(opened.folder, Decoder(opened.config), make_mesh(1, 1, 1))


def logits(opened, tokens, params=None):
    """The logits of whole sequences; `params` of the model, or those of its folder."""
    params = params or params_of(opened)
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    return np.asarray(dense_logits(Decoder(opened.config), params, tokens, positions, tokens >= 0))


def their_logits(folder, tokens):
    """The same by transformers (and peft, for a folder with an adapter)."""
    torch = pytest.importorskip("torch", reason="transformers runs models on torch")
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return theirs(torch.tensor(tokens)).logits.numpy()


def permute(weights: np.ndarray, heads: int) -> np.ndarray:
    """The row order of query and key in GGUF: `LlamaModel.permute` of llama.cpp's converter."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def write_gguf(path: Path, tensors: dict[str, np.ndarray], fields: dict | None = None):
    """Writes HF tensors as llama.cpp's converter does, their metadata changed by `fields`."""
    gguf = pytest.importorskip("gguf", reason="GGUF files need the gguf package")
    family = HF["model_type"]
    known = getattr(gguf.MODEL_ARCH, family.upper())
    names = gguf.get_tensor_name_map(known, HF["num_hidden_layers"])
    sizes = {
        "block_count": "num_hidden_layers",
        "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
        "attention.key_length": "head_dim",
        "attention.value_length": "head_dim",
        "rope.dimension_count": "head_dim",
        "rope.freq_base": "rope_theta",
        "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    }
    tokenizer = {
        "model": "gpt2",
        "pre": "smollm" if family == "llama" else "qwen2",
        "tokens": TOKENS,
        "token_type": [3 if token in CONTROL else 1 for token in TOKENS],
        "merges": MERGES,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "unknown_token_id": 0,
        "padding_token_id": 2,
    }
    metadata = {
        f"{family}.context_length": 128,
        **{f"{family}.{key}": HF[field] for key, field in sizes.items()},
        **{f"tokenizer.ggml.{key}": value for key, value in tokenizer.items()},
        "tokenizer.chat_template": TEMPLATE,
        **(fields or {}),
    }
    kinds = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}
    writer = gguf.GGUFWriter(path, family)
    for key, value in metadata.items():
        if value is not None:
            getattr(writer, f"add_{kinds[type(value)]}")(key, value)
    for name, tensor in tensors.items():
        if "q_proj" in name and family == "llama":
            tensor = permute(tensor, HF["num_attention_heads"])
        elif "k_proj" in name and family == "llama":
            tensor = permute(tensor, HF["num_key_value_heads"])
        writer.add_tensor(names.get_name(name, (".weight", ".bias")) or name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
