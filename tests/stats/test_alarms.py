"""What a run warns of: at the right step, once, also over a resume, and not of a healthy run."""

import logging
import re

import jax.numpy as jnp
import pytest
from runs import ROOT

from permix_jax.core.stop import StopRequest
from permix_jax.models.params import abstract_like
from permix_jax.stats.alarms import ALARMS, Alarms, warned_of
from permix_jax.train.log import read_rows
from permix_jax.train.loop import Loop, fit
from permix_jax.train.state import TrainState

HEALTHY = {  # as the embedded world's GRPO has them
    "reward": 0.6,
    "frac_reward_zero_std": 0.25,
    "rewards/correctness/mean": 0.6,
    "verifier/unparseable_gold": 0.0,
    "completions/clipped_ratio": 0.03,
    "kl": 0.02,
    "sampling/logp_difference": 3e-7,
    "loss": 0.1,
    "grad_norm": 0.5,
}


NO_REWARD = {name: x for name, x in HEALTHY.items() if name != "reward"}
NO_REWARD["frac_reward_zero_std"] = 1.0
SICK = [
    # metrics of a step, the warning, after how many such steps
    ({**HEALTHY, "completions/clipped_ratio": 1.0}, "truncated", 5),
    ({**HEALTHY, "completions/clipped_ratio": 0.81}, "truncated", 5),
    ({**HEALTHY, "reward": 0.0, "rewards/correctness/mean": 0.0}, "nothing right", 10),
    ({**HEALTHY, "reward": -0.4, "rewards/correctness/mean": 0.0}, "nothing right", 10),
    ({"reward": 0.0, "loss": 0.0}, "nothing right", 10),
    ({"teacher/accuracy": 0.0, "loss": 0.0}, "nothing right", 10),
    ({**HEALTHY, "frac_reward_zero_std": 1.0}, "no spread", 5),
    (NO_REWARD, "no verdict", 3),
    ({**HEALTHY, "kl": 10.5}, "KL", 1),
    ({**HEALTHY, "sampling/logp_difference": 0.11}, "sampler and trainer", 1),
]
WELL = [
    HEALTHY,
    {**HEALTHY, "completions/clipped_ratio": 0.8},
    {**HEALTHY, "frac_reward_zero_std": 0.97},
    {**HEALTHY, "verifier/unparseable_gold": 2.0},
    # as older runs wrote it
    {**HEALTHY, "verifier/timeouts": 2.0, "verifier/errors": 0.0, "verifier/undecided": 3.0},
    {**HEALTHY, "kl": 10.0, "sampling/logp_difference": 0.1},
    {"loss": 0.0, "grad_norm": 0.0, "learning_rate": 1e-3},  # SFT
    {"teacher/accuracy": 0.01, "loss": 0.0},
]


def rows_of(metrics, number, first=1):
    return [{"step": step, **metrics} for step in range(first, first + number)]


def found(rows):
    return [(warned.step, warned.alarm.name) for warned in warned_of(rows)]


@pytest.mark.parametrize(("metrics", "name", "steps"), SICK)
def test_a_warning_comes_at_its_step_and_once(metrics, name, steps):
    rows = rows_of(HEALTHY, 3) + rows_of(metrics, 30, first=4)
    assert found(rows[: 2 + steps]) == []
    assert found(rows) == [(3 + steps, name)]


@pytest.mark.parametrize("metrics", WELL)
def test_a_run_that_is_well_is_silent(metrics):
    assert found(rows_of(metrics, 30)) == []


@pytest.mark.parametrize(("metrics", "name", "steps"), [case for case in SICK if case[2] > 1])
def test_the_steps_must_follow_one_another(metrics, name, steps):
    part = rows_of(metrics, steps - 1)
    assert found([*part, {"step": steps, **HEALTHY}, *rows_of(metrics, steps - 1, steps + 1)]) == []


def test_a_verifier_without_any_verdict_does_not_count_as_groups_without_spread():
    assert found(rows_of(NO_REWARD, 30)) == [(3, "no verdict")]


def test_a_resumed_run_goes_on_counting_and_repeats_nothing():
    cut_off = {**HEALTHY, "completions/clipped_ratio": 1.0}
    rows = rows_of(cut_off, 5)
    assert [warned.alarm.name for warned in Alarms(rows[:4], 4).see(rows[4])] == ["truncated"]
    assert Alarms(rows, 5).see({**rows[4], "step": 6}) == []
    # Killed after step 5 with a checkpoint of step 4: step 5 is done again, and said already.
    assert Alarms(rows, 4).see(rows[4]) == []


def test_the_remedy_of_a_warning_is_that_of_the_guide():
    guide = (ROOT / "docs/guide.md").read_text("utf-8")
    table = [line.strip("| ").split(" | ") for line in guide.splitlines() if line.startswith("| `")]
    limits = {cells[2].replace("`", ""): cells[3] for cells in table if len(cells) == 4}
    assert set(limits) == {alarm.remedy for alarm in ALARMS}
    for alarm in ALARMS:
        number = re.search(r"in (\d+) steps in a row", limits[alarm.remedy])
        assert int(number[1] if number else 1) == alarm.steps
        assert alarm.steps == 1 or f"in {alarm.steps} steps in a row" in alarm.finding


# ---- said in training -------------------------------------------------------------------------


def train(folder, steps):
    """Steps whose completions are all cut off."""

    def update(state, step):
        return state.replace(step=state.step + 1), {**HEALTHY, "completions/clipped_ratio": 1.0}

    def create():
        return TrainState(jnp.int32(0), {"w": jnp.zeros(2)}, {"m": jnp.zeros(2)})

    loop = Loop("test", folder, steps, checkpoint_every=3, keep_checkpoints=1, shown={})
    fit(loop, abstract_like(create()), create, update, StopRequest())


def test_training_says_it_once_over_all_its_starts(tmp_path, caplog):
    caplog.set_level(logging.WARNING)
    train(tmp_path, steps=4)
    assert caplog.messages == []
    train(tmp_path, steps=6)
    assert caplog.messages == [
        "step 5: over 80 % of the completions were cut off, in 5 steps in a row; raise "
        "rollout.max_new_tokens, or rewards.overlong with a ramp; grpo.mask_truncated leaves them "
        "out"
    ]
    train(tmp_path, steps=9)
    assert len(caplog.messages) == 1
    assert found(read_rows(tmp_path / "metrics.jsonl")) == [(5, "truncated")]
