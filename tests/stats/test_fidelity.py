import json

import numpy as np
import pytest

from permix_jax.stats.fidelity import rule_fidelity


def test_by_hand():
    role_play = np.array([[[1, 1], [1, 0]], [[0, 0], [1, 0]]], bool)  # 4 of 8
    arithmetic = np.array([[[1], [1], [1]], [[1], [1], [1]]], bool)
    result = rule_fidelity({"role_play": role_play, "arithmetic": arithmetic}, ["a", "b"])
    assert result["fidelity"] == 0.75  # tasks weigh the same, whatever their size
    # All six of three prompts: Wilson's interval of 3 in 3, n / (n + 1.96^2) = 3 / 6.84, to 1.
    assert result["by_task"]["arithmetic"]["fidelity_ci95"] == pytest.approx([0.4385, 1], abs=1e-4)
    played = result["by_task"]["role_play"]
    assert played["fidelity"] == 0.5 and played["n"] == 8
    found = [(e["persona"], e["fidelity"], e["n"]) for e in played["per_persona"]]
    assert found == [("a", 0.75, 4), ("b", 0.25, 4)]
    (low, high), other = (e["fidelity_ci95"] for e in played["per_persona"])
    assert [1 - high, 1 - low] == pytest.approx(other)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_interval_has_the_width_of_the_standard_error():
    in_style = np.random.default_rng(1).random((1, 4000, 1)) < 0.8
    low, high = rule_fidelity({"role_play": in_style}, ["a"])["fidelity_ci95"]
    mean = in_style.mean()
    assert low < mean < high
    assert high - low == pytest.approx(2 * 1.96 * np.sqrt(mean * (1 - mean) / 4000), rel=0.1)


def test_prompts_are_resampled_whole():
    """Ten personas that agree on every prompt are no more evidence than one."""
    row = np.random.default_rng(2).random((1, 100, 1)) < 0.8
    ids = [f"p{index}" for index in range(10)]
    one = rule_fidelity({"role_play": row}, ["p"])["fidelity_ci95"]
    ten = rule_fidelity({"role_play": np.repeat(row, 10, axis=0)}, ids)["fidelity_ci95"]
    assert ten == pytest.approx(one)


@pytest.mark.parametrize("value", [False, True])
def test_an_interval_has_a_width_where_all_responses_agree(value):
    in_style = {task: np.full((2, 12, 4), value) for task in ("role_play", "arithmetic")}
    result = rule_fidelity(in_style, ["a", "b"])
    for entry in (result, *result["by_task"].values(), result["by_task"]["role_play"]):
        low, high = entry["fidelity_ci95"]
        assert (low, high)[value] == pytest.approx(float(value), abs=1e-12)
        # Twelve prompts are twelve observations, whatever the number of answers to each.
        assert 0.15 < high - low < 0.25


@pytest.mark.parametrize(
    ("in_style", "ids", "message"),
    [
        ({}, ["a"], "in_style is empty"),
        ({"role_play": np.ones((1, 2), bool)}, ["a"], r"in_style\['role_play'\] has shape"),
        ({"role_play": np.ones((1, 0, 1), bool)}, ["a"], r"in_style\['role_play'\] has shape"),
        ({"role_play": np.ones((1, 2, 1))}, ["a"], "has dtype float64: give bool"),
        ({"role_play": np.ones((2, 2, 1), bool)}, ["a"], "give 2 different ids"),
    ],
)
def test_refuses(in_style, ids, message):
    with pytest.raises(ValueError, match=message):
        rule_fidelity(in_style, ids)
