"""GGUF files compute what their Hugging Face twins compute, or are refused."""

import json
import re

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_llama import HF, TOKENS, logits, open_, random_tensors, write_folder, write_gguf

from permix_jax.models import gguf as gguf_module
from permix_jax.models.gguf import convert_gguf
from permix_jax.models.weights import Checkpoint


@pytest.mark.parametrize("tied", [False, True])
def test_a_gguf_file_computes_what_its_hf_twin_computes(tmp_path, tied):
    folder = tmp_path / "model"
    write_folder(folder)
    tensors = random_tensors()
    if tied:
        del tensors["lm_head.weight"]
    (folder / "config.json").write_text(json.dumps({**HF, "tie_word_embeddings": tied}))
    save_file(tensors, folder / "model.safetensors")
    write_gguf(tmp_path / "x.gguf", tensors)
    convert_gguf(tmp_path / "x.gguf", tmp_path / "converted")

    ours, twin = open_(tmp_path / "converted"), open_(folder)
    tokens = np.random.default_rng(3).integers(len(TOKENS), size=(2, 16))
    assert ours.config.rope.theta == 500 and ours.config.tie_embeddings == tied
    assert ours.end_tokens == (2,)
    np.testing.assert_allclose(logits(ours, tokens), logits(twin, tokens), rtol=1e-5, atol=1e-5)


def test_quantised_tensors_are_restored(tmp_path, monkeypatch):
    gguf = pytest.importorskip("gguf", reason="GGUF files need the gguf package")
    kind, tensors = gguf.GGMLQuantizationType.Q8_0, random_tensors()
    name = "model.layers.0.mlp.gate_proj.weight"
    quantised = gguf.quantize(tensors[name], kind)
    add = gguf.GGUFWriter.add_tensor

    def add_tensor(self, gguf_name, tensor):
        gate = gguf_name == "blk.0.ffn_gate.weight"
        add(self, gguf_name, quantised if gate else tensor, raw_dtype=kind if gate else None)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", add_tensor)
    write_gguf(tmp_path / "x.gguf", tensors)
    convert_gguf(tmp_path / "x.gguf", tmp_path / "converted")
    restored = load_file(tmp_path / "converted" / "model.safetensors")[name]
    # Q8_0 rounds to 1/127 of the largest weight of 32, and that unit to f16.
    step = np.abs(tensors[name]).max() / 127
    np.testing.assert_allclose(restored, tensors[name], rtol=2**-11, atol=step / 2 * 1.01)
    assert not np.array_equal(restored, tensors[name])


def test_the_tokenizer_of_a_gguf_file(tmp_path):
    write_gguf(tmp_path / "x.gguf", random_tensors())
    convert_gguf(tmp_path / "x.gguf", tmp_path / "converted")
    tokenizer = open_(tmp_path / "converted").tokenizer
    split = lambda text: tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)  # noqa: E731

    # Digits stand alone, even against merges; so the spaces before them are a word of their own.
    assert split("hello he  12") == ["he", "l", "l", "o", "Ġhe", "ĠĠ", "1", "2"]
    assert split("<|im_start|>he<|im_end|>\n") == ["<|im_start|>", "he", "<|im_end|>", "Ċ"]
    assert tokenizer.decode(tokenizer("hello  he 21").input_ids) == "hello  he 21"
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "he"}], return_dict=False)
    assert chat == [1, TOKENS.index("he"), 2]
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert special == (1, 2, 2)


@pytest.mark.parametrize(
    "key, value",
    [
        ("general.architecture", "qwen3"),
        ("llama.expert_count", 8),
        ("llama.rope.scaling.type", "linear"),
        ("llama.rope.dimension_count", 8),
        ("tokenizer.ggml.model", "llama"),
        ("tokenizer.ggml.pre", "llama-bpe"),
        ("tokenizer.ggml.add_bos_token", True),
    ],
)
def test_unsupported_gguf_metadata_is_refused_by_name_and_value(tmp_path, key, value):
    write_gguf(tmp_path / "x.gguf", random_tensors(), {key: value})
    message = re.escape(f"GGUF: {key} = {value!r} is not supported; use a file ")
    with pytest.raises(ValueError, match=f"^{message}.*$"):
        convert_gguf(tmp_path / "x.gguf", tmp_path / "converted")


def test_missing_gguf_metadata_is_named(tmp_path):
    write_gguf(tmp_path / "x.gguf", random_tensors(), {"llama.block_count": None})
    with pytest.raises(ValueError, match="^GGUF: llama.block_count is missing; .*$"):
        convert_gguf(tmp_path / "x.gguf", tmp_path / "converted")


def test_missing_and_surplus_gguf_tensors_are_named(tmp_path):
    tensors = random_tensors()
    write_gguf(tmp_path / "more.gguf", {**tensors, "rope_freqs.weight": np.ones(8, np.float32)})
    with pytest.raises(ValueError, match="^GGUF: surplus tensor rope_freqs.weight; .*$"):
        convert_gguf(tmp_path / "more.gguf", tmp_path / "a")
    del tensors["model.norm.weight"]
    write_gguf(tmp_path / "less.gguf", tensors)
    with pytest.raises(ValueError, match="^GGUF: missing tensor output_norm.weight; .*$"):
        convert_gguf(tmp_path / "less.gguf", tmp_path / "b")


def test_conversion_goes_shard_by_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(gguf_module, "_SHARD_BYTES", 20_000)
    tensors = random_tensors()
    write_gguf(tmp_path / "x.gguf", tensors)
    convert_gguf(tmp_path / "x.gguf", tmp_path / "converted")
    assert len(list((tmp_path / "converted").glob("model-*-of-*.safetensors"))) > 1
    converted = Checkpoint(tmp_path / "converted")
    assert converted.keys() == tensors.keys()
    assert all(np.array_equal(converted[name], tensors[name]) for name in tensors)
