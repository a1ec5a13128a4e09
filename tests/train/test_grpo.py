"""A step of GRPO on rollouts of which some have impossible log-probs."""

import logging

import jax
import numpy as np
import pytest
from runs import metrics, run_tiny

from permix_jax.train.grpo import _Grpo, _over_updates
from permix_jax.train.loop import NonFiniteError
from permix_jax.train.rollouts import RolloutWorker

# The tiny policy is hardly ever right. A reward of the length gives its groups advantages.
SMALL = {"rewards__overlong": 1.0, "rewards__overlong_tokens": 12, "train__steps": 2}
SMALL |= {"task__num_test": 2, "eval__kl_responses": 0, "sft__steps": 5}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("grpo") / "cache"


@pytest.fixture
def broken_sampler(monkeypatch):
    """In step 2 rollout 7 has NaN at its first token, rollout 9 a log-prob above 0."""
    sample = RolloutWorker.sample

    def broken(self, params, step, *args):
        sampled = sample(self, params, step, *args)
        if step == 2:
            logprobs = sampled.batch.completions.logprobs
            logprobs[7, 0], logprobs[9, 0] = np.nan, 0.5
        return sampled

    monkeypatch.setattr(RolloutWorker, "sample", broken)


@pytest.mark.parametrize("kl_in", ["loss", "reward"])
def test_rollouts_with_impossible_log_probs_are_named_and_left_out(
    cache, tmp_path, caplog, broken_sampler, kl_in
):
    with caplog.at_level(logging.WARNING, "permix_jax.train.log"):
        run_tiny(tmp_path / "run", cache=cache, grpo__kl_in=kl_in, **SMALL)
    said = [r.getMessage() for r in caplog.records if r.name == "permix_jax.train.log"]
    assert said == [
        "step 2: 2 of 64 rollouts are left out of the loss, first rollout 7: its token 0 was "
        "sampled with log-prob nan, not a number up to 0; use model.dtype=float32, or lower "
        "train.learning_rate"
    ]
    first, second = metrics(tmp_path / "run")
    for row in first, second:
        assert np.isfinite(list(row.values())).all() and row["grad_norm"] > 0
    assert second["sampling/logp_difference_max"] < 1e-4


def test_metrics_of_a_step_are_over_the_tokens_of_all_its_mini_batches():
    """The first of three mini-batches is dead; the two epochs have the same metrics but for a."""
    rows = [
        {"a": 0.0, "loss": 0.0, "sampling/logp_difference": 0.0, "sampling/x_max": 0.0},
        {"a": 4.0, "loss": 3.0, "sampling/logp_difference": 0.5, "sampling/x_max": 0.7},
        {"a": 2.0, "loss": 6.0, "sampling/logp_difference": 0.9, "sampling/x_max": 1.0},
    ]
    second = [row | {"a": 2 * row["a"], "own_max": row["a"]} for row in rows]
    first = [row | {"own_max": 9.0} for row in rows]
    assert _over_updates([*first, *second], [0, 30, 10]) == {
        "a": (8 * 30 + 4 * 10) / 40, "loss": 3.0, "own_max": 4.0,
        "sampling/logp_difference": 0.5, "sampling/x_max": 0.7,
    }  # fmt: skip
    assert _over_updates(rows, [0, 0, 0])["a"] == 2.0


def test_warm_up_is_in_steps_whatever_updates_a_step_has(cache, tmp_path):
    fields = {"grpo__mini_batches": 4, "grpo__epochs": 2, "train__warmup_steps": 3}
    fields |= {"train__learning_rate": 1e-3, "train__steps": 4}
    workdir = run_tiny(tmp_path / "run", cache=cache, **SMALL | fields)
    rates = [row["learning_rate"] for row in metrics(workdir)]
    # The last of 8 updates of a step: (8 step) / 25 of the peak, for the warm-up has 24 updates.
    np.testing.assert_allclose(rates, [8e-3 / 25, 16e-3 / 25, 24e-3 / 25, 1e-3], rtol=1e-5)


def test_a_policy_that_is_no_longer_finite_ends_the_run(cache, tmp_path, monkeypatch):
    """All of its rollouts are left out, but that is not a step that taught nothing."""
    update = _Grpo.step

    def spoiling(self, state, step):
        state, row = update(self, state, step)
        return state.replace(params=jax.tree.map(lambda x: x * np.nan, state.params)), row

    monkeypatch.setattr(_Grpo, "step", spoiling)
    with pytest.raises(NonFiniteError, match="step 2: grad_norm is nan"):
        run_tiny(tmp_path / "run", cache=cache, **SMALL)
