import numpy as np
import pytest

from permix_jax.stats.corrected import corrected_figures, noise_variance, without_noise
from permix_jax.stats.stability import (
    accuracy_figures,
    pss_min_over_max,
    pss_worst_over_plain,
    with_plain_first,
)
from permix_jax.stats.statistics import bootstrap_weights, gather_means

# What accuracy the personas have; half of a problem's difficulty is common to all.
EQUAL, APART = np.full(16, 0.7), 0.7 + 0.05 * np.linspace(-1.5, 1.5, 16)


def simulated(rng, accuracies, problems: int = 150):
    shape = (len(accuracies) + 1, problems)
    difficulty = np.where(rng.random(shape) < 0.5, rng.random(problems), rng.random(shape))
    right = (difficulty < np.append(0.7, accuracies)[:, None]).astype(float)[..., None]
    return right[1:], right[0]


def test_by_hand():
    """Accuracies 0.2, 0.4, 0.6: a variance of 0.04. Without 0.03 of it, half as far apart."""
    accuracy = np.array([0.2, 0.4, 0.6])
    np.testing.assert_allclose(without_noise(accuracy, 0.03), [0.3, 0.4, 0.5])
    np.testing.assert_allclose(without_noise(accuracy, 0.0), accuracy)
    np.testing.assert_allclose(without_noise(accuracy, 0.05), [0.4, 0.4, 0.4])
    both = np.stack([accuracy, accuracy[::-1] / 2])
    np.testing.assert_allclose(without_noise(both, 0.0075), [[0.4 - 0.2 * 0.8125**0.5, 0.4,
                               0.4 + 0.2 * 0.8125**0.5], [0.25, 0.2, 0.15]])  # fmt: skip
    np.testing.assert_allclose(without_noise(np.array([0.5, 0.5]), 0.01), [0.5, 0.5])
    assert without_noise(np.array([0.5]), 0.01) == 0.5


def test_noise_by_hand():
    """Two personas, problems 1 and 2: right, wrong against right, right. Only their difference."""
    correct = np.array([[[1.0], [0.0], [1.0], [0.0]], [[1.0], [1.0], [0.0], [0.0]]])
    means = gather_means(with_plain_first(correct, correct[0]))
    # Differences by problem 0, -1, 1, 0, of sample variance 2/3; of their mean 1/6; half of it is
    # what the variance of the two grows by.
    assert noise_variance(means) == pytest.approx(1 / 12)
    alike = gather_means(with_plain_first(correct[[0, 0]], correct[0]))
    assert noise_variance(alike) == pytest.approx(0)
    assert noise_variance(gather_means(with_plain_first(correct[:1], correct[0]))) == 0


@pytest.mark.parametrize("accuracies", [EQUAL, APART])
def test_the_noise_is_what_the_variance_over_personas_grows_by(accuracies):
    rng, grown, noise = np.random.default_rng(0), [], []
    for _ in range(400):
        means = gather_means(with_plain_first(*simulated(rng, accuracies)))
        grown.append(means.estimate[1:].var(ddof=1) - accuracies.var(ddof=1))
        noise.append(noise_variance(means))
    assert np.mean(noise) == pytest.approx(np.mean(grown), rel=0.1)


@pytest.mark.parametrize(("accuracies", "bias"), [(EQUAL, 0.4), (APART, 0.3)])
def test_the_bias_is_less_than_half_and_the_interval_covers(accuracies, bias):
    """200 runs: at 0.95 the standard error is 0.015; 0.9 lies 3.2 of them below."""
    rng, found, measured, covered = np.random.default_rng(1), [], [], []
    truth = accuracy_figures(accuracies, np.float64(0.7), pss_min_over_max)
    for _ in range(200):
        correct, plain = simulated(rng, accuracies)
        weights = bootstrap_weights(len(plain), 200, rng)
        figures = corrected_figures(correct, plain, weights, pss_min_over_max)
        found.append([figures[name].value - truth[name] for name in figures])
        as_measured = correct.mean(axis=(1, 2))
        raw = accuracy_figures(as_measured, plain.mean(), pss_min_over_max)
        measured.append([raw[name] - truth[name] for name in figures])
        limits = [figures[name].interval for name in figures]
        covered.append(
            [low <= truth[n] <= high for n, (low, high) in zip(figures, limits, strict=True)]
        )
    assert (np.abs(np.mean(found, axis=0)) < bias * np.abs(np.mean(measured, axis=0))).all()
    assert (np.mean(covered, axis=0) >= 0.9).all()


def test_an_undefined_score_and_one_above_1():
    weights = bootstrap_weights(20, 50, np.random.default_rng(0))
    nothing = corrected_figures(np.zeros((2, 20, 1)), np.zeros((20, 1)), weights, pss_min_over_max)
    assert np.isnan(nothing["pss"].value) and nothing["pss"].interval is None
    assert nothing["accuracy_worst"].interval == [0, 0]
    plain = np.tile([[1.0], [0.0]], (10, 1))
    score = corrected_figures(np.ones((2, 20, 1)), plain, weights, pss_worst_over_plain)["pss"]
    assert score.value == 2 and score.interval[1] > 2
