import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.core.config_fields import FIELDS
from permix_jax.train.advantages import (
    group_advantages,
    group_ids,
    share_without_spread,
    summed_advantages,
)

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


@pytest.mark.parametrize("baseline", FIELDS["grpo.advantage_baseline"].rule.choices)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("reward", [1, 0.95, 1 / 3, 1e-8, -0.1])
def test_equal_rewards_teach_nothing(scale, baseline, reward):
    """Exactly: the mean of eight times 0.95 in f32 is not 0.95."""
    rewards, groups = np.float32([reward] * 8 + [0, 0, 0]), np.array([0] * 8 + [1] * 3)
    assert not group_advantages(rewards, groups, scale, baseline).any()


def test_one_reward_unlike_the_others_in_f32():
    rewards = np.float32([0] + [0.95] * 7)
    got = group_advantages(rewards, np.zeros(8, int), "none")
    np.testing.assert_array_equal(got, np.float32([-0.95 * 7 / 8] + [0.95 / 8] * 7))


def test_leave_one_out_by_hand():
    """Each reward less the mean of the others; one without others, or without a verdict, has 0."""
    rewards = np.float32([1, 0, 0, 4, 2, NAN, 9])
    got = group_advantages(rewards, np.array([0, 0, 0, 1, 1, 1, 2]), "none", "leave_one_out")
    np.testing.assert_allclose(got, [1, -0.5, -0.5, 2, -2, 0, 0], rtol=1e-6)


def test_leave_one_out_is_unbiased_and_the_group_mean_is_not():
    """Over all groups of 3 of 2 actions, E[A grad log pi] is the policy gradient, or 2/3 of it."""
    p, rewards_of = 0.3, np.float32([2.0, 5.0])
    slopes = np.array([1 - p, -p])  # of log pi by the logit of action 0
    exact = (np.array([p, 1 - p]) * rewards_of * slopes).sum()
    for baseline, factor in (("leave_one_out", 1), ("group_mean", 2 / 3)):
        total = 0.0
        for actions in itertools.product((0, 1), repeat=3):
            actions = np.array(actions)
            rewards, group = rewards_of[actions], np.zeros(3, int)
            got = group_advantages(rewards, group, "none", baseline)
            total += np.where(actions == 0, p, 1 - p).prod() * (got * slopes[actions]).mean()
        assert total == pytest.approx(factor * exact, rel=1e-6)


def test_rewards_that_are_normalised_each_before_they_are_summed():
    """GDPO: two terms of one group; the second varies ten times as much and counts no more."""
    values = np.array([[1, 10], [0, 0], [1, 0], [0, 10]])
    groups, weights = np.zeros(4, int), [1.0, 1.0]

    def each(rewards):
        return group_advantages(rewards, groups[: len(rewards)], "group")

    got = summed_advantages(values, weights, each)
    # Normalised: [1, -1, 1, -1] + [1, -1, -1, 1] = [2, -2, 0, 0], whose deviation is sqrt(2).
    np.testing.assert_allclose(got, np.array([2, -2, 0, 0]) / np.sqrt(2), atol=2e-4)
    np.testing.assert_allclose(
        summed_advantages(values, [1.0, 0.0], each), [1, -1, 1, -1], rtol=1e-3
    )
    unknown = np.array([[1, 10], [0, 0], [NAN, 0], [0, 10]])
    got = summed_advantages(unknown, weights, each)
    without = summed_advantages(values[[0, 1, 3]], weights, each)
    assert got[2] == 0
    np.testing.assert_array_equal(got[[0, 1, 3]], without)


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
