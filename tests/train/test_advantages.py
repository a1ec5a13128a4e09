import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.core.config_fields import FIELDS
from permix_jax.train.advantages import group_advantages, group_ids, share_without_spread

SCALES = FIELDS["grpo.advantage_scale"].rule.choices
NAN = math.nan


def advantages(rewards, groups, scale):
    return group_advantages(np.array(rewards, np.float32), np.array(groups), scale)


# Group 7 has mean 1/4 and deviation sqrt(3)/4, group 3 has mean 2 and deviation 2. All six have
# mean 5/6, mean square 17/6 and so variance 17/6 - 25/36 = 77/36. Of known 1, 0, 1 it is 2/9.
CENTRED, GROUP = np.array([0.75, -0.25, -0.25, -0.25, 2, -2]), [math.sqrt(3) / 4] * 4 + [2, 2]
HALVES = np.array([0.5, 0, -0.5, 0, 0])


@pytest.mark.parametrize(
    ("rewards", "groups", "scale", "expected"),
    [
        ([1, 0, 0, 0, 4, 0], [7, 7, 7, 7, 3, 3], "none", CENTRED),
        ([1, 0, 0, 0, 4, 0], [7, 7, 7, 7, 3, 3], "group", CENTRED / (np.array(GROUP) + 1e-4)),
        ([1, 0, 0, 0, 4, 0], [7, 7, 7, 7, 3, 3], "batch", CENTRED / (math.sqrt(77) / 6 + 1e-4)),
        # A reward without a verdict has advantage 0 and is in no mean.
        ([1, NAN, 0, NAN, 1], [0, 0, 0, 1, 1], "none", HALVES),
        ([1, NAN, 0, NAN, 1], [0, 0, 0, 1, 1], "group", HALVES / 0.5001),
        ([1, NAN, 0, NAN, 1], [0, 0, 0, 1, 1], "batch", HALVES / (math.sqrt(2) / 3 + 1e-4)),
    ],
)
def test_by_hand(rewards, groups, scale, expected):
    got = advantages(rewards, groups, scale)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
def test_what_teaches_nothing(scale):
    assert not advantages([1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1], scale).any()
    assert advantages([NAN, NAN, NAN], [0, 0, 1], scale).tolist() == [0, 0, 0]


@pytest.mark.parametrize("scale", SCALES)
def test_the_others_have_the_advantages_of_a_batch_without_it(scale):
    rewards = np.array([1, NAN, 0, 0.5, 1, 0, NAN, 0.25], np.float32)
    groups, known = np.repeat([0, 1], 4), ~np.isnan(rewards)
    got = group_advantages(rewards, groups, scale)
    alone = group_advantages(rewards[known], groups[known], scale)
    np.testing.assert_array_equal(got[known], alone)


def test_the_group_of_a_problem_spans_personas_and_that_of_problem_persona_does_not():
    problem = np.array([0, 0, 0, 0, 1, 1], np.int32)
    persona = np.array([-1, -1, 2, 2, -1, -1], np.int32)
    rewards = np.array([1, 1, 0, 0, 1, 0], np.float32)

    shared = group_ids("problem", problem, persona)
    np.testing.assert_allclose(
        group_advantages(rewards, shared, "none"), [0.5, 0.5, -0.5, -0.5, 0.5, -0.5]
    )
    apart = group_ids("problem_persona", problem, persona)
    assert len(np.unique(apart)) == 3
    np.testing.assert_allclose(group_advantages(rewards, apart, "none"), [0, 0, 0, 0, 0.5, -0.5])


def test_share_without_spread():
    groups = np.array([0, 0, 1, 1, 2, 2, 3])
    rewards = np.array([1, 1, 0, 1, 0, 0, 1], np.float32)
    assert share_without_spread(rewards, groups) == 3 / 4


# Eighths are exact in binary, so that a shift by a whole number loses nothing.
batches = st.lists(st.tuples(st.integers(0, 3), st.integers(-16, 16)), min_size=1, max_size=24)
scales = st.sampled_from(SCALES)


@settings(deadline=None)
@given(batch=batches, scale=scales, shift=st.integers(-8, 8), data=st.data())
def test_groups_sum_to_zero_whatever_the_order_and_a_shift_of_all_rewards(
    batch, scale, shift, data
):
    groups, eighths = np.array(batch).T
    got = advantages(eighths / 8, groups, scale)
    for group in np.unique(groups):
        members = got[groups == group]
        assert abs(members.sum()) <= 1e-6 * (1 + np.abs(members).sum())
    np.testing.assert_allclose(advantages(eighths / 8 + shift, groups, scale), got, atol=1e-6)
    order = np.array(data.draw(st.permutations(range(len(batch)))))
    moved = advantages(eighths[order] / 8, groups[order], scale)
    np.testing.assert_allclose(moved, got[order], atol=1e-6)
