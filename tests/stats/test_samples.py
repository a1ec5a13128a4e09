"""pass@k, average@k and majority@k: by hand, against all subsets, and their bounds."""

import json
from collections import Counter
from fractions import Fraction
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from permix_jax.stats.samples import (
    average_at,
    majority_at,
    pass_at,
    samples_figures,
    subset_sizes,
)
from permix_jax.stats.stability import stability
from permix_jax.stats.statistics import bootstrap_weights

NAN = float("nan")


def majority_of(right, stated) -> Fraction:
    """Whether the majority of these answers is right; ties count as their share."""
    votes = Counter("right" if r else s for r, s in zip(right, stated, strict=True) if r or s >= 0)
    first = [answer for answer in votes if votes[answer] == max(votes.values())]
    return Fraction("right" in first, max(1, len(first)))


def over_subsets(right, stated, k) -> tuple[float, float]:
    """pass@k and majority@k of one problem, from every subset of k of its answers."""
    subsets = list(combinations(range(len(right)), k))
    passed = [any(right[i] for i in subset) for subset in subsets]
    won = [majority_of([right[i] for i in s], [stated[i] for i in s]) for s in subsets]
    return sum(passed) / len(subsets), float(sum(won) / len(subsets))


@pytest.mark.parametrize(
    ("samples", "sizes"), [(1, [1]), (2, [1, 2]), (5, [1, 2, 4, 5]), (8, [1, 2, 4, 8])]
)
def test_sizes_are_powers_of_two_and_the_number_of_samples(samples, sizes):
    assert subset_sizes(samples) == sizes


def test_pass_at_k_by_hand():
    """1 of 4 right: C(3, 2) / C(4, 2) = 3 / 6 of the pairs have none; 2 of 4 right: 1 / 6."""
    correct = np.array([[1, 0, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], float)
    np.testing.assert_allclose(pass_at(correct, 1), [0.25, 0.5, 0, 1])
    np.testing.assert_allclose(pass_at(correct, 2), [1 / 2, 5 / 6, 0, 1])
    np.testing.assert_array_equal(pass_at(correct, 4), [1, 1, 0, 1])


def test_majority_at_k_by_hand():
    """Answers: right, right, 3, 3, 5, none.

    Of all 6, two answers have two votes each: 1 / 2. Of the 15 pairs: the 1 of two right ones and
    the 2 of a right one and none win; the 6 of a right one and a wrong one count 1 / 2.
    """
    correct, stated = np.array([[1.0, 1, 0, 0, 0, 0]]), np.array([[7, 7, 3, 3, 5, -1]])
    assert majority_at(correct, stated, 6) == pytest.approx([0.5])
    assert majority_at(correct, stated, 2) == pytest.approx([(1 + 2 + 6 / 2) / 15])
    assert majority_at(correct, stated, 1) == pytest.approx([2 / 6])


def test_right_answers_are_one_answer_and_wrong_ones_are_told_apart():
    correct = np.array([[1.0, 1, 0, 0]])
    for written, chance in ([1, 2, 5, 6], 1), ([1, 2, 5, 5], 0.5), ([-1, 1, -1, -1], 1):
        assert majority_at(correct, np.array([written]), 4) == [chance]
    nothing = np.zeros((1, 4))
    assert majority_at(nothing, np.full((1, 4), -1), 4) == [0]
    assert majority_at(nothing, np.array([[1, 1, 2, 3]]), 4) == [0]


def test_an_answer_without_a_verdict_is_left_out():
    correct, stated = np.array([[1, 0, NAN, NAN], [NAN] * 4]), np.array([[1, 2, 3, 3], [1] * 4])
    np.testing.assert_array_equal(average_at(correct), [0.5, NAN])
    for k, expected in (1, 0.5), (2, 1), (4, NAN):
        np.testing.assert_array_equal(pass_at(correct, k), [expected, NAN])
    for k, expected in (1, 0.5), (2, 0.5), (4, NAN):
        np.testing.assert_array_equal(majority_at(correct, stated, k), [expected, NAN])


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=7), st.integers(1, 7))
def test_both_are_the_mean_over_all_subsets(answers, k):
    """Answer 0 is the right one."""
    right, k = [answer == 0 for answer in answers], min(k, len(answers))
    passed, won = over_subsets(right, answers, k)
    correct, stated = np.array([right], float), np.array([answers])
    assert pass_at(correct, k) == pytest.approx([passed])
    assert majority_at(correct, stated, k) == pytest.approx([won])


@pytest.mark.parametrize("k", [1, 2, 3])
def test_unbiased_by_enumeration(k):
    """Over all draws of n = 4 answers, each from (right, a, b, none), the mean of the estimate is
    the chance of k fresh draws."""
    chances = (0.4, 0.3, 0.2, 0.1)  # of answers 0 (right), 1, 2 and -1
    answers = (0, 1, 2, -1)

    def expected(n, of):
        draws = list(product(range(4), repeat=n))
        weights = [np.prod([chances[i] for i in draw]) for draw in draws]
        return np.dot(weights, of(np.array([[answers[i] for i in draw] for draw in draws])))

    def passed(drawn):
        return pass_at((drawn == 0).astype(float), k)

    def won(drawn):
        return majority_at((drawn == 0).astype(float), drawn, k)

    def truth(drawn):
        return [float(majority_of(row == 0, row)) for row in drawn]

    assert expected(4, passed) == pytest.approx(1 - 0.6**k)
    assert expected(4, won) == pytest.approx(expected(k, truth))


@st.composite
def problems(draw):
    samples = draw(st.integers(1, 20))
    answers = st.lists(st.integers(-1, 4), min_size=samples, max_size=samples)
    stated = np.array(draw(st.lists(answers, min_size=1, max_size=4)))
    return (stated == 0).astype(float), stated


@given(problems())
def test_bounds(drawn):
    correct, stated = drawn
    accuracy, samples = correct.mean(axis=-1), correct.shape[-1]
    by_k = np.array([pass_at(correct, k) for k in range(1, samples + 1)])
    majority = np.array([majority_at(correct, stated, k) for k in range(1, samples + 1)])
    np.testing.assert_allclose(by_k[0], accuracy)
    np.testing.assert_allclose(majority[0], accuracy, atol=1e-12)
    assert (np.diff(by_k, axis=0) >= -1e-12).all()
    np.testing.assert_array_equal(by_k[-1], accuracy > 0)
    assert (majority >= 0).all() and (majority <= by_k + 1e-12).all()


def test_many_samples():
    """One right answer of 1000, and each of the others once: all k tie, so it wins 1 / k of the
    times that it is drawn, k / 1000. Beyond that many the subsets are not counted."""
    correct, stated = np.zeros((1, 1001)), np.arange(1001)[None]
    correct[0, 0] = 1
    for k in (1, 500, 1000):
        assert majority_at(correct[:, :1000], stated[:, :1000], k) == pytest.approx([1 / 1000])
    assert np.isnan(majority_at(correct, stated, 1))
    assert pass_at(correct, 500) == pytest.approx([500 / 1001])
    figures = samples_figures(np.stack([correct, correct]), None, ["p"], np.ones((2, 1)))
    assert "majority@1" not in figures and figures["pass@1001"]["mean"] == 1


def random_answers(samples=4, personas=3, problems=40):
    rng = np.random.default_rng(3)
    stated = rng.choice(4, size=(1 + personas, problems, samples), p=[0.5, 0.2, 0.2, 0.1]) - 1
    return (stated == 0).astype(float), stated, [f"p{i}" for i in range(personas)]


def test_figures_of_one_answer_are_those_of_accuracy():
    """At k = 1, with the intervals; and average@n."""
    correct, stated, ids = random_answers()
    draws = np.random.default_rng(0)
    expected = stability(correct[1:], ids, correct[0], draws, resamples=200)
    weights = bootstrap_weights(40, 200, np.random.default_rng(0))
    figures = samples_figures(correct, stated, ids, weights)
    measures = ["average@4", *(f"{of}@{k}" for of in ("pass", "majority") for k in (1, 2, 4))]
    assert list(figures) == measures
    json.dumps(figures, allow_nan=False)
    for measure in ("average@4", "pass@1", "majority@1"):
        of = figures[measure]
        for name in ("mean", "worst", "no_persona"):
            assert of[name] == pytest.approx(expected[f"accuracy_{name}"])
            assert of[f"{name}_ci95"] == pytest.approx(expected[f"accuracy_{name}_ci95"])
        for entry, one in zip(of["per_persona"], expected["per_persona"], strict=True):
            assert entry["persona"] == one["persona"] and entry["n"] == one["n"]
            assert entry["value"] == pytest.approx(one["accuracy"])
            assert entry["value_ci95"] == pytest.approx(one["accuracy_ci95"])


def test_figures_are_means_and_the_worst_over_personas():
    correct, stated, ids = random_answers()
    figures = samples_figures(
        correct, stated, ids, bootstrap_weights(40, 50, np.random.default_rng(1))
    )
    by_persona = {
        "pass@2": pass_at(correct, 2).mean(axis=1),
        "majority@4": majority_at(correct, stated, 4).mean(axis=1),
    }
    for measure, (plain, *values) in by_persona.items():
        of = figures[measure]
        assert of["no_persona"] == pytest.approx(plain)
        assert of["mean"] == pytest.approx(np.mean(values))
        assert of["worst"] == pytest.approx(min(values))
        assert [entry["value"] for entry in of["per_persona"]] == pytest.approx(values)
        for name in ("mean", "worst", "no_persona"):
            low, high = of[f"{name}_ci95"]
            assert 0 <= low <= of[name] and low < high <= 1


def test_a_problem_without_verdicts_is_left_out():
    correct, stated, ids = random_answers()
    weights = bootstrap_weights(40, 50, np.random.default_rng(1))
    correct[:, 7] = NAN
    with_nan = samples_figures(correct, stated, ids, weights)
    without = samples_figures(
        np.delete(correct, 7, axis=1), np.delete(stated, 7, axis=1), ids, weights[:, :39]
    )
    for measure, of in with_nan.items():
        assert of["mean"] == pytest.approx(without[measure]["mean"])
        assert [e["n"] for e in of["per_persona"]] == [39 * 4] * 3
