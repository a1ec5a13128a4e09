import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from permix_jax.personagym.scores import alpha, coincidences

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


def test_two_judges_by_hand():
    """Units (1, 1), (1, 2): coincidences 11 twice, 12 and 21 once; Do = 2/4, De = 6/12 of 3 * 1."""
    assert krippendorff_alpha(np.array([[1, 1], [1, 2.0]])) == pytest.approx(1 - 3 * 2 / 6)


ratings = arrays(float, (3, 6), elements=st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.0, np.nan]))


@given(ratings)
def test_it_is_one_less_observed_over_expected_disagreement(values):
    """By the definition: pairs within units against pairs over all ratings."""

    def distance(a, b):
        return (a - b) ** 2

    units = [unit[~np.isnan(unit)] for unit in values.T]
    units = [unit for unit in units if unit.size > 1]
    everything = [value for unit in units for value in unit]
    n = len(everything)
    expected = sum(distance(a, b) for a, b in itertools.permutations(everything, 2))
    assume(expected > 0)
    observed = sum(
        sum(distance(a, b) for a, b in itertools.permutations(unit, 2)) / (len(unit) - 1)
        for unit in units
    )
    result = krippendorff_alpha(values)
    assert result == pytest.approx(1 - (observed / n) / (expected / (n * (n - 1))))


@given(ratings)
def test_order_of_judges_and_units_does_not_matter(values):
    for ordinal in (False, True):
        mixed = krippendorff_alpha(values[::-1, ::-1], ordinal)
        np.testing.assert_allclose(mixed, krippendorff_alpha(values, ordinal), atol=1e-12)


def test_full_agreement_is_one_and_opposition_is_negative():
    same = np.array([[1, 2, 3, 4, 5.0]] * 2)
    assert krippendorff_alpha(same) == 1
    assert krippendorff_alpha(np.array([[1, 5, 1, 5], [5, 1, 5, 1.0]])) < 0


@pytest.mark.parametrize(
    "values", [np.full((2, 3), 4.0), np.array([[1, _], [_, 2]]), np.full((2, 2), _)]
)
def test_it_is_not_defined_without_two_values_or_two_judges_of_a_unit(values):
    assert np.isnan(krippendorff_alpha(values))
