import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from permix_jax.stats.stability import (
    PSS,
    disagreement,
    disagreement_with_itself,
    disagreement_with_plain,
    flip_rate_any,
    pss_formula,
    pss_mean_over_plain,
    pss_min_over_max,
    pss_one_minus_cv,
    pss_one_minus_range,
    pss_worst_over_plain,
    rescored,
    stability,
)

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
    assert result["accuracy_no_persona_ci95"] == pytest.approx([4 / (4 + 1.959964**2), 1])
    assert result["flip_rate_any"] == 0.5  # problems 1 and 2 of 4
    assert result["flip_rate"] == pytest.approx((2 / 3 + 2 / 3) / 4)  # 2 of the 3 pairs in each
    assert result["flip_rate_plain"] == pytest.approx(1 - 0.5)  # plain is always right
    assert result["flip_rate_same_persona"] is None
    assert [entry["accuracy"] for entry in result["per_persona"]] == [0.75, 0.25, 0.5]


def test_unscorable_answers_do_not_count():
    result = measure([[[1, NAN], [0, 1]], [[1, 1], [NAN, NAN]]], plain=[[NAN], [1]])
    assert [entry["n"] for entry in result["per_persona"]] == [3, 2]
    assert [entry["accuracy"] for entry in result["per_persona"]] == pytest.approx([2 / 3, 1])
    assert result["accuracy_no_persona"] == 1


@pytest.mark.parametrize("name", ["min_over_max", "mean_over_plain"])
def test_pss_is_not_defined_where_nothing_is_right(name):
    """0 / 0: null in the file. One right answer under one persona is enough for 0 / x."""
    nothing = measure(np.zeros((2, 3, 1)), pss=PSS[name])
    assert (nothing["pss"], nothing["pss_ci95"]) == (None, None)
    assert nothing["pss_note"].startswith("0 / 0")
    assert nothing["accuracy_best"] == 0 and nothing["accuracy_best_ci95"][1] > 0
    json.dumps(nothing, allow_nan=False)
    one = measure([[[0.0], [0.0]], [[0.0], [1.0]]], plain=[[1.0], [1.0]], pss=PSS[name])
    assert one["pss"] == {"min_over_max": 0, "mean_over_plain": 0.25}[name]
    assert len(one["pss_ci95"]) == 2 and "pss_note" not in one


def test_one_minus_range_is_defined_where_nothing_is_right():
    assert measure(np.zeros((2, 3, 1)), pss=pss_one_minus_range)["pss"] == 1


def test_flip_rate_any_averages_over_samples():
    # Two problems. Sample 0: the first flips. Sample 1: none does, and the second is unscorable.
    correct = np.array([[[1, 1], [0, NAN]], [[0, 1], [0, NAN]]], float)
    assert flip_rate_any(correct) == pytest.approx(1 / 3)


def test_disagreement_by_hand():
    # Pass rates 1, 1/2 and 0: the pairs differ with probability 1/2, 1 and 1/2.
    correct = np.array([[[1, 1]], [[1, 0]], [[0, 0]]], float)
    assert disagreement(correct) == pytest.approx([2 / 3])
    assert disagreement_with_plain(correct, np.array([[1.0, 1.0]])) == pytest.approx([0.5])
    # Two answers differ never, always (1 of 1 pair) and never.
    assert disagreement_with_itself(correct) == pytest.approx([1 / 3])
    assert np.isnan(disagreement(correct * [[[1]], [[NAN]], [[NAN]]])).all()


def test_disagreement_beyond_sampling_is_the_squared_distance_of_pass_rates():
    rng = np.random.default_rng(0)
    rates = np.array([0.2, 0.5, 0.9])
    correct = (rng.random((3, 20_000, 2)) < rates[:, None, None]).astype(float)
    excess = (disagreement(correct) - disagreement_with_itself(correct)).mean()
    expected = np.mean([(a - b) ** 2 for a, b in ((0.2, 0.5), (0.2, 0.9), (0.5, 0.9))])
    assert excess == pytest.approx(expected, abs=0.02)


def test_personas_that_answer_alike_have_an_interval_of_no_width():
    row = (np.random.default_rng(0).random((50, 1)) < 0.7).astype(float)
    result = measure([row, row, row])
    assert result["pss"] == 1
    assert result["pss_ci95"] == pytest.approx([1, 1])  # only because it is paired
    assert result["accuracy_range_ci95"] == pytest.approx([0, 0])
    assert result["accuracy_mean_ci95"] == pytest.approx(result["accuracy_no_persona_ci95"])
    assert result["accuracy_mean_ci95"][0] < result["accuracy_mean_ci95"][1]


def simulated(rng: np.random.Generator, accuracies, problems: int) -> np.ndarray:
    """[persona, problem, 1] with exactly these expected accuracies; problems are hard in common."""
    shape = (len(accuracies), problems)
    difficulty = np.where(rng.random(shape) < 0.5, rng.random(problems), rng.random(shape))
    return (difficulty < np.reshape(accuracies, (-1, 1))).astype(float)[..., None]


@pytest.mark.parametrize(
    ("accuracies", "most"),
    [((0.4, 0.6, 0.7, 0.9), 0.985), ((0.6,) * 8, 1.0), ((0.95,) * 8, 1.0)],
    ids=["apart", "all 0.6", "all 0.95"],
)
def test_interval_of_the_score_covers_the_truth(accuracies, most):
    """300 runs: at 0.95 the standard error is 0.0126, and 0.915 lies 2.8 of them below.

    No upper bound where all are equal: the truth is at the end of the range, above the estimate.
    """
    rng, truth = np.random.default_rng(2), min(accuracies) / max(accuracies)
    covered = []
    for _ in range(300):
        correct = simulated(rng, accuracies, problems=150)
        low, high = measure(correct, resamples=200, seed=rng.integers(1 << 30))["pss_ci95"]
        covered.append(low <= truth <= high + 1e-9)
    assert 0.915 <= np.mean(covered) <= most


def test_formulas_by_hand_and_by_name():
    accuracy, plain = np.array([[0.2, 0.8], [0.0, 0.0]]), np.array([0.25, 0.0])
    np.testing.assert_allclose(pss_min_over_max(accuracy, plain), [0.25, NAN])
    np.testing.assert_allclose(pss_mean_over_plain(accuracy, plain), [2, NAN])
    np.testing.assert_allclose(pss_one_minus_range(accuracy, plain), [0.4, 1])
    np.testing.assert_allclose(pss_worst_over_plain(accuracy, plain), [0.8, NAN])
    np.testing.assert_allclose(pss_one_minus_cv(accuracy, plain), [1 - 0.3 / 0.5, NAN])
    assert all(pss_formula(name) is formula for name, formula in PSS.items())
    with pytest.raises(ValueError, match="eval.pss is 'worst'; use one of min_ov"):
        pss_formula("worst")


@pytest.mark.parametrize("name", PSS)
def test_each_formula_lies_in_its_interval(name):
    plain, *correct = simulated(np.random.default_rng(3), (0.7, 0.5, 0.8, 0.9), 300)
    result = measure(correct, plain, pss=PSS[name])
    low, high = result["pss_ci95"]
    assert low < result["pss"] < high < low + 0.4


def test_another_formula_is_read_from_the_file_alone():
    correct = simulated(np.random.default_rng(4), (0.5, 0.8, 0.9), 100)
    file = measure(correct)
    file |= {"by_set": {"heldout": measure(correct[:2], plain=correct[0])}, "lottery": {"k": [1]}}
    for name, formula in PSS.items():
        found = rescored(file, formula)
        assert found["pss"] == pytest.approx(measure(correct, pss=formula)["pss"]), name
        alone = measure(correct[:2], plain=correct[0], pss=formula)
        assert found["by_set"]["heldout"]["pss"] == pytest.approx(alone["pss"])
        assert "pss_ci95" not in found and found["lottery"] == {"k": [1]}
    assert rescored(measure(np.zeros((2, 3, 1))), pss_min_over_max)["pss"] is None


def test_worst_over_plain_is_unbounded_where_plain_may_be_nothing():
    plain, correct = np.zeros((30, 1)), np.ones((2, 30, 1))
    plain[0] = 1
    result = measure(correct, plain, pss=pss_worst_over_plain)
    assert result["pss"] == 30 and result["pss_ci95"] is None


def test_another_formula_can_be_passed():
    result = measure([[[1.0], [1.0]], [[1.0], [0.0]]], pss=lambda a, plain: a[..., 1] / plain)
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
    if correct.any():
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
    assert result["pss"] == (1 if row.any() else None)
    assert result["flip_rate_any"] == 0


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
