import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import binomtest, permutation_test

from permix_jax.stats.paired import (
    Graded,
    compare_policies,
    over_seeds,
    persona_effects,
    sign_flip_test,
)

NAN = float("nan")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def answers(accuracies, problems: int, samples: int, seed: int) -> Graded:
    """Problems are equally hard for all seeds of the same number, personas and samples."""
    noise = rng(seed).random((len(accuracies), problems, samples))
    correct = (noise < np.reshape(accuracies, (-1, 1, 1))).astype(float)
    return Graded(correct, correct[0])


@given(arrays(float, (2, 12, 1), elements=st.sampled_from([0.0, 1.0])))
def test_sign_flip_of_one_sample_is_the_exact_mcnemar_test(correct):
    ours, theirs = correct
    only_ours, discordant = (ours > theirs).sum(), (ours != theirs).sum()
    expected = binomtest(only_ours, discordant).pvalue if discordant else 1.0
    assert sign_flip_test(ours, theirs) == pytest.approx(expected)


@settings(max_examples=20, deadline=None)
@given(arrays(float, (2, 7, 3), elements=st.sampled_from([0.0, 1.0])))
def test_sign_flip_of_several_samples_is_the_permutation_test_of_scipy(correct):
    ours, theirs = correct.sum(axis=2)
    expected = permutation_test(
        (ours, theirs),
        lambda x, y, axis: np.abs((x - y).sum(axis=axis)),
        permutation_type="samples",
        vectorized=True,
        alternative="greater",
    ).pvalue
    assert sign_flip_test(*correct) == pytest.approx(expected)


def test_sign_flip_leaves_out_what_is_unscorable():
    ours, theirs = np.array([[1, 1], [NAN, NAN], [1, NAN]]), np.array([[0, 0], [0, 0], [0, 1]])
    assert sign_flip_test(ours, theirs) == pytest.approx(0.5)  # differences 2, -, 1
    assert sign_flip_test(ours * NAN, theirs) == 1


def test_sign_flip_of_many_problems_stays_exact():
    ours, theirs = np.ones((1000, 1)), np.zeros((1000, 1))
    assert sign_flip_test(ours, theirs) == pytest.approx(2 * 0.5**1000, rel=1e-9)


def test_compare_policies_by_hand():
    correct = np.array([[[1], [1], [1], [0]], [[1], [0], [1], [0]]], float)
    other = np.array([[[1], [1], [0], [0]], [[1], [0], [0], [0]]], float)
    result = compare_policies(Graded(correct, correct[0]), Graded(other, other[0]), rng())
    pss = result["pss"]
    assert [pss["ours"], pss["theirs"]] == pytest.approx([2 / 3, 1 / 2])
    assert pss["difference"] == pytest.approx(1 / 6)
    assert result["accuracy_mean"]["difference"] == pytest.approx(0.625 - 0.375)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_policy_does_not_differ_from_itself():
    graded = answers((0.4, 0.6, 0.8), 60, 2, 0)
    figures = compare_policies(graded, graded, rng())
    for name, entry in figures.items():
        assert entry["difference"] == 0
        low, high = entry["difference_ci95"]
        assert low <= 1e-9 and high >= -1e-9, name
    assert figures["accuracy_mean"]["difference_ci95"] == pytest.approx([0, 0], abs=0.005)


def test_pairing_narrows_the_interval():
    ours, same = answers((0.5, 0.7), 300, 1, 1), answers((0.45, 0.65), 300, 1, 1)
    other = answers((0.45, 0.65), 300, 1, 2)

    def width(theirs: Graded) -> float:
        entry = compare_policies(ours, theirs, rng())["accuracy_mean"]
        return np.ptp(entry["difference_ci95"])

    assert width(same) < 0.6 * width(other)


def test_a_score_that_is_not_defined_has_no_difference():
    ours, theirs = answers((0.5, 0.7), 50, 1, 1), answers((0.0, 0.0), 50, 1, 1)
    entry = compare_policies(ours, theirs, rng())["pss"]
    assert entry["theirs"] is entry["difference"] is entry["difference_ci95"] is None
    assert entry["ours"] > 0


def test_interval_of_the_difference_covers_the_truth():
    """400 runs: at 0.95 the standard error is 0.011; the bounds are three of them off."""
    covered = []
    for run in range(400):
        noise = rng(run).random((2, 3, 100, 1)) * 0.6 + rng(run + 1000).random((100, 1)) * 0.4
        ours = (noise[0] < 0.55).astype(float)
        theirs = (noise[1] < 0.40).astype(float)
        both = (Graded(ours, ours[0]), Graded(theirs, theirs[0]))
        low, high = compare_policies(*both, rng(run), 200)["accuracy_mean"]["difference_ci95"]
        # P(0.6 U + 0.4 V < x) = (x - 0.2) / 0.6 for uniform U and V and 0.4 <= x <= 0.6.
        covered.append(low <= (0.55 - 0.40) / 0.6 <= high)
    assert 0.917 <= np.mean(covered) <= 0.983


def test_over_seeds_by_hand():
    estimates = np.array([0.3, 0.2, 0.4])
    mean, interval = over_seeds(estimates, np.full((5, 3), NAN), shared=False)
    half = 4.302653 * estimates.std(ddof=1) / np.sqrt(3)  # t table, 2 degrees
    assert mean == pytest.approx(0.3)
    assert interval == pytest.approx([0.3 - half, 0.3 + half])


def test_shared_problems_add_what_the_seeds_have_in_common():
    """Three seeds that answer alike: all the doubt is in the problems."""
    resampled = np.repeat(rng().normal(0.5, 0.1, (4000, 1)), 3, axis=1)
    _, (low, high) = over_seeds(np.full(3, 0.5), resampled, shared=True)
    assert high - low == pytest.approx(2 * 1.96 * 0.1, rel=0.05)
    assert np.ptp(over_seeds(np.full(3, 0.5), resampled, shared=False)[1]) == 0


def test_one_seed_has_no_interval_and_a_figure_that_is_not_finite_is_none():
    assert over_seeds(np.array([0.5]), np.full((5, 1), 0.5), shared=True) == (0.5, None)
    unknown = over_seeds(np.array([0.5, NAN]), np.full((5, 2), 0.5), shared=True)
    assert unknown == (None, None)


def test_persona_effects_are_ranked_and_adjusted():
    plain = np.ones((20, 1))
    harmful, harmless = plain.copy(), plain.copy()
    harmful[:10], harmless[0] = 0, 0
    first, second = persona_effects(np.stack([harmless, harmful]), plain, ["mild", "bad"])
    assert [first["persona"], second["persona"]] == ["bad", "mild"]
    assert [first["effect"], second["effect"]] == pytest.approx([-0.5, -0.05])
    assert [first["p"], second["p"]] == pytest.approx([2 * 0.5**10, 1])
    assert [first["p_adjusted"], second["p_adjusted"]] == pytest.approx([4 * 0.5**10, 1])
    half = 1.959964 * np.sqrt(0.25 / 19)
    assert first["effect_ci95"] == pytest.approx([-0.5 - half, -0.5 + half])


GRADED = answers((0.5, 0.7), 20, 2, 0)


@pytest.mark.parametrize(
    ("theirs", "message"),
    [
        (answers((0.5, 0.7), 21, 2, 0), r"ours has shape \(2, 20, 2\), theirs \(2, 21, 2\)"),
        (Graded(GRADED.correct * NAN, GRADED.plain), "theirs: 0: no answer is scorable"),
    ],
)
def test_refuses(theirs, message):
    with pytest.raises(ValueError, match=message):
        compare_policies(GRADED, theirs, rng())
    with pytest.raises(ValueError, match="sample both equally often"):
        persona_effects(GRADED.correct, GRADED.plain[:, :1], "ab")
