import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from permix_jax.evaluation.stability import flip_rate, pss_min_over_max, stability

NAN = float("nan")


def measure(correct, plain=None, resamples=200, seed=0, **kwargs) -> dict:
    correct = np.asarray(correct, float)
    ids = [f"p{index}" for index in range(len(correct))]
    plain = correct[0] if plain is None else np.asarray(plain, float)
    return stability(correct, ids, plain, np.random.default_rng(seed), resamples, **kwargs)


def test_by_hand():
    correct = np.array([[1, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0]], float)[..., None]
    result = measure(correct, plain=[[1], [1], [1], [1]])
    assert result["pss"] == pytest.approx(0.25 / 0.75)
    assert result["accuracy_mean"] == pytest.approx(0.5)
    assert result["accuracy_worst"] == 0.25
    assert result["accuracy_best"] == 0.75
    assert result["accuracy_range"] == 0.5
    assert result["accuracy_std"] == pytest.approx(np.sqrt((0.0625 + 0.0625) / 3))
    assert result["accuracy_no_persona"] == 1
    assert result["accuracy_no_persona_ci95"] == [1, 1]
    assert result["flip_rate"] == 0.5  # problems 1 and 2 of 4
    assert [entry["accuracy"] for entry in result["per_persona"]] == [0.75, 0.25, 0.5]


def test_unscorable_answers_do_not_count():
    result = measure([[[1, NAN], [0, 1]], [[1, 1], [NAN, NAN]]], plain=[[NAN], [1]])
    assert [entry["n"] for entry in result["per_persona"]] == [3, 2]
    assert [entry["accuracy"] for entry in result["per_persona"]] == pytest.approx([2 / 3, 1])
    assert result["accuracy_no_persona"] == 1


def test_pss_is_zero_where_nothing_is_right():
    assert measure(np.zeros((2, 3, 1)))["pss"] == 0
    np.testing.assert_array_equal(pss_min_over_max(np.array([[0.0, 0.0], [0.0, 1.0]])), [0, 0])


def test_flip_rate_averages_over_samples():
    # Two problems. Sample 0: the first flips. Sample 1: none does, and the second is unscorable.
    correct = np.array([[[1, 1], [0, NAN]], [[0, 1], [0, NAN]]], float)
    assert flip_rate(correct) == pytest.approx(1 / 3)


def test_flip_rate_does_not_grow_with_samples():
    rng = np.random.default_rng(0)
    few, many = (rng.random((3, 4000, samples)) < 0.5 for samples in (1, 8))
    expected = 1 - 2 * 0.5**3
    assert flip_rate(few.astype(float)) == pytest.approx(expected, abs=0.03)
    assert flip_rate(many.astype(float)) == pytest.approx(expected, abs=0.03)


def test_personas_that_answer_alike_have_an_interval_of_no_width():
    row = (np.random.default_rng(0).random((50, 1)) < 0.7).astype(float)
    result = measure([row, row, row])
    assert result["pss"] == 1
    assert result["pss_ci95"] == [1, 1]  # only because the bootstrap is paired
    assert result["accuracy_mean_ci95"] == pytest.approx(result["accuracy_no_persona_ci95"])
    assert result["accuracy_mean_ci95"][0] < result["accuracy_mean_ci95"][1]


def test_equal_personas_with_few_problems_measure_below_one():
    """The bias that the docstring states, so that nobody reads the interval as covering 1."""
    correct = (np.random.default_rng(0).random((8, 200, 1)) < 0.95).astype(float)
    result = measure(correct)
    assert 0.92 < result["pss"] < 0.99
    assert result["pss_ci95"][1] < 1


def test_another_formula_can_be_passed():
    result = measure([[[1.0], [1.0]], [[1.0], [0.0]]], pss=lambda a: 1 - np.ptp(a, axis=-1))
    assert result["pss"] == 0.5


def test_same_generator_same_numbers_and_json_holds_them():
    correct = np.random.default_rng(1).integers(0, 2, (3, 20, 2))
    result = measure(correct)
    assert result == measure(correct) == json.loads(json.dumps(result, allow_nan=False))


scores = arrays(float, (3, 6, 2), elements=st.sampled_from([0.0, 1.0]))


@settings(max_examples=50, deadline=None)
@given(scores, st.permutations(range(3)))
def test_bounds_and_order(correct, order):
    result = measure(correct)
    shuffled = measure(correct[list(order)], plain=correct[0])
    low, high = result["pss_ci95"]
    assert 0 <= result["pss"] <= 1 and 0 <= low <= high <= 1
    assert 0 <= result["flip_rate"] <= 1
    assert result["accuracy_worst"] <= result["accuracy_mean"] + 1e-12
    assert result["accuracy_mean"] <= result["accuracy_best"] + 1e-12
    for key in ("pss", "pss_ci95", "accuracy_mean", "accuracy_std", "flip_rate"):
        assert shuffled[key] == pytest.approx(result[key])


@settings(max_examples=50, deadline=None)
@given(arrays(float, (6, 2), elements=st.sampled_from([0.0, 1.0])), st.integers(1, 4))
def test_equal_personas_are_perfectly_stable(row, personas):
    result = measure(np.stack([row] * personas))
    assert result["pss"] == (1 if row.any() else 0)
    assert result["flip_rate"] == 0


ONES = np.ones((2, 3, 1))


@pytest.mark.parametrize(
    ("correct", "ids", "plain", "message"),
    [
        (np.ones((2, 3)), ["a", "b"], ONES[0], r"correct has shape \(2, 3\)"),
        (np.ones((2, 0, 1)), ["a", "b"], ONES[0], r"correct has shape \(2, 0, 1\)"),
        (ONES, ["a", "b"], np.ones(3), r"correct_no_persona has shape \(3,\)"),
        (ONES, ["a", "b"], np.ones((4, 1)), "has 4 problems, correct 3"),
        (ONES, ["a"], ONES[0], "give 2 different ids"),
        (ONES, ["a", "a"], ONES[0], "give 2 different ids"),
        (ONES * 0.5, ["a", "b"], ONES[0], "a: values must be 0, 1 or NaN"),
        (ONES * NAN, ["a", "b"], ONES[0], "a: no answer is scorable"),
    ],
)
def test_refuses(correct, ids, plain, message):
    with pytest.raises(ValueError, match=message):
        stability(correct, ids, plain, np.random.default_rng(0))
