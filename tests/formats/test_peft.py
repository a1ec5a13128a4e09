"""PEFT folders as models: an adapter is merged into its base, or refused with what to do."""

import json
import logging
import re
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import linen as nn
from safetensors.numpy import load_file, save_file
from tiny_llama import HF, QWENS, TOKENS, logits, open_, their_logits, write_folder

from permix_jax.app.export import write_peft
from permix_jax.core.sharding import make_mesh
from permix_jax.formats.huggingface import config_from_hf
from permix_jax.formats.pretrained import is_plain, load_pretrained
from permix_jax.formats.weights import load_weights
from permix_jax.models.config import Lora
from permix_jax.models.params import init_params, join, merge_adapters, split_trained
from permix_jax.models.transformer import Decoder

LORA = Lora(3, 6.0, ("q_proj", "v_proj", "o_proj", "down_proj"))
TENSOR = "base_model.model.model.layers.0.mlp.down_proj.lora_{}.weight"
INPUT = np.random.default_rng(3).integers(len(TOKENS), size=(2, 16))


def random_adapters() -> tuple[Decoder, dict]:
    model = Decoder(replace(config_from_hf(HF), lora=LORA))
    drawn = split_trained(model, nn.unbox(init_params(model, jax.random.key(0))))[0]

    def noise(x):
        return 0.3 * jax.random.normal(jax.random.key(x.size), x.shape)

    return model, jax.tree.map(noise, drawn)


@pytest.fixture
def folder(tmp_path) -> Path:
    return write_adapter(tmp_path)


def write_adapter(tmp_path) -> Path:
    """A PEFT folder whose base is a folder of its own."""
    write_folder(tmp_path / "base model")
    (tmp_path / "adapter").mkdir()
    model, adapters = random_adapters()
    write_peft(model.config, adapters, str(tmp_path / "base model"), tmp_path / "adapter")
    return tmp_path / "adapter"


def change(folder: Path, **fields) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def params_of(source, mesh=None, param_dtype="float32"):
    opened, mesh = open_(source), mesh or make_mesh(1, 1, 1)
    with jax.set_mesh(mesh):
        model = Decoder(replace(opened.config, param_dtype=param_dtype))
        return load_pretrained(opened, model, mesh)


def assert_logits_equal_those_of_peft(folder: Path) -> None:
    pytest.importorskip("peft", reason="pip install peft")
    ours = logits(open_(folder), INPUT, params_of(folder))
    np.testing.assert_allclose(ours, their_logits(folder, INPUT), rtol=1e-4, atol=1e-4)


def test_an_adapter_is_merged_into_the_base_that_it_names(folder, tmp_path):
    model, adapters = random_adapters()
    opened = open_(folder)
    assert opened.folder == tmp_path / "base model" and opened.config == config_from_hf(HF)
    base = load_weights(opened.folder, Decoder(opened.config), make_mesh(1, 1, 1))
    expected = merge_adapters(model, join(adapters, base))
    jax.tree.map(np.testing.assert_array_equal, params_of(folder), expected)
    assert not is_plain(str(folder), tmp_path) and is_plain(str(opened.folder), tmp_path)


def test_sharding_and_dtype_are_those_of_the_base(folder, tmp_path):
    mesh = make_mesh(2, 2, 2)
    whole = params_of(folder, param_dtype="bfloat16")
    cut = params_of(folder, mesh, param_dtype="bfloat16")
    base = params_of(tmp_path / "base model", mesh, param_dtype="bfloat16")

    def close(x, y):  # but for a rounding to bf16
        np.testing.assert_allclose(*(np.asarray(a, np.float32) for a in (x, y)), 2**-7, 1e-6)

    jax.tree.map(close, whole, cut)
    same = jax.tree.map(lambda x, y: (x.dtype, x.sharding) == (y.dtype, y.sharding), cut, base)
    assert all(jax.tree.leaves(same))


@pytest.mark.parametrize("fields", [{}, {"use_rslora": True}, {"lora_dropout": 0.1}])
def test_logits_equal_those_of_peft(folder, fields):
    change(folder, **fields)
    assert_logits_equal_those_of_peft(folder)


def test_logits_of_a_qwen_2_equal_those_of_peft(tmp_path, monkeypatch):
    """Its biases are not adapted: they come from the base."""
    for field, value in QWENS["qwen2"].items():
        monkeypatch.setitem(HF, field, value)
    folder = write_adapter(tmp_path)
    assert_logits_equal_those_of_peft(folder)
    base, merged = (params_of(x) for x in (tmp_path / "base model", folder))
    for name, same in {"query": False, "query_bias": True, "value_bias": True}.items():
        found = (np.asarray(x["layers_1"]["attention"][name]) for x in (base, merged))
        assert np.array_equal(*found) == same, name


def test_an_adapter_beside_a_whole_model_is_merged_into_that(folder, tmp_path, caplog):
    """As by transformers where peft is installed; the base that is named does not matter."""
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).rename(tmp_path / "base model" / name)
    both = tmp_path / "base model"
    change(both, base_model_name_or_path="org/elsewhere")
    with caplog.at_level(logging.WARNING):
        assert_logits_equal_those_of_peft(both)
    assert caplog.messages[0] == f"{both}: its adapter is merged into the model beside it"
    assert not any("not read" in message for message in caplog.messages)


def test_our_own_export_is_read_with_its_base_wherever_it_is_moved(folder, tmp_path):
    expected = params_of(folder)
    (tmp_path / "base model").rename(folder / "base")
    change(folder, base_model_name_or_path="runs/long/gone/base")
    folder.rename(tmp_path / "moved")
    jax.tree.map(np.testing.assert_array_equal, params_of(tmp_path / "moved"), expected)


def test_the_adapters_tokenizer_stands_before_that_of_the_base(folder, tmp_path):
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (folder / name).write_bytes((tmp_path / "base model" / name).read_bytes())
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    assert "im_start" in open_(tmp_path / "base model").tokenizer.chat_template
    assert "im_start" not in open_(folder).tokenizer.chat_template


@pytest.mark.parametrize(
    ("field", "value"),
    {
        "peft_type": "IA3",
        "bias": "all",
        "use_dora": True,
        "lora_bias": True,
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"q_proj": 2},
        "modules_to_save": ["embed_tokens"],
        "layer_replication": [[0, 1]],
        "init_lora_weights": "pissa",
        "fan_in_fan_out": True,
        "a_field_of_next_year": 3,
    }.items(),
)
def test_what_is_no_plain_lora_is_refused_by_name(folder, field, value):
    change(folder, **{field: value})
    message = f"{folder / 'adapter_config.json'}: {field} = {json.dumps(value)} is not supported; "
    with pytest.raises(ValueError, match=re.escape(f"{message}merge the adapter into its base")):
        open_(folder)


def test_what_is_off_and_what_only_training_reads_is_passed_over(folder):
    off = {"use_dora": False, "rank_pattern": {}, "modules_to_save": None, "loftq_config": {}}
    change(folder, **off, peft_version="0.19", layers_to_transform=[0, 1], megatron_core="x")
    open_(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"r": 0}, "r is 0; it must be a number above 0"),
        ({"lora_alpha": "8"}, "lora_alpha is '8'; it must be a number above 0"),
        ({"base_model_name_or_path": None}, "base_model_name_or_path is None; write there where"),
        (
            {"base_model_name_or_path": "nowhere"},
            "base_model_name_or_path is 'nowhere': nowhere: no such folder; give a local ",
        ),
    ],
)
def test_a_config_that_cannot_be_is_named(folder, fields, message):
    change(folder, **fields)
    where = re.escape(f"{folder / 'adapter_config.json'}: {message}")
    with pytest.raises((ValueError, FileNotFoundError), match=where):
        open_(folder)


def test_an_adapter_of_an_adapter_is_refused(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "second")
    change(tmp_path / "second", base_model_name_or_path=str(folder))
    with pytest.raises(ValueError, match=f"its base {folder} has an adapter itself; merge that "):
        open_(tmp_path / "second")


def test_weights_of_an_adapter_that_are_not_there_are_named(folder):
    path = folder / "adapter_model.safetensors"
    path.rename(folder / "adapter_model.bin")
    message = "save the adapter with peft as adapter_model.safetensors; files in other formats"
    with pytest.raises(FileNotFoundError, match=f"^{path}: no such file; {message} are not read$"):
        open_(folder)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ValueError, match=f"{path}: a Git LFS pointer in place of the file; run "):
        open_(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (None, "damaged "),
        ({TENSOR.format("A"): None}, "lora_A and lora_B of model.layers.0.mlp.down_proj.weight "),
        (
            {TENSOR.format("A"): np.zeros((3, 5), np.float32)},
            r"lora_A and lora_B of model.layers.0.mlp.down_proj.weight have shapes \(3, 5\) and "
            r"\(32, 3\), expected \(rank, 64\) and \(32, rank\); take adapter and base that ",
        ),
        (
            {"base_model.model.lm_head.lora_A.weight": np.zeros((3, 32), np.float32)},
            "tensor lm_head.lora_A.weight is no adapter of a linear layer of the base; merge the ",
        ),
        (
            {TENSOR.format("B"): np.zeros((32, 3), np.int8)},
            f"tensor {TENSOR.format('B')} has dtype I8; use one of BF16, F16, F32, F64",
        ),
        ({"all": None}, "holds no adapter; fetch it again"),
    ],
)
def test_weights_that_do_not_fit_the_base_are_named(folder, changes, message):
    path = folder / "adapter_model.safetensors"
    if changes is None:
        path.write_bytes(path.read_bytes()[:-1])
    else:
        tensors = {} if "all" in changes else {**load_file(path), **changes}
        save_file({name: x for name, x in tensors.items() if x is not None}, path)
    with pytest.raises(ValueError, match=f"^{path}: {message}"):
        params_of(folder)
