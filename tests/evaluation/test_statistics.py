import numpy as np
import pytest

from permix_jax.evaluation.stability import pss_min_over_max
from permix_jax.evaluation.statistics import (
    bootstrap_weights,
    percentile_interval,
    pooled_means,
    require_axes,
    t_interval,
)

NAN = float("nan")


def test_each_resample_draws_as_many_items_as_there_are():
    weights = bootstrap_weights(7, 50, np.random.default_rng(0))
    assert weights.shape == (50, 7)
    assert (weights.sum(axis=1) == 7).all()


def test_pooled_means_by_hand():
    values = np.array([[[1, 0], [1, NAN]], [[0, 0], [NAN, NAN]]])  # [group 2, item 2, sample 2]
    weights = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    means = pooled_means(values, weights)
    np.testing.assert_allclose(means, [[2 / 3, 0], [1 / 2, 0], [1, NAN]])


def test_pooled_means_equal_the_means_of_the_items_drawn():
    rng = np.random.default_rng(1)
    values = rng.random((3, 10, 2))
    drawn = rng.integers(0, 10, size=(5, 10))
    weights = np.stack([np.bincount(row, minlength=10) for row in drawn]).astype(float)
    expected = [values[:, row].mean(axis=(1, 2)) for row in drawn]
    np.testing.assert_allclose(pooled_means(values, weights), expected)


def test_percentile_interval_leaves_out_undefined_resamples():
    assert percentile_interval(np.array([*np.linspace(0, 1, 41), NAN])) == pytest.approx(
        [0.025, 0.975]
    )
    with pytest.raises(ValueError, match="no bootstrap resample is scorable"):
        percentile_interval(np.array([NAN]))


def test_t_interval_by_hand():
    mean, half_width = t_interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert half_width == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)  # t table, 2 degrees


def test_t_interval_of_one_seed_has_no_width():
    mean, half_width = t_interval([0.5])
    assert mean == 0.5 and np.isnan(half_width)


def test_require_axes_names_the_array_and_its_axes():
    with pytest.raises(ValueError, match=r"correct has shape \(2, 0\): .*\[problem, sample\]"):
        require_axes("correct", np.zeros((2, 0)), "problem", "sample")


def simulated_run(rng: np.random.Generator, accuracies, problems: int) -> np.ndarray:
    """[persona, problem, 1] with exactly these expected accuracies; problems are hard in common."""
    shape = (len(accuracies), problems)
    difficulty = np.where(rng.random(shape) < 0.5, rng.random(problems), rng.random(shape))
    return (difficulty < np.reshape(accuracies, (-1, 1))).astype(float)[..., None]


@pytest.mark.parametrize(
    ("statistic", "truth"),
    [(lambda means: means.mean(axis=-1), 0.65), (pss_min_over_max, 0.4 / 0.9)],
    ids=["mean accuracy", "PSS"],
)
def test_bootstrap_interval_covers_the_truth_95_times_in_100(statistic, truth):
    rng = np.random.default_rng(2)
    covered = []
    for _ in range(1000):
        values = simulated_run(rng, (0.4, 0.6, 0.7, 0.9), problems=150)
        resampled = statistic(pooled_means(values, bootstrap_weights(150, 400, rng)))
        low, high = percentile_interval(resampled)
        covered.append(low <= truth <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_t_interval_covers_the_truth_95_times_in_100():
    draws = np.random.default_rng(3).normal(1.0, 0.2, size=(4000, 3))
    intervals = [t_interval(seeds) for seeds in draws]
    covered = [abs(mean - 1.0) <= half_width for mean, half_width in intervals]
    assert 0.93 <= np.mean(covered) <= 0.97
