"""GGUF files compute what their Hugging Face twins compute, or are refused."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_llama import HF, QWENS, TOKENS, logits, open_, random_tensors, write_folder, write_gguf
from transformers import PreTrainedTokenizerFast

from permix_jax.formats import gguf as gguf_module
from permix_jax.formats import pretrained
from permix_jax.formats.gguf import convert_gguf

gguf = pytest.importorskip("gguf", reason="GGUF files need the gguf package")
GATE = "model.layers.0.mlp.gate_proj.weight"


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


@pytest.mark.parametrize("family", QWENS)
def test_a_gguf_file_of_a_qwen_computes_what_its_hf_twin_computes(tmp_path, monkeypatch, family):
    """Biases (Qwen 2) and norms of queries and keys (Qwen 3) included; no rows are permuted."""
    for field, value in QWENS[family].items():
        monkeypatch.setitem(HF, field, value)
    tensors = random_tensors()
    extra = {"qwen2": "layers.1.self_attn.k_proj.bias", "qwen3": "layers.1.self_attn.k_norm.weight"}
    assert f"model.{extra[family]}" in tensors
    write_folder(tmp_path / "model")
    write_gguf(tmp_path / "x.gguf", tensors)
    convert_gguf(tmp_path / "x.gguf", tmp_path / "converted")
    ours, twin = open_(tmp_path / "converted"), open_(tmp_path / "model")
    eps = ours.config.norm_eps  # an f32 in the file
    assert ours.config == replace(twin.config, max_context=128, norm_eps=eps)
    assert eps == pytest.approx(twin.config.norm_eps, rel=1e-7)
    converted = load_file(tmp_path / "converted" / "model.safetensors")
    assert converted.keys() == tensors.keys()
    assert all(np.array_equal(converted[name], tensors[name]) for name in tensors)


def convert_quantised(folder, monkeypatch, kind: str, blocks: np.ndarray) -> np.ndarray:
    """Converts a file whose first gate are the blocks [256, bytes]; what the gate becomes."""
    kind = getattr(gguf.GGMLQuantizationType, kind)
    for field in ("hidden_size", "intermediate_size"):
        monkeypatch.setitem(HF, field, 256)
    add = gguf.GGUFWriter.add_tensor

    def add_tensor(self, name, tensor):
        gate = name == "blk.0.ffn_gate.weight"
        add(self, name, blocks if gate else tensor, raw_dtype=kind if gate else None)

    monkeypatch.setattr(gguf.GGUFWriter, "add_tensor", add_tensor)
    write_gguf(folder / "x.gguf", random_tensors())
    convert_gguf(folder / "x.gguf", folder / "converted")
    files = (folder / "converted").glob("*.safetensors")
    return next(x for f in files if (x := load_file(f).get(GATE)) is not None)


def test_quantised_tensors_are_restored(tmp_path, monkeypatch):
    gate = np.random.default_rng(0).normal(0, 0.3, (256, 256)).astype(np.float32)
    blocks = gguf.quantize(gate, gguf.GGMLQuantizationType.Q8_0)
    restored = convert_quantised(tmp_path, monkeypatch, "Q8_0", blocks)
    # Q8_0 rounds to 1/127 of the largest weight of 32, and that unit to f16.
    step = np.abs(gate).max() / 127
    np.testing.assert_allclose(restored, gate, rtol=2**-11, atol=step / 2 * 1.01)
    assert not np.array_equal(restored, gate)


def q4_k(block: bytes) -> list[float]:
    """The 256 numbers of a block, as `dequantize_row_q4_K` of ggml-quants.c gives them."""
    d, least = np.frombuffer(block[:4], np.float16).astype(np.float32)
    s, quants, numbers = block[4:16], block[16:], []
    for j in range(8):
        if j < 4:
            scale, minimum = s[j] & 63, s[j + 4] & 63
        else:
            scale = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4
            minimum = (s[j + 4] >> 4) | (s[j] >> 6) << 4
        part = quants[j // 2 * 32 : j // 2 * 32 + 32]
        numbers += [d * scale * ((q >> 4) if j % 2 else (q & 15)) - least * minimum for q in part]
    return numbers


def test_k_quants_are_read(tmp_path, monkeypatch):
    rng = np.random.default_rng(1)
    scales = rng.uniform(0, 0.1, (256, 2)).astype(np.float16).view(np.uint8)
    blocks = np.hstack([scales, rng.integers(256, size=(256, 140), dtype=np.uint8)])
    restored = convert_quantised(tmp_path, monkeypatch, "Q4_K", blocks)
    expected = np.array([q4_k(row.tobytes()) for row in blocks], np.float32)
    np.testing.assert_allclose(restored, expected, rtol=1e-6, atol=1e-6)


def test_a_type_that_is_not_read_is_named(tmp_path, monkeypatch):
    message = "GGUF: tensor blk.0.ffn_gate.weight is of type Q8_K, which is not read; use a file of"
    with pytest.raises(ValueError, match=f"^{message} F16, Q8_0 or Q4_K, or the model's "):
        convert_quantised(tmp_path, monkeypatch, "Q8_K", np.zeros((256, 292), np.uint8))


def test_a_local_file_is_converted_once_and_again_when_it_has_changed(tmp_path, monkeypatch):
    path, cache, tensors = tmp_path / "x.gguf", tmp_path / "cache", random_tensors()
    write_gguf(path, tensors)
    first = open_(path, cache).folder
    monkeypatch.setattr(pretrained, "convert_gguf", None)
    assert open_(path, cache).folder == first and first.parent == cache
    assert [folder.name for folder in cache.iterdir()] == [first.name]
    monkeypatch.undo()

    name = "model.norm.weight"
    write_gguf(path, {**tensors, name: tensors[name] + 1})
    os.utime(path, ns=(0, 0))
    second = open_(path, cache).folder
    assert second != first
    found = load_file(second / "model.safetensors")[name]
    np.testing.assert_array_equal(found, tensors[name] + 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"", "not a whole GGUF file (.*); fetch it again"),
        (lambda content: b"GGML" + content[4:], "not a whole GGUF file (GGUF magic .*); fetch it "),
        (lambda content: content[:4] + b"\x63" + content[5:], "not a whole GGUF file (.* 99 which"),
        (lambda content: content[:60], "not a whole GGUF file (.*); fetch it again"),
        (lambda content: content[:-99], "not a whole GGUF file (.*); fetch it again"),
        (
            lambda content: b"version https://git-lfs.github.com/spec/v1\n",
            "a Git LFS pointer in place of the file; run 'git lfs pull' in its folder",
        ),
    ],
)
def test_a_damaged_file_is_named(tmp_path, damage, message):
    path = tmp_path / "x.gguf"
    write_gguf(path, random_tensors())
    path.write_bytes(damage(path.read_bytes()))
    message = message.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(ValueError, match=f"^{path}: {path}: {message}"):
        open_(path, tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*"))


def test_the_tokenizer_of_a_gguf_file(tmp_path):
    write_gguf(tmp_path / "x.gguf", random_tensors())
    convert_gguf(tmp_path / "x.gguf", tmp_path / "converted")
    tokenizer = open_(tmp_path / "converted").tokenizer

    def split(text):
        return tokenizer.convert_ids_to_tokens(tokenizer(text).input_ids)

    # Digits stand alone, even against merges; so the spaces before them are a word of their own.
    assert split("hello he  12") == ["he", "l", "l", "o", "Ġhe", "ĠĠ", "1", "2"]
    assert split("<|im_start|>he<|im_end|>\n") == ["<|im_start|>", "he", "<|im_end|>", "Ċ"]
    assert tokenizer.decode(tokenizer("hello  he 21").input_ids) == "hello  he 21"
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "he"}], return_dict=False)
    assert chat == [1, TOKENS.index("he"), 2]
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert special == (1, 2, 2)


def test_the_tokenizer_of_a_qwen_splits_as_qwen_does(tmp_path, monkeypatch):
    """And a row of the embedding that fills it up to a round size gets no token."""
    monkeypatch.setitem(HF, "vocab_size", len(TOKENS) + 1)
    fields = {
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.ggml.tokens": [*TOKENS, "[PAD17]"],
        "tokenizer.ggml.token_type": [3, 3, 3, *[1] * (len(TOKENS) - 3), 5],
    }
    write_gguf(tmp_path / "x.gguf", random_tensors(), fields)
    convert_gguf(tmp_path / "x.gguf", tmp_path / "converted")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "converted")
    words = tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("I'LL (he) 12\n\n x  y")
    assert [word for word, _ in words] == [
        "I", "'LL", "Ġ(", "he", ")", "Ġ", "1", "2", "ĊĊ", "Ġx", "Ġ", "Ġy"
    ]  # fmt: skip
    assert tokenizer.get_vocab().keys() == {*TOKENS}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("general.architecture", "gemma3", "= 'gemma3' is not supported; use a file where it is "),
        ("llama.expert_count", 8, "= 8 is not supported; use a file without it"),
        ("llama.rope.scaling.type", "linear", "= 'linear' is not supported; use a file without it"),
        ("llama.rope.dimension_count", 8, "= 8 is not supported; use a file where it is the head "),
        ("tokenizer.ggml.model", "llama", "= 'llama' is not supported; use a file where it is "),
        ("tokenizer.ggml.pre", "llama-bpe", "= 'llama-bpe' is not supported; use a file where "),
        ("tokenizer.ggml.add_bos_token", True, "= True is not supported; use a file where it is "),
        ("llama.block_count", None, "is missing; fetch the file again"),
        (
            *("split.count", 2),
            "= 2: the file is one part of the model; join the parts (llama-gguf-split --merge)",
        ),
    ],
)
def test_metadata_that_cannot_be_read_is_named(tmp_path, key, value, message):
    write_gguf(tmp_path / "x.gguf", random_tensors(), {key: value})
    with pytest.raises(ValueError, match=f"^{re.escape(f'GGUF: {key} {message}')}.*$"):
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
    files = list((tmp_path / "converted").glob("model-*-of-*.safetensors"))
    assert len(files) > 1
    converted = {name: x for path in files for name, x in load_file(path).items()}
    assert converted.keys() == tensors.keys()
    assert all(np.array_equal(converted[name], tensors[name]) for name in tensors)
