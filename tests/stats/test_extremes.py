import numpy as np
import pytest
from scipy.stats import norm

from permix_jax.stats import extremes
from permix_jax.stats.extremes import (
    best_interval,
    range_interval,
    ratio_interval,
    worst_interval,
)
from permix_jax.stats.statistics import Means, bootstrap_weights, gather_means


def independent(accuracies, problems: int, resamples: int = 4000) -> Means:
    """Personas whose estimates are these accuracies, with independent binomial noise."""
    accuracies = np.array(accuracies, float)
    variances = accuracies * (1 - accuracies) / problems
    noise = np.random.default_rng(0).normal(size=(resamples, len(accuracies)))
    return Means(
        accuracies,
        accuracies + noise * np.sqrt(variances),
        np.diag(variances),
        np.full(len(accuracies), problems),
        problems,
    )


def wilson(p: float, n: int, z: float = norm.ppf(0.975)) -> tuple[float, float]:
    half, centre = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)), p + z**2 / (2 * n)
    return (centre - half) / (1 + z**2 / n), (centre + half) / (1 + z**2 / n)


def test_far_apart_the_extremes_are_those_of_their_own_persona():
    means = independent([0.1, 0.5, 0.9], 5000)
    assert worst_interval(means) == pytest.approx(wilson(0.1, 5000), abs=0.002)
    assert best_interval(means) == pytest.approx(wilson(0.9, 5000), abs=0.002)
    both = np.array([-1.96, 1.96])
    spread = np.sqrt(2 * 0.09 / 5000)
    assert range_interval(means) == pytest.approx(0.8 + both * spread, abs=0.002)
    spread = 0.1 / 0.9 * np.sqrt(0.09 / 5000 * (1 / 0.01 + 1 / 0.81))  # the delta method
    assert ratio_interval(means) == pytest.approx(0.1 / 0.9 + both * spread, abs=0.002)


def test_upper_limit_of_the_worst_counts_the_personas():
    means = independent([0.5] * 20, 400)
    factor = norm.ppf(0.975 ** (1 / 20))  # 20 independent deviations
    low, high = worst_interval(means)
    assert low == pytest.approx(wilson(0.5, 400)[0])
    assert high == pytest.approx(wilson(0.5, 400, factor)[1], abs=0.004)


def test_order_of_personas_does_not_matter():
    rng = np.random.default_rng(1)
    correct = (rng.random((6, 80, 2)) < np.linspace(0.3, 0.8, 6)[:, None, None]).astype(float)
    weights = bootstrap_weights(80, 300, rng)
    for interval in (ratio_interval, range_interval, worst_interval, best_interval):
        straight = interval(gather_means(correct, weights))
        assert interval(gather_means(correct[::-1], weights)) == pytest.approx(straight)


def test_nothing_right_is_no_proof_of_zero():
    correct = np.zeros((3, 50, 1))
    correct[2, :40] = 1
    means = gather_means(correct, bootstrap_weights(50, 300, np.random.default_rng(2)))
    low, high = ratio_interval(means)
    assert low == 0 and 0.02 < high < 0.2
    assert worst_interval(means)[1] > 1 - 0.05 ** (1 / 50)  # the exact bound at 95 %
    nothing = gather_means(correct[:2], bootstrap_weights(50, 300, np.random.default_rng(2)))
    assert ratio_interval(nothing) == [0, 1]


def test_many_personas_are_taken_in_parts(monkeypatch):
    means = independent(np.linspace(0.4, 0.8, 30), 200, resamples=2000)
    whole = ratio_interval(means)
    monkeypatch.setattr(extremes, "_CHUNK", 1000)
    assert ratio_interval(means) == pytest.approx(whole)
    monkeypatch.setattr(extremes, "_WORK", 900 * 500)  # a quarter of them
    assert ratio_interval(means) == pytest.approx(whole, abs=0.01)
