"""Each recipe of docs/recipes.md trains, and a run of many parts is resumed bit for bit."""

import dataclasses
import json
import math
import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
from commands import parsed
from runs import ROOT, assert_same_run, crash_after, load_config, metrics, newest_arrays, run_tiny

import permix_jax.app.build
from permix_jax.app.experiment import run
from permix_jax.train.method import Method

PAGE = (ROOT / "docs/recipes.md").read_text()
RECIPES = dict(re.findall(r"^\| ([^|]+?) \| [^|]+ \| `(--[^`]+)` \|$", PAGE, re.MULTILINE))
# The tiny policy is hardly ever right. A reward of the length gives its groups advantages.
SMALL = {"rewards.overlong": 1.0, "rewards.overlong_tokens": 12, "train.steps": 2}
SMALL |= {"task.num_test": 2, "eval.kl_responses": 0, "sft.steps": 5}
# What is asked of the policies at the end is the same in all.
SMALL |= {"eval.personas": 1, "eval.role_play_samples": 0, "eval.resamples": 10}
LOGS = {
    "DAPO": "refill/rounds",
    "TIS": "sampling/importance",
    "GDPO": "rewards/overlong/mean",
    "RLOO, KL in the reward": "kl",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("recipes") / "cache"


def test_the_page_has_its_recipes():
    assert len(RECIPES) >= 15 and set(LOGS) <= set(RECIPES)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains(name, cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PERMIX_CACHE", str(cache))
    config = parsed(f"launch/train.py --config=configs/permix.py:tiny {RECIPES[name]}")
    config.update_from_flattened_dict(SMALL)
    run(config, tmp_path / "run", "permix", "tiny")
    rows = metrics(tmp_path / "run")
    assert len(rows) == 2
    for row in rows:
        assert 0 < row["grad_norm"] < math.inf and math.isfinite(row["loss"])
        assert LOGS.get(name, "loss") in row
    # The first update is of the base, which is the reference; those after it are not.
    several = config.grpo.mini_batches * config.grpo.epochs > 1
    assert ("kl" in rows[0]) == bool(config.grpo.kl_weight)
    assert bool(rows[0].get("kl", 0)) == bool(several and config.grpo.kl_weight)


def test_the_method_of_the_guide_trains(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("PERMIX_CACHE", str(cache))
    guide = (ROOT / "docs/guide.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n(  # mine\.py.*?)```", guide, re.DOTALL)
    (tmp_path / "mine.py").write_text(textwrap.dedent(code))
    run_tiny(
        tmp_path / "run",
        method=str(tmp_path / "mine.py"),
        **{name.replace(".", "__"): value for name, value in SMALL.items()},
    )
    rows = metrics(tmp_path / "run")
    assert all(-1 <= row["rewards/brief/mean"] < 0 for row in rows)
    written = (tmp_path / "run/completions/2.jsonl").read_text().splitlines()
    personas = [json.loads(row)["persona"] for row in written]
    group = load_config("permix.py", "tiny").rollout.group_size
    assert set(personas[:group]) == {None} and len(set(personas[group : 2 * group])) == 1
    assert personas[group] is not None


def test_a_run_of_many_parts_goes_on_where_it_was_killed(cache, tmp_path, monkeypatch):
    """Epochs, mini-batches, refill, an average, a renewed reference and adaptive weights. It is
    killed between checkpoints, whose interval does not divide the steps, in the step that goes over
    the border of an epoch: the 20 problems last for two steps and a half. An answer is right if it
    has an even length, for otherwise none would be, and all weights would stay alike."""
    build_task = permix_jax.app.build.build_task

    def of_few(*args):
        task = build_task(*args)
        return dataclasses.replace(task, train=task.train[:20], grade=even_length)

    monkeypatch.setattr(permix_jax.app.build, "build_task", of_few)
    fields = {name.replace(".", "__"): value for name, value in SMALL.items()} | {
        "train__steps": 5,
        "train__log_completions_every": 1,
        "train__checkpoint_every": 2,
        "grpo__epochs": 2,
        "grpo__mini_batches": 2,
        "grpo__dead_groups": "drop",
        "grpo__loss": "gspo",
        "grpo__reference_every": 2,
        "grpo__reference_mix": 0.5,
        "grpo__importance_cap": 2.0,
        "grpo__entropy_share": 0.5,
        "rollout__refill_rounds": 1,
        "train__ema": 0.9,
        "train__decay": "linear",
        "train__warmup_steps": 1,
        "personas__weights": "adaptive",
    }
    whole = run_tiny(tmp_path / "whole", cache=cache, **fields)
    with crash_after(3, having="reward"):
        run_tiny(tmp_path / "killed", cache=cache, **fields)
    assert_same_run(run_tiny(tmp_path / "killed", cache=cache, **fields), whole)
    rows = metrics(whole)
    rates = [row["learning_rate"] for row in rows]
    # Warm-up is in steps, and the rate changes with each of the 4 updates of a step.
    assert rates[0] < rates[1] > rates[2] > rates[3] > rates[4]
    drawn = [problems_of(whole, step) for step in range(1, 6)]
    assert len({*drawn[0], *drawn[1], *drawn[2][:4]}) == 20  # an epoch; then they come again
    assert len({row["personas/weight_entropy"] for row in rows}) == 5  # the weights adapt


@pytest.mark.parametrize(
    ("dtype", "dead_groups"), [("float32", "keep"), ("bfloat16", "keep"), ("float32", "drop")]
)
def test_a_run_without_any_signal_stays_where_it_began(
    cache, tmp_path, monkeypatch, dtype, dead_groups
):
    """Adam would divide the KL's rounding noise by its own size, and the policy would drift."""
    monkeypatch.setenv("PERMIX_CACHE", str(cache))
    fields = {name.replace(".", "__"): value for name, value in SMALL.items()}
    fields |= {"model__dtype": dtype, "grpo__dead_groups": dead_groups, "grpo__mini_batches": 2}
    config = load_config("permix.py", "tiny", **fields | {"train__steps": 3})
    alike = Method(advantages=lambda rewards, groups, scale: np.zeros(len(rewards)))
    run(config, tmp_path / "run", "permix", "tiny", method=alike)
    rows = metrics(tmp_path / "run")
    assert len(rows) == 3 and all(row["grad_norm"] == row["kl"] == 0 for row in rows)
    base = Path(json.loads((tmp_path / "run/config.json").read_text())["base"])
    for mine, theirs in zip(*map(trained, (tmp_path / "run", base)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def even_length(text, problem) -> float:
    return float(len(text) % 2 == 0)


def problems_of(workdir: Path, step: int) -> list[str]:
    """The problems of a step, in their order."""
    lines = (workdir / f"completions/{step}.jsonl").read_text().splitlines()
    return list(dict.fromkeys(json.loads(line)["problem"] for line in lines))


def trained(folder: Path) -> list[np.ndarray]:
    """The parameters of the newest checkpoint."""
    return newest_arrays(folder / "checkpoints", items=("params",))
