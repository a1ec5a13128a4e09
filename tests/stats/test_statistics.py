import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from permix_jax.stats.statistics import (
    bootstrap_weights,
    gather_means,
    holm,
    percentile_interval,
    pooled_means,
    t_interval,
    two_way_interval,
    wilson_limits,
)

NAN = float("nan")


def test_each_resample_draws_as_many_items_as_there_are():
    weights = bootstrap_weights(7, 50, np.random.default_rng(0))
    assert weights.shape == (50, 7) and (weights.sum(axis=1) == 7).all()


def test_pooled_means_by_hand():
    values = np.array([[[1, 0], [1, NAN]], [[0, 0], [NAN, NAN]]])  # [group 2, item 2, sample 2]
    weights = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 2.0]])
    means = pooled_means(values, weights)
    np.testing.assert_allclose(means, [[2 / 3, 0], [1 / 2, 0], [1, NAN]])


def test_percentile_interval_leaves_out_undefined_resamples():
    resampled = np.array([*np.linspace(0, 1, 41), NAN])
    assert percentile_interval(resampled) == pytest.approx([0.025, 0.975])


def test_t_interval_by_hand():
    mean, half_width = t_interval([1.0, 2.0, 3.0])
    assert mean == 2
    assert half_width == pytest.approx(4.302653 / np.sqrt(3), rel=1e-6)  # t table, 2 degrees
    assert t_interval([0.5]) == (0.5, pytest.approx(NAN, nan_ok=True))  # one seed has no width


def test_percentile_interval_is_that_of_scipy():
    values = np.random.default_rng(4).random((1, 60, 1))
    weights = bootstrap_weights(60, 20_000, np.random.default_rng(5))
    ours = percentile_interval(pooled_means(values, weights)[:, 0])
    theirs = bootstrap(
        (values.ravel(),), np.mean, n_resamples=20_000, method="percentile", rng=6
    ).confidence_interval
    # Two draws of a 2.5 % point: its standard error is 0.02 standard errors of the mean.
    assert ours == pytest.approx(list(theirs), abs=0.1 * values.std() / np.sqrt(60))


def test_covariance_of_means_by_hand():
    values = np.array([[[1], [0], [1], [1]], [[1], [NAN], [0], [NAN]]], float)
    # Deviations over the number of values: (1, -3, 1, 1) / 16 and (1, 0, -1, 0) / 4.
    expected = [[12 / 256, 0], [0, 2 / 16]]
    np.testing.assert_allclose(gather_means(values).covariance, expected, atol=1e-12)


def test_covariance_of_means_is_what_the_bootstrap_estimates():
    rng = np.random.default_rng(6)
    values = (rng.random((3, 200, 2)) < rng.random((200, 1))).astype(float)
    values[0, :50, 1] = NAN
    resampled = pooled_means(values, bootstrap_weights(200, 20_000, rng))
    spread = gather_means(values).covariance
    np.testing.assert_allclose(np.cov(resampled, rowvar=False), spread, atol=0.05 * spread.max())


@given(st.integers(0, 40), st.integers(1, 40))
def test_wilson_limits_of_independent_answers_are_those_of_scipy(right, n):
    right = min(right, n)
    mean = np.array([right / n])
    low, high = wilson_limits(mean, mean * (1 - mean) / n, n, np.array([n]))
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert [low[0], high[0]] == pytest.approx([expected.low, expected.high], abs=1e-9)


def test_wilson_limits_count_items_where_their_answers_are_alike():
    mean, n = np.array([0.3]), 50
    alike = wilson_limits(mean, mean * (1 - mean) / n, n, np.array([4 * n]))
    single = wilson_limits(mean, mean * (1 - mean) / n, n, np.array([n]))
    np.testing.assert_allclose(alike, single)
    certain = wilson_limits(np.array([1.0]), np.zeros(1), n, np.array([4 * n]))
    expected = binomtest(n, n).proportion_ci(method="wilson").low
    assert certain[0][0] == pytest.approx(expected)  # four equal answers are no better than one


def test_two_way_interval_without_shared_noise_is_the_t_interval():
    seeds = np.array([1.0, 2.0, 4.0])
    resampled = np.tile(seeds, (10, 1))
    assert two_way_interval(seeds, resampled) == pytest.approx(t_interval(seeds))


def test_two_way_interval_of_equal_groups_is_that_of_their_items():
    shared = np.random.default_rng(7).normal(0, 0.1, size=(500, 1))
    mean, half = two_way_interval(np.full(3, 0.5), 0.5 + np.tile(shared, (1, 3)))
    assert mean == 0.5
    assert half == pytest.approx(1.959964 * shared.std(ddof=1), rel=1e-6)
    assert np.isnan(two_way_interval(np.ones(1), np.ones((5, 1)))[1])


def test_two_way_interval_covers_new_groups_on_new_items():
    rng = np.random.default_rng(8)
    covered = []
    for _ in range(1000):
        groups, items = rng.normal(0, 1, 5), rng.normal(0, 6, 60)
        values = groups[:, None] + items + rng.normal(0, 3, (5, 60))
        resampled = pooled_means(values[..., None], bootstrap_weights(60, 100, rng))
        mean, half = two_way_interval(values.mean(axis=1), resampled)
        covered.append(abs(mean) <= half)
    # 1000 runs: 0.95 has a standard error of 0.007, so 0.93 to 0.97 is three of them.
    assert 0.93 <= np.mean(covered) <= 0.97


def test_holm_by_hand():
    assert holm(np.array([0.01, 0.04, 0.03, 0.005])) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.array([0.6, 0.7])) == pytest.approx([1, 1])


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_lies_between_unadjusted_and_bonferroni(p_values):
    p_values = np.array(p_values)
    adjusted = holm(p_values)
    assert (p_values <= adjusted).all()
    assert (adjusted <= np.minimum(1, p_values * p_values.size) + 1e-12).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: holm(np.zeros(0)), r"p_values has shape \(0,\): .*\[test\]"),
        (lambda: percentile_interval(np.array([NAN])), "no bootstrap resample is scorable"),
        (lambda: two_way_interval(np.ones(3), np.ones((9, 2))), r"give \[resample, 3\]"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
