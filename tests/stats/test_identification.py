import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from permix_jax.stats.identification import (
    agreement,
    draw_candidates,
    gain_per_token,
    identification,
    identified,
)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.integers(2, 9), st.data())
def test_candidates_are_the_own_and_different_others(personas, data):
    k = data.draw(st.integers(2, personas))
    own = np.array(data.draw(st.lists(st.integers(0, personas - 1), min_size=1, max_size=5)))
    drawn = draw_candidates(own, personas, k, seed=3)
    assert drawn.shape == (len(own), k)
    assert (drawn[:, 0] == own).all()
    assert all(len(set(row)) == k and set(row) <= set(range(personas)) for row in drawn)


def test_candidates_are_a_pure_function_of_seed_and_row():
    own = np.arange(20) % 7
    drawn = draw_candidates(own, 7, 3, seed=0)
    np.testing.assert_array_equal(drawn[:5], draw_candidates(own[:5], 7, 3, seed=0))
    assert (drawn != draw_candidates(own, 7, 3, seed=1)).any()


def test_candidates_are_uniform():
    drawn = draw_candidates(np.full(3000, 2), 6, 3, seed=0)[:, 1:]
    counts = np.bincount(drawn.ravel(), minlength=6)
    assert counts[2] == 0
    # 6000 draws over 5 others: 1200 each, standard deviation 27 (hypergeometric rows).
    assert (abs(np.delete(counts, 2) - 1200) < 120).all()


def test_identified_by_hand():
    logp = np.array([[-1, -2, -3], [-2, -1, -3], [-1, -1, -3], [-2, -2, -2]], float)
    np.testing.assert_allclose(identified(logp), [1, 0, 1 / 2, 1 / 3])


def test_identification_by_hand():
    logp = np.array([[-1, -2], [-1, -2], [-2, -1], [-1, -2]], float)
    result = identification(logp, np.array(["a", "a", "b", "c"]))
    assert result["share"] == 0.75 and result["chance"] == 0.5 and result["n"] == 4
    low, high = result["share_ci95"]
    assert 0 <= low < 0.75 < high <= 1


def test_identification_counts_clusters_not_responses():
    logp = np.where(rng().random((50, 1)) < 0.7, [[-1.0, -2.0]], [[-2.0, -1.0]])
    once = identification(logp, np.arange(50))["share_ci95"]
    tenfold = identification(np.repeat(logp, 10, axis=0), np.repeat(np.arange(50), 10))
    assert tenfold["share_ci95"] == pytest.approx(once)


def test_gain_per_token_by_hand():
    logp = np.array([[-4.0, -6.0, -8.0], [-2.0, -2.0, -2.0]])
    plain, lengths = np.array([-5.0, -3.0]), np.array([3, 1])
    result = gain_per_token(logp, plain, lengths, np.array([0, 1]))
    assert result["gain"] == pytest.approx(2 / 4)
    assert result["margin"] == pytest.approx(3 / 4)
    assert result["tokens"] == 4 and result["n"] == 2
    # Influences (1 - 3/2) / 4 and (1 - 1/2) / 4; the t quantile of one degree is 12.7062.
    half = 12.7062 * np.sqrt(2 * 2 * (1 / 8) ** 2)
    assert result["gain_ci95"] == pytest.approx([0.5 - half, 0.5 + half], rel=1e-5)


@pytest.mark.parametrize(("clusters", "most"), [(8, 0.99), (60, 0.979)])
def test_intervals_cover_the_truth(clusters, most):
    """500 runs: at 0.95 the standard error is 0.0097; the bounds are three of them off.

    With eight clusters the share's interval, never narrower than that of independent responses,
    holds more.
    """
    generator, covered = rng(1), {"share": [], "gain": []}
    for _ in range(500):
        cluster = np.repeat(np.arange(clusters), 5)
        skill = np.repeat(generator.normal(0, 0.5, clusters), 5)
        own = 1 + skill + generator.normal(0, np.sqrt(0.75), len(cluster))
        logp = np.stack([own, np.zeros(len(own))], axis=1)
        low, high = identification(logp, cluster)["share_ci95"]
        covered["share"].append(low <= 0.8413447 <= high)  # own is N(1, 1): P(own > 0)
        lengths = generator.integers(5, 20, len(own))
        low, high = gain_per_token(logp, np.zeros(len(own)), lengths, cluster)["gain_ci95"]
        covered["gain"].append(low <= 1 / 12 <= high)  # 5..19 have the mean 12
    for name, inside in covered.items():
        assert 0.921 <= np.mean(inside) <= most, name


def test_agreement_is_that_of_scipy():
    score = rng().integers(0, 6, 80).astype(float)
    in_style = score + rng(1).normal(0, 2, 80) > 2.5
    result = agreement(score, in_style, np.arange(80), rng())
    wins = mannwhitneyu(score[in_style], score[~in_style]).statistic
    assert result["auc"] == pytest.approx(wins / in_style.sum() / (~in_style).sum())
    assert result["correlation"] == pytest.approx(np.corrcoef(score, in_style)[0, 1])
    for name in ("auc", "correlation"):
        low, high = result[f"{name}_ci95"]
        assert low < result[name] < high


def test_agreement_resamples_what_a_repeated_sample_would_give():
    """Weights are counts: a score under weights is that of the responses drawn."""
    score, in_style = np.array([1.0, 2, 2, 3, 5]), np.array([False, True, False, False, True])
    cluster = np.array([0, 0, 1, 1, 1])  # both clusters hold both verdicts
    result = agreement(score, in_style, cluster, rng(), resamples=400)
    first, second = 1.0, 1.0  # the AUC within each cluster
    assert min(first, second, result["auc"]) <= result["auc_ci95"][0]
    assert result["auc"] == pytest.approx((2 / 3 - 1 / 6 + 1) / 2)


def test_agreement_at_the_ends():
    in_style = np.array([True, False] * 10)
    perfect = agreement(in_style.astype(float), in_style, np.arange(20), rng())
    assert perfect["auc"] == 1 and perfect["correlation"] == pytest.approx(1)
    blind = agreement(np.ones(20), in_style, np.arange(20), rng())
    assert blind["auc"] == 0.5 and blind["correlation"] == 0


LOGP, CLUSTER = np.array([[-1.0, -2.0], [-2.0, -1.0]]), np.array([0, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_candidates(np.array([0]), 3, 4, 0), "k is 4: choose 2 to 3"),
        (lambda: draw_candidates(np.array([3]), 3, 2, 0), r"own must be in 0\.\.2"),
        (lambda: identified(LOGP[:, :1]), "two candidates or more"),
        (lambda: identified(LOGP * np.nan), "no NaN"),
        (lambda: identification(LOGP, CLUSTER[:1]), "cluster has shape"),
        (lambda: identification(LOGP, CLUSTER * 0), "1 different labels"),
        (lambda: gain_per_token(LOGP, np.zeros(3), np.ones(2), CLUSTER), "plain has shape"),
        (lambda: gain_per_token(LOGP, np.zeros(2), np.zeros(2), CLUSTER), "lengths at least 1"),
        (lambda: agreement(np.ones(2), CLUSTER, CLUSTER, rng()), "bool of the same shape"),
        (lambda: agreement(np.ones(2), CLUSTER < 2, CLUSTER, rng()), "same for all responses"),
    ],
)
def test_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()
