"""Weights from safetensors files into sharded arrays and back: values, errors, memory."""

import json
import os
import re
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from permix_jax.core.sharding import make_mesh
from permix_jax.formats import weights as weights_module
from permix_jax.formats.folder import weight_files
from permix_jax.formats.huggingface import config_to_hf, params_to_hf, weights
from permix_jax.formats.weights import Stored, load_weights, write_weights
from permix_jax.models.config import Lora, ModelConfig
from permix_jax.models.params import abstract_params
from permix_jax.models.transformer import Decoder

ROOT = Path(__file__).parents[2]
CONFIG = ModelConfig(24, 16, 2, 4, 2, head_dim=6, mlp_dim=20, tie_embeddings=False)
DOWN = "model.layers.1.mlp.down_proj.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def random_tensors(config: ModelConfig = CONFIG, dtype="float32") -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {w.name: rng.normal(size=w.hf_shape).astype(dtype) for w in weights(config)}


def expected_params(config: ModelConfig, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """By path: our [*inputs, *outputs] of their [outputs, inputs], cast."""
    return {
        w.path: (tensors[w.name].T if w.inputs else tensors[w.name])
        .reshape(w.shape)
        .astype(config.param_dtype)
        for w in weights(config)
    }


def load(folder: Path, config: ModelConfig = CONFIG, mesh=(1, 1, 1)) -> dict[str, jax.Array]:
    return flatten_dict(load_weights(folder, Decoder(config), make_mesh(*mesh)), sep="/")


def bits(array) -> np.ndarray:
    return np.ascontiguousarray(array).view(np.uint8)


@pytest.fixture
def small_blocks(monkeypatch):
    """A tensor is read in many blocks, through several mappings of its file."""
    monkeypatch.setattr(weights_module, "_BLOCK", 50)
    monkeypatch.setattr(weights_module, "_BLOCKS_PER_MAPPING", 2)


# In


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2), (1, 4, 2), (8, 1, 1)])
@pytest.mark.parametrize(
    "stored, kept",
    [("bfloat16", "bfloat16"), ("bfloat16", "float32"), ("float32", "bfloat16"),
     ("float32", "float32"), ("float16", "float32")],
)  # fmt: skip
def test_arrays_are_the_tensors_on_any_mesh_bit_by_bit(tmp_path, small_blocks, mesh, stored, kept):
    config = replace(CONFIG, param_dtype=kept)
    with_adapters = replace(config, lora=Lora(rank=2, alpha=4))  # which are not looked for
    tensors = random_tensors(dtype=stored)
    tensors[DOWN][0, :4] = [np.nan, np.inf, -np.inf, -0.0]
    write_weights(tmp_path, tensors.items(), shard_bytes=3000)
    params = load(tmp_path, with_adapters, mesh)
    expected = expected_params(config, tensors)
    described = flatten_dict(abstract_params(Decoder(config), make_mesh(*mesh)), sep="/")
    assert params.keys() == expected.keys() == described.keys()
    for path, array in params.items():
        assert array.dtype == np.dtype(kept)
        assert array.sharding == described[path].sharding
        np.testing.assert_array_equal(bits(array), bits(expected[path]), err_msg=path)


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2), (8, 1, 1)])
def test_every_element_is_read_once_however_many_devices_hold_it(tmp_path, monkeypatch, mesh):
    write_weights(tmp_path, random_tensors().items())
    read, blocks = [], Stored.blocks

    def counted(self, *args):
        for place, block in blocks(self, *args):
            read.append(block.size)
            yield place, block

    monkeypatch.setattr(Stored, "blocks", counted)
    load(tmp_path, mesh=mesh)
    assert sum(read) == sum(tensor.size for tensor in random_tensors().values())


def test_tensors_of_another_modality_and_stored_rope_tables_are_left_aside(tmp_path):
    tensors = random_tensors()
    more = {
        "vision_tower.encoder.weight": np.ones(3, np.int8),
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32),
    }
    renamed = {f"language_model.{name}": tensor for name, tensor in tensors.items()}
    write_weights(tmp_path, {**renamed, **more}.items())
    params = load(tmp_path)
    for path, expected in expected_params(CONFIG, tensors).items():
        np.testing.assert_array_equal(params[path], expected)


def test_a_tied_checkpoint_may_repeat_its_head_but_not_change_it(tmp_path, small_blocks):
    config = replace(CONFIG, tie_embeddings=True)
    tensors = random_tensors(config)

    def with_head(name: str, head: np.ndarray) -> Path:
        write_weights(tmp_path / name, {**tensors, HEAD: head}.items())
        return tmp_path / name

    embedding = tensors[EMBEDDING]
    assert "head" not in load(with_head("same", embedding), config)
    changed = embedding.copy()
    changed[-1, -1] += 1
    for folder in (with_head("changed", changed), with_head("shorter", embedding[:-1])):
        message = re.escape(f"{folder}: {HEAD} differs from {EMBEDDING}: set tie_word_embeddings")
        with pytest.raises(ValueError, match=f"^{message} to false in config.json$"):
            load(folder, config)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({DOWN: None}, rf"missing tensor {DOWN} \(1 in all\): take the weights and "),
        ({"x": np.zeros(1)}, r"surplus tensor x \(1 in all\): take the weights and "),
        (
            {DOWN: np.zeros((20, 16), np.float32)},
            rf"tensor {DOWN} has shape \(20, 16\), expected \(16, 20\): take the weights ",
        ),
        (
            {DOWN: np.zeros((16, 20), np.int8)},
            rf"tensor {DOWN} has dtype I8, expected one of BF16, F16, F32, F64: use a ",
        ),
    ],
    ids=["missing", "surplus", "misshapen", "quantised"],
)
def test_what_does_not_fit_the_config_is_named(tmp_path, change, message):
    tensors = {k: v for k, v in {**random_tensors(), **change}.items() if v is not None}
    write_weights(tmp_path, tensors.items())
    with pytest.raises(ValueError, match=f"^{tmp_path}: {message}.*$"):
        load(tmp_path)


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file(random_tensors(), path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"^{path}: damaged .*; fetch it again$"):
        load(tmp_path)


def test_a_broken_set_of_shards_is_named(tmp_path):
    write_weights(tmp_path, random_tensors().items(), shard_bytes=8000)
    index = tmp_path / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    shard = tmp_path / content["weight_map"][DOWN]

    promised = {**content["weight_map"], "x": shard.name}
    index.write_text(json.dumps({"weight_map": promised}))
    with pytest.raises(ValueError, match=f"^{shard}: lacks tensor x, which {index.name} names; "):
        load(tmp_path)
    for broken in ('{"weight_map":', "{}", "[]", '{"weight_map": [1]}', '{"weight_map": {"x": 1}}'):
        index.write_text(broken)
        with pytest.raises(ValueError, match=f"^{index}: damaged .*; fetch it again$"):
            load(tmp_path)
    index.write_text(json.dumps(content))
    shard.unlink()
    with pytest.raises(FileNotFoundError, match=f"^{shard}: no such file; copy the whole"):
        load(tmp_path)


# Out


def test_what_is_written_is_what_was_loaded(tmp_path):
    config = replace(CONFIG, param_dtype="bfloat16")
    tensors = random_tensors(dtype="bfloat16")
    write_weights(tmp_path / "first", tensors.items())
    params = load_weights(tmp_path / "first", Decoder(config), make_mesh(2, 2, 2))
    write_weights(tmp_path / "again", params_to_hf(config, params), shard_bytes=2000)
    shards = map(load_file, (tmp_path / "again").glob("*.safetensors"))
    again = {name: tensor for shard in shards for name, tensor in shard.items()}
    assert again.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert again[name].dtype == tensor.dtype
        np.testing.assert_array_equal(bits(again[name]), bits(tensor))


dtypes = st.sampled_from([np.float32, np.float16, ml_dtypes.bfloat16])
shapes = st.lists(st.integers(1, 5), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None)
@given(kinds=st.lists(st.tuples(shapes, dtypes), min_size=1, max_size=8), limit=st.integers(1, 400))
def test_shards_are_within_the_limit_and_the_index_tells_where_tensors_are(
    tmp_path_factory, kinds, limit
):
    folder, rng = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    tensors = {f"t{i}": rng.normal(size=s).astype(d).T for i, (s, d) in enumerate(kinds)}
    write_weights(folder, tensors.items(), limit)
    read = {path.name: load_file(path) for path in sorted(folder.glob("*.safetensors"))}
    for shard in read.values():
        assert sum(tensor.nbytes for tensor in shard.values()) <= limit or len(shard) == 1
    assert [name for shard in read.values() for name in sorted(shard)] == list(tensors)
    for name, tensor in {k: v for shard in read.values() for k, v in shard.items()}.items():
        assert tensor.dtype == tensors[name].dtype
        np.testing.assert_array_equal(bits(tensor), bits(tensors[name]))

    n = len(read)
    if n == 1:
        assert [path.name for path in folder.iterdir()] == ["model.safetensors"]
        return
    assert list(read) == [f"model-{i + 1:05}-of-{n:05}.safetensors" for i in range(n)]
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {name: file for file, shard in read.items() for name in shard}
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in tensors.values())
    assert {path.name: names for path, names in weight_files(folder).items()} == {
        file: set(shard) for file, shard in read.items()
    }


@pytest.mark.parametrize("shard_bytes", [2**30, 3000])
def test_transformers_loads_what_is_written(tmp_path, shard_bytes):
    torch = pytest.importorskip("torch", reason="transformers models need torch")
    from transformers import LlamaForCausalLM

    (tmp_path / "config.json").write_text(json.dumps(config_to_hf(CONFIG)))
    tensors = random_tensors(dtype="bfloat16")
    write_weights(tmp_path, tensors.items(), shard_bytes)
    theirs, report = LlamaForCausalLM.from_pretrained(
        tmp_path, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not any(report.values())
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(tensor.float().numpy(), tensors[name].astype(np.float32))


def test_a_failure_leaves_no_files_and_old_weights_are_kept(tmp_path):
    def broken():
        yield "a", np.zeros(10)
        yield "b", np.zeros(10)
        raise ValueError("no more")

    with pytest.raises(ValueError, match="^no more$"):
        write_weights(tmp_path, broken(), shard_bytes=80)
    assert list(tmp_path.iterdir()) == []

    write_weights(tmp_path, {"a": np.zeros(10)}.items())
    with pytest.raises(ValueError, match=f"^{tmp_path}/model.safetensors is there already; name "):
        write_weights(tmp_path, {"a": np.ones(10)}.items())
    np.testing.assert_array_equal(load_file(tmp_path / "model.safetensors")["a"], np.zeros(10))


def test_files_can_be_read_by_whom_the_umask_allows(tmp_path):
    write_weights(tmp_path, random_tensors().items())
    (tmp_path / "other").touch()
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


# Memory


def test_writing_holds_one_shard_and_one_tensor(tmp_path):
    size, count = 2**20, 12
    tensors = ((f"t{i}", np.full(size // 4, i, np.float32)) for i in range(count))
    tracemalloc.start()
    try:
        write_weights(tmp_path, tensors, shard_bytes=3 * size)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(list(tmp_path.glob("model-*"))) == count // 3
    # The shard, the tensor that did not fit it, and half a tensor for everything else.
    assert peak <= 4.5 * size


@pytest.mark.parametrize("mesh", [(1, 1, 1), (2, 2, 2)])
def test_arrays_on_cpu_are_the_memory_that_was_read_into(tmp_path, monkeypatch, mesh):
    addresses, aligned = set(), weights_module._aligned

    def noted(*args):
        memory = aligned(*args)
        addresses.add(memory.ctypes.data)
        return memory

    monkeypatch.setattr(weights_module, "_aligned", noted)
    write_weights(tmp_path, random_tensors().items())
    for array in load(tmp_path, mesh=mesh).values():
        for shard in array.addressable_shards:
            assert shard.data.unsafe_buffer_pointer() in addresses


def test_loading_takes_less_than_the_largest_tensor_beside_the_arrays():
    """In a fresh process, by its resident memory.

    Of 160 MB of bf16 weights the largest tensor is 34 MB. The excess is about 12 MB of blocks and
    file pages; arrays that are copied one by one, or tensors read whole, take it over 34 MB.
    """
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("resident memory is read from /proc")
    done = subprocess.run(
        [sys.executable, "benchmarks/load_memory.py", "--gigabytes=0.15"],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = {line[:42].strip(): line[42:].split()[0] for line in done.stdout.splitlines()[:-1]}
    held, largest = float(figures["held by the devices"]), float(figures["largest tensor"])
    assert held > 4 * largest > 100
    assert float(figures["excess"]) <= largest
    assert float(figures["peak resident"]) >= held
