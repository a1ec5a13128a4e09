"""From a workdir to folders that transformers and peft load."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from commands import executed, refused
from runs import load_config, run_tiny

from permix_jax.app.export import export
from permix_jax.app.policies import build_policy
from permix_jax.app.workdir import cache_folder
from permix_jax.formats.pretrained import open_pretrained
from permix_jax.formats.weights import load_weights
from permix_jax.models.transformer import Decoder
from permix_jax.train.run import base_policy, checkpoint

SMALL = {
    "sft__steps": 40,
    "train__steps": 2,
    "train__learning_rate": 1e-2,
    "eval__role_play_samples": 1,
    "eval__personas": 2,
    "eval__kl_responses": 0,
}
TOKENS = np.random.default_rng(0).integers(60, size=(2, 14))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two finished runs from one base: `full` of all weights, `lora` of adapters."""
    folder = tmp_path_factory.mktemp("export")
    for name, fields in {"full": {}, "lora": {"lora__rank": 4}}.items():
        run_tiny(folder / name, cache=folder / "cache", **SMALL, **fields)
    return folder


@pytest.fixture(autouse=True)
def use_cache(folder, monkeypatch):
    monkeypatch.setenv("PERMIX_CACHE", str(folder / "cache"))


def policy_and_params(folder, mesh, **fields):
    """The trained policy as evaluation loads it."""
    config = load_config("permix.py", "tiny", **SMALL, **fields)
    policy, initial = build_policy(config, cache_folder(), mesh)
    sft = Path(json.loads((folder / "config.json").read_text())["base"])
    base = base_policy(policy, initial, sft)
    return policy, checkpoint(policy, base, folder, 2).load_params()


def logits(model, params):
    positions = np.broadcast_to(np.arange(TOKENS.shape[1]), TOKENS.shape)
    hidden, _ = model.apply({"params": params}, TOKENS, positions, TOKENS >= 0)
    return np.asarray(model.apply({"params": params}, hidden, method="unembed"))


def logits_of(theirs):
    import torch

    with torch.no_grad():
        return theirs(torch.tensor(TOKENS)).logits.numpy()


def assert_equal_logits(ours, theirs):
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


@pytest.mark.parametrize(("name", "fields"), [("full", {}), ("lora", {"lora__rank": 4})])
def test_transformers_loads_the_folder_and_computes_the_same(folder, mesh, tmp_path, name, fields):
    pytest.importorskip("torch", reason="transformers runs models on torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    export(folder / name, tmp_path / "out", dtype="float32")
    policy, params = policy_and_params(folder / name, mesh, **fields)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert_equal_logits(logits(policy.model, params), logits_of(theirs))

    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    chat = [{"role": "system", "content": "you are a robot ."}, {"role": "user", "content": "hi"}]
    asked, known = (
        t.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        for t in (tokenizer, policy.tokenizer)
    )
    assert asked == known
    assert theirs.generation_config.eos_token_id == list(policy.end_tokens)


def test_peft_loads_the_adapters_on_their_base(folder, mesh, tmp_path):
    torch = pytest.importorskip("torch", reason="peft runs models on torch")
    peft = pytest.importorskip("peft", reason="pip install peft")
    from transformers import AutoModelForCausalLM

    export(folder / "lora", tmp_path / "out", adapter=True)
    settings = json.loads((tmp_path / "out/adapter_config.json").read_text())
    named = settings["base_model_name_or_path"]
    assert named == str(tmp_path / "out/base")
    base = AutoModelForCausalLM.from_pretrained(named)
    assert base.dtype == torch.bfloat16
    theirs = peft.PeftModel.from_pretrained(base.float(), tmp_path / "out")
    policy, params = policy_and_params(folder / "lora", mesh, lora__rank=4)
    assert_equal_logits(logits(policy.model, params), logits_of(theirs))
    assert len(theirs.targeted_module_names) == 7


def test_out_and_in_again_is_bit_identical(folder, mesh, tmp_path):
    export(folder / "full", tmp_path / "out")
    found = open_pretrained(str(tmp_path / "out"), tmp_path)
    again = load_weights(found.folder, Decoder(found.config), mesh)
    policy, params = policy_and_params(folder / "full", mesh)
    jax.tree.map(np.testing.assert_array_equal, again, params)
    assert found.end_tokens == policy.end_tokens
    assert found.tokenizer.get_vocab() == policy.tokenizer.get_vocab()


def test_the_model_card_says_what_was_done_and_what_came_out(folder, tmp_path):
    export(folder / "full", tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    evaluation = json.loads((folder / "full/eval/2/stability.json").read_text())
    assert "PerMix-RLVR (arXiv 2604.08986)" in card and "75% of the prompts" in card
    assert f"{evaluation['accuracy_mean']:.3f}" in card and "role-play" in card
    assert "after 40 steps of SFT" in card and "--config=configs/permix.py:tiny" in card
    assert str(folder) not in card
    fields = json.loads((tmp_path / "out/permix_config.json").read_text())
    assert fields == json.loads((folder / "full/config.json").read_text())["config"]

    export(folder / "lora", tmp_path / "lora", adapter=True)
    card = (tmp_path / "lora/README.md").read_text()
    assert "LoRA adapters of rank 4, alpha 32.0, on q_proj,k_proj" in card


def test_the_command_writes_the_folder_and_says_so(folder, tmp_path):
    out = tmp_path / "out"
    command = f"launch/export.py --workdir={folder / 'full'} --out={out} --dtype=bfloat16"
    said = executed(command)
    assert said.startswith(f"wrote {out}; ") and f"from_pretrained('{out}')" in said
    assert json.loads((out / "config.json").read_text())["dtype"] == "bfloat16"
    files = {"README.md", "config.json", "generation_config.json", "model.safetensors"}
    assert {path.name for path in out.iterdir()} >= files | {"tokenizer.json"}
    assert refused(command) == f"error: {out} is there already; name a new folder"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("nothing", {}, "config.json: no such file; name the workdir of a run"),
        ("full", {"adapter": True}, "trained all weights, not adapters; leave out --adapter"),
        ("full", {"step": 7}, r"no checkpoint 7; there are \[2\]"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    folder, tmp_path, name, arguments, message
):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        export(folder / name, tmp_path / "out", **arguments)
    assert not (tmp_path / "out").exists()
