from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from permix_jax.stats.lottery import expected_best, expected_worst, lottery
from permix_jax.stats.statistics import wilson_limits


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_equals_the_mean_over_all_subsets(accuracy):
    subsets = [list(combinations(accuracy, k)) for k in range(1, len(accuracy) + 1)]
    best = [np.mean([max(s) for s in group]) for group in subsets]
    worst = [np.mean([min(s) for s in group]) for group in subsets]
    twice = np.array([accuracy, accuracy])
    np.testing.assert_allclose(expected_best(twice), [best, best], atol=1e-12)
    np.testing.assert_allclose(expected_worst(twice), [worst, worst], atol=1e-12)


def test_a_thousand_personas_match_exact_fractions():
    n = 1000
    accuracy = np.linspace(0, 1, n)
    best = expected_best(np.random.default_rng(0).permutation(accuracy))
    for k in (1, 2, 17, 500, 999, 1000):
        exact = sum(Fraction(i - 1, n - 1) * comb(i - 1, k - 1) for i in range(k, n + 1))
        assert best[k - 1] == pytest.approx(float(exact / comb(n, k)), rel=1e-12)
    # Equally spaced ranks: the expected greatest of k of 1..n is k (n + 1) / (k + 1).
    k = np.arange(1, n + 1)
    np.testing.assert_allclose(best, (k * (n + 1) / (k + 1) - 1) / (n - 1), rtol=1e-11)


def test_the_band_of_one_persona_is_wilsons():
    correct = np.array([1.0, 1, 1, 0, 1, 0, 1, 1]).reshape(1, 8, 1)
    found = lottery(correct)
    low, high = wilson_limits(np.array([0.75]), np.array([0.75 * 0.25 / 8]), 8, np.array([8]))
    assert found["k"] == [1] and found["expected_best"] == found["expected_worst"] == [0.75]
    np.testing.assert_allclose(found["expected_best_ci95"], [[low[0], high[0]]])
    assert found["expected_worst_ci95"] == found["expected_best_ci95"]


def test_bands_hold_the_estimates_and_end_at_the_limits_of_the_extremes():
    skills = np.reshape([0.3, 0.5, 0.6, 0.9], (4, 1, 1))
    correct = (np.random.default_rng(2).random((4, 50, 2)) < skills) * 1.0
    found = lottery(correct)
    for name in ("expected_best", "expected_worst"):
        low, high = np.transpose(found[f"{name}_ci95"])
        assert (low < found[name]).all() and (found[name] < high).all()
    alone = lottery(correct[3:])["expected_best_ci95"][0]
    low, high = found["expected_best_ci95"][3]
    assert low < alone[0] and alone[1] < high  # four at once are wider than one


def test_bands_hold_the_truth_for_all_k_at_once():
    truth, rng = np.array([0.5, 0.5, 0.52, 0.55]), np.random.default_rng(3)
    expected = np.stack([expected_best(truth), expected_worst(truth)])
    missed = 0
    for _ in range(200):
        found = lottery((rng.random((4, 100, 1)) < truth[:, None, None]) * 1.0)
        limits = np.array([found["expected_best_ci95"], found["expected_worst_ci95"]])
        missed += not ((limits[..., 0] <= expected) & (expected <= limits[..., 1])).all()
    assert missed <= 20  # of 200; 10 are meant, and 20 have a chance below 0.2 %
