from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from permix_jax.evaluation.lottery import expected_best, expected_worst


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_equals_the_mean_over_all_subsets(accuracy):
    subsets = [list(combinations(accuracy, k)) for k in range(1, len(accuracy) + 1)]
    best = [np.mean([max(s) for s in group]) for group in subsets]
    worst = [np.mean([min(s) for s in group]) for group in subsets]
    np.testing.assert_allclose(expected_best(np.array(accuracy)), best, atol=1e-12)
    np.testing.assert_allclose(expected_worst(np.array(accuracy)), worst, atol=1e-12)


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


def test_ends_and_order():
    accuracy = np.random.default_rng(1).random((3, 9))
    best, worst = expected_best(accuracy), expected_worst(accuracy)
    assert best.shape == (3, 9)
    np.testing.assert_allclose(best[:, 0], accuracy.mean(axis=1))
    np.testing.assert_allclose(worst[:, 0], accuracy.mean(axis=1))
    np.testing.assert_allclose(best[:, -1], accuracy.max(axis=1))
    np.testing.assert_allclose(worst[:, -1], accuracy.min(axis=1))
    assert (np.diff(best) >= 0).all() and (np.diff(worst) <= 0).all()
