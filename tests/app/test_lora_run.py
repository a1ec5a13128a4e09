"""GRPO on adapters: one base in memory, adapters alone in the checkpoint, and resumed as ever."""

import gc

import jax
import orbax.checkpoint as ocp
import pytest
from flax.traverse_util import flatten_dict
from runs import assert_same_run, crash_after, metrics, run_tiny

import permix_jax.app.evaluations
from permix_jax.tasks.embedded_world import build_tokenizer

FIELDS = {
    "lora__rank": 4,
    "sft__steps": 20,
    "eval__every": 3,
    "eval__personas": 1,
    "eval__role_play_samples": 0,
    "eval__kl_responses": 0,
    # A reward that a policy varies in after so little SFT.
    "rewards__overlong": 1.0,
    "rewards__overlong_tokens": 16,
}
EMBED = 32  # of the tiny preset


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """A finished run under LoRA, and what lay in memory in the middle of its training."""
    folder, seen = tmp_path_factory.mktemp("lora"), []
    evaluate = permix_jax.app.evaluations.evaluate

    def look_around(*args):
        gc.collect()
        seen.append([(x.shape, x.dtype.name) for x in jax.live_arrays()])
        return evaluate(*args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(permix_jax.app.evaluations, "evaluate", look_around)
        run_tiny(folder / "run", cache=folder / "cache", **FIELDS)
    return folder, seen[0]


def test_checkpoints_hold_adapters_and_nothing_else(lora):
    with ocp.StandardCheckpointer() as reader:
        saved = reader.restore((lora[0] / "run/checkpoints/6/params").absolute())
    paths = flatten_dict(saved, sep="/")
    assert len(paths) == 7 * 2 and all("_lora_" in path for path in paths)


def test_policy_and_reference_share_one_bf16_base(lora):
    _, arrays = lora
    embedding = (len(build_tokenizer()), EMBED)
    assert [dtype for shape, dtype in arrays if shape == embedding] == ["bfloat16"]
    gates = sorted(dtype for shape, dtype in arrays if shape == (EMBED, 64))
    assert gates == ["bfloat16", "bfloat16"]  # gate and up, once


def test_the_policy_leaves_the_base_by_its_adapters(lora):
    rows = metrics(lora[0] / "run")
    assert rows[0]["kl"] == 0 < rows[-1]["kl"]


def test_a_run_that_crashed_ends_as_the_uninterrupted_one(lora, tmp_path):
    folder, _ = lora
    with crash_after(5):
        run_tiny(tmp_path / "run", cache=folder / "cache", **FIELDS)
    run_tiny(tmp_path / "run", cache=folder / "cache", **FIELDS)
    assert_same_run(tmp_path / "run", folder / "run")
