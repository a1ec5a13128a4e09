"""Which of a folder's files are read, as in transformers, and what is said of the others."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from tiny_llama import TOKENS, logits, open_, params_of, random_tensors, their_logits, write_folder

from permix_jax.formats.folder import left_over, weight_files
from permix_jax.formats.huggingface import params_to_hf
from permix_jax.formats.weights import write_weights

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
UNKNOWN = b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}'
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
CONVERT = "convert the weights to safetensors (load the model with transformers "
SHARDS = [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A model whose single file holds the newest weights, beside older ones in shards."""
    write_folder(tmp_path / "model")
    old = {name: -tensor for name, tensor in random_tensors().items()}
    write_weights(tmp_path / "old", old.items(), shard_bytes=40_000)
    for path in (tmp_path / "old").iterdir():
        path.rename(tmp_path / "model" / path.name)
    return tmp_path / "model"


def stored(opened) -> dict[str, np.ndarray]:
    return dict(params_to_hf(opened.config, params_of(opened)))


def test_a_single_file_stands_before_an_index_of_older_shards(folder, caplog):
    assert {path.name for path in weight_files(folder)} == {SINGLE}
    with caplog.at_level(logging.WARNING):
        found = stored(open_(folder))
    assert all(np.array_equal(found[name], x) for name, x in random_tensors().items())
    names = ", ".join([*SHARDS, INDEX])
    assert caplog.messages == [f"{folder}: not read beside the weights: {names}"]

    (folder / SINGLE).unlink()
    found = stored(open_(folder))
    assert all(np.array_equal(found[name], -x) for name, x in random_tensors().items())


@pytest.mark.parametrize("removed", [[], [SINGLE], [INDEX]])
def test_the_same_file_is_read_as_by_transformers(folder, removed):
    torch = pytest.importorskip("torch", reason="transformers runs models on torch")
    stale = {name: torch.full(x.shape, 0.5) for name, x in random_tensors().items()}
    torch.save(stale, folder / "pytorch_model.bin")
    others = {name: x + 1 for name, x in random_tensors().items()}
    save_file(others, folder / "consolidated.safetensors")
    for name in removed:
        (folder / name).unlink()
    tokens = np.random.default_rng(3).integers(len(TOKENS), size=(2, 16))
    expected = their_logits(folder, tokens)
    np.testing.assert_allclose(logits(open_(folder), tokens), expected, rtol=1e-4, atol=1e-4)


def test_what_is_left_aside_is_named_and_what_is_read_is_not(folder):
    others = ["consolidated.00.pth", "model.fp16.safetensors", "x.gguf", "pytorch_model.bin"]
    for name in (*others, "training_args.bin", "optimizer.pt", "README.md", "tokenizer.model"):
        (folder / name).touch()
    assert left_over(folder) == [*SHARDS, others[0], others[1], INDEX, *others[2:]]
    (folder / SINGLE).unlink()
    assert left_over(folder) == others


def test_a_tensor_is_read_from_the_file_that_the_index_names(folder):
    (folder / SINGLE).unlink()
    placed = json.loads((folder / INDEX).read_text())["weight_map"]
    name = next(name for name, file in placed.items() if file == SHARDS[0])
    older = {name: np.zeros((3, 3), np.float32)}
    kept = {n: -x for n, x in random_tensors().items() if placed[n] == SHARDS[2]}
    save_file({**kept, **older}, folder / SHARDS[2])
    np.testing.assert_array_equal(stored(open_(folder))[name], -random_tensors()[name])


@pytest.mark.parametrize(
    ("name", "remedy"),
    {
        SHARDS[0]: f"copy {INDEX}, which says what is where, too",
        "model.fp16.safetensors": f"if it is the whole model, rename it to {SINGLE}",
        "adapter_model.safetensors": "copy the adapter_config.json of this adapter, too",
        "consolidated.safetensors": "take the checkpoint in the format of transformers",
        "consolidated.00.pth": "take the checkpoint in the format of transformers",
        "tiny-Q4_K_M.gguf": "name this file itself as the model",
        "pytorch_model.bin": CONVERT,
        "pytorch_model-00001-of-00002.bin": CONVERT,
        "tf_model.h5": CONVERT,
    }.items(),
)
def test_weights_in_another_form_alone_are_refused_with_what_to_do(tmp_path, name, remedy):
    (tmp_path / name).touch()
    message = f"{tmp_path / SINGLE}: no such file, and {name} is not read; {remedy}"
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(message)}.*$"):
        open_(tmp_path)


def test_an_index_without_its_shards_is_refused_when_the_model_is_opened(folder):
    (folder / SINGLE).unlink()
    (folder / SHARDS[1]).unlink()
    shard = re.escape(str(folder / SHARDS[1]))
    with pytest.raises(FileNotFoundError, match=f"^{shard}: no such file; copy the whole .*$"):
        open_(folder)
    (folder / SHARDS[1]).mkdir()
    with pytest.raises(FileNotFoundError, match=f"^{shard}: a folder, not a file; copy the .*$"):
        open_(folder)


@pytest.mark.parametrize("name", [SINGLE, INDEX, SHARDS[2], "tokenizer.json", "config.json"])
def test_a_pointer_of_git_lfs_is_told_from_the_file(folder, name):
    if name in (INDEX, SHARDS[2]):
        (folder / SINGLE).unlink()
    (folder / name).write_text(POINTER)
    message = f"{folder}: {folder / name}: a Git LFS pointer in place of the file; run 'git lfs "
    with pytest.raises(ValueError, match=f"^{re.escape(message)}pull' in its folder$"):
        open_(folder)


def test_a_pointer_in_place_of_a_file_that_is_not_read_is_no_matter(folder):
    for name in (INDEX, SHARDS[0], "pytorch_model.bin"):
        (folder / name).write_text(POINTER)
    open_(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", b"[]", "config.json: not a JSON object but list; copy the whole"),
        ("config.json", b"[" * 10**5, "config.json: not JSON in UTF-8 (maximum recursion "),
        ("config.json", "{}".encode("utf-16"), "config.json: not JSON in UTF-8 ("),
        ("generation_config.json", b"3", "generation_config.json: not a JSON object but int; "),
        ("tokenizer_config.json", b"[]", "tokenizer_config.json: not a JSON object but list; "),
        ("tokenizer_config.json", b"{", "tokenizer_config.json:1: not JSON ("),
        ("tokenizer_config.json", b'{"model_max_length": "x"}', "model_max_length is 'x'; it "),
        ("tokenizer.json", b"{}", "tokenizer.json and the files beside it cannot be read ("),
        ("tokenizer.json", b"\xff\xfe", "tokenizer.json and the files beside it cannot be read ("),
        ("chat_template.jinja", b"{% for", "the chat template fails ("),
        ("chat_template.jinja", b"{{ 1 / 0 }}", "the chat template fails (division by zero); use "),
        ("generation_config.json", b'{"eos_token_id": {}}', "eos_token_id = {} is no token of "),
    ],
)
def test_a_malformed_file_is_one_line_that_names_it(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"^{folder}: .*{re.escape(message)}.*$"):
        open_(folder)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "header too small"),
        (b"\xff" * 8, "header too large"),
        (b"\x02" + bytes(7) + b"[]", "invalid JSON in header"),
        (b"\x3d" + bytes(7) + UNKNOWN + b"1234", "unknown variant `F99`"),
    ],
)
def test_what_is_no_safetensors_file_is_named(folder, content, reason):
    (folder / SINGLE).write_bytes(content)
    message = f"^{folder / SINGLE}: damaged .*{reason}.* fetch it again$"
    with pytest.raises(ValueError, match=message):
        params_of(open_(folder))


def test_a_safetensors_file_without_tensors_lacks_them(folder):
    save_file({}, folder / SINGLE)
    with pytest.raises(ValueError, match=rf"^{folder}: missing tensor .* \(21 in all\): take the "):
        params_of(open_(folder))
