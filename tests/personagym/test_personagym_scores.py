import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from permix_jax.personagym.scores import alpha, coincidences, summarise_scores
from permix_jax.stats.statistics import bootstrap_weights

TASKS = ("Toxicity", "Wit")


def rows(scores):
    """Rows of scores {(judge, persona, task): [score, ...]}."""
    said = {"reply": "so", "truncated": False}
    return [
        {"judge": judge, "persona": persona, "task": task, "score": score, **said}
        for (judge, persona, task), values in scores.items()
        for score in values
    ]


def summary(scores, tasks=TASKS, resamples=200):
    return summarise_scores(rows(scores), tasks, np.random.default_rng(0), resamples)


def test_means_by_hand():
    result = summary({
        ("a", "nun", "Toxicity"): [5, None], ("a", "cook", "Toxicity"): [2, 2],
        ("a", "nun", "Wit"): [1], ("a", "cook", "Wit"): [2],
        ("b", "nun", "Toxicity"): [4, 4], ("b", "cook", "Toxicity"): [2, 2],
        ("b", "nun", "Wit"): [None], ("b", "cook", "Wit"): [4],
    })  # fmt: skip
    toxicity, wit = result["by_task"]
    assert (toxicity["n"], toxicity["asked"]) == (7, 8)
    assert toxicity["score"] == pytest.approx((9 / 3 + 12 / 4) / 2)
    assert wit["score"] == pytest.approx((3 / 2 + 4) / 2)
    assert result["persona_score"] == pytest.approx((3 + 2.75) / 2)
    assert result["answers"] == 6 and result["personas"] == 2
    first, second = result["by_judge"]
    assert first["by_task"] == {"Toxicity": 3.0, "Wit": 1.5} and first["persona_score"] == 2.25
    assert (first["n"], first["asked"], first["unreadable"]) == (5, 6, 1)
    assert second["unreadable_share"] == pytest.approx(1 / 6)
    nun, cook = result["per_persona"]
    assert nun == {"persona": "nun", "persona_score": pytest.approx(((5 + 4) / 2 + 1) / 2)}
    assert cook["persona_score"] == pytest.approx((2 + (2 + 4) / 2) / 2)
    assert result["agreement"]["answers"] == 4


def test_nothing_readable_is_none_and_not_a_number():
    result = summary({("a", "nun", "Toxicity"): [None], ("a", "cook", "Wit"): [3]})
    assert result["by_task"][0]["score"] is None and result["by_task"][0]["score_ci95"] is None
    assert result["persona_score"] is None and result["persona_score_ci95"] is None


def test_a_judge_that_reads_nothing_does_not_move_the_mean():
    scores = {("a", "nun", "Toxicity"): [2], ("a", "nun", "Wit"): [4]}
    alone = summary(scores)
    other = {("b", "nun", task): [None] for task in TASKS}
    assert summary(scores | other)["persona_score"] == alone["persona_score"] == 3
    assert alone["agreement"] is None and alone["persona_score_ci95"] is None


def test_the_interval_is_that_of_the_mean_over_personas():
    """One score each: the bootstrap's spread is the standard error of a mean of 200."""
    values = np.random.default_rng(1).integers(1, 6, 200).tolist()
    scores = {("a", f"p{i}", "Toxicity"): [value] for i, value in enumerate(values)}
    mean, error = np.mean(values), np.std(values) / np.sqrt(200)
    expected = [mean - 1.96 * error, mean + 1.96 * error]
    interval = summary(scores, ["Toxicity"], 4000)["persona_score_ci95"]
    assert interval == pytest.approx(expected, abs=0.02)


def test_the_interval_of_agreement_draws_whole_personas():
    """Against alpha of the drawn personas' answers, laid side by side as often as drawn."""
    rng = np.random.default_rng(3)
    names = ["a", "b", "c", "d"]
    values = rng.integers(1, 6, (2, len(names), len(TASKS), 3))  # judge, persona, task, answer
    scores = {
        (judge, persona, task): values[j, p, t].tolist()
        for j, judge in enumerate("xy")
        for p, persona in enumerate(names)
        for t, task in enumerate(TASKS)
    }
    alphas = []
    for counts in bootstrap_weights(len(names), 200, np.random.default_rng(0)).astype(int):
        drawn = np.repeat(values, counts, axis=1).reshape(2, -1)
        levels = np.arange(1.0, 6.0)
        alphas.append(alpha(coincidences(drawn, levels).sum(axis=0), levels))
    expected = np.percentile(alphas, [2.5, 97.5])
    assert summary(scores)["agreement"]["krippendorff_alpha_ci95"] == pytest.approx(expected)


def test_agreement_of_equal_judges_is_one_and_of_independent_ones_near_zero():
    rng = np.random.default_rng(2)
    scores = {}
    places = list(itertools.product(map(str, range(60)), TASKS))
    for place in places:
        scores["a", *place] = scores["b", *place] = rng.integers(1, 6, 3).tolist()
    assert summary(scores)["agreement"]["krippendorff_alpha"] == 1
    scores |= {("b", *place): rng.integers(1, 6, 3).tolist() for place in places}
    agreement = summary(scores)["agreement"]
    low, high = agreement["krippendorff_alpha_ci95"]
    assert low < agreement["krippendorff_alpha"] < high
    assert abs(agreement["krippendorff_alpha"]) < 0.15
    assert abs(agreement["krippendorff_alpha_ordinal"]) < 0.15
    assert agreement["answers"] == 60 * 2 * 3


# Krippendorff's alpha


_ = np.nan


def krippendorff_alpha(ratings, ordinal=False):
    """Of ratings [judge, unit]."""
    values = np.unique(ratings[~np.isnan(ratings)])
    return float(alpha(coincidences(ratings, values).sum(axis=0), values, ordinal))


# Krippendorff (2011), section C: four observers, twelve units, missing values.
WORKED = np.array(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, _, _, _],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, _, 3],
        [_, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, _],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, _],
    ]
)


@pytest.mark.parametrize(("ordinal", "value"), [(True, 0.815), (False, 0.849)])
def test_the_published_worked_example(ordinal, value):
    assert krippendorff_alpha(WORKED, ordinal) == pytest.approx(value, abs=0.0005)


def distances(values):
    return sum((a - b) ** 2 for a, b in itertools.permutations(values, 2))


ratings = arrays(float, (3, 6), elements=st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0, np.nan]))


@given(ratings)
def test_it_is_one_less_observed_over_expected_disagreement(values):
    """By the definition: pairs within units against pairs over all ratings."""

    units = [unit[~np.isnan(unit)] for unit in values.T]
    units = [unit for unit in units if unit.size > 1]
    n = sum(map(len, units))
    expected = distances([value for unit in units for value in unit])
    assume(expected > 0)
    observed = sum(distances(unit) / (len(unit) - 1) for unit in units)
    assert krippendorff_alpha(values) == pytest.approx(
        1 - (observed / n) / (expected / (n * (n - 1)))
    )


@given(ratings)
def test_order_of_judges_and_units_does_not_matter(values):
    for ordinal in (False, True):
        mixed = krippendorff_alpha(values[::-1, ::-1], ordinal)
        np.testing.assert_allclose(mixed, krippendorff_alpha(values, ordinal), atol=1e-12)


def test_opposition_is_negative():
    assert krippendorff_alpha(np.array([[1, 5, 1, 5], [5, 1, 5, 1.0]])) < 0


@pytest.mark.parametrize(
    "values", [np.full((2, 3), 4.0), np.array([[1, _], [_, 2]]), np.full((2, 2), _)]
)
def test_it_is_not_defined_without_two_values_or_two_judges_of_a_unit(values):
    assert np.isnan(krippendorff_alpha(values))
