"""Slots that rollouts take over: by hand, and no faster than can be."""

from ending import steps_with_slots
from hypothesis import given
from hypothesis import strategies as st


def test_a_rollout_takes_the_first_slot_that_is_free():
    ends = [3, 1, 2, 2]
    assert steps_with_slots(ends, 1) == 8
    assert steps_with_slots(ends, 2) == 5  # 3 and then 2; 1 and then 2
    assert steps_with_slots(ends, 4) == 3


@given(st.lists(st.integers(1, 20), min_size=1, max_size=20), st.integers(1, 8))
def test_no_slot_is_idle_but_at_the_end(ends, slots):
    steps = steps_with_slots(ends, slots)
    assert steps >= max(max(ends), sum(ends) / slots)
    assert steps <= sum(ends) / slots + max(ends)
