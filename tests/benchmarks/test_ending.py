"""What decoding computes as rows end, with slots that rollouts take over or not: by hand."""

import math

import pytest
from ending import Plan, factors_table, steps_with_slots, work
from hypothesis import given
from hypothesis import strategies as st
from settings import lengths, median_of


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


def test_the_median_that_cuts_off_a_share():
    median = median_of(16384, 0.1)
    assert median == round(16384 * math.exp(-0.75 * 1.28155))
    assert sum(n == 16384 for n in lengths(1000, 16384, median)) == 100


ENDS = [8, 1, 2, 4, 3, 3, 1, 8]


@pytest.mark.parametrize(
    ("plan", "rows"),
    [
        (Plan(), 8 * 8),
        (Plan(halvings=1), 8 * 3 + 4 * 5),
        (Plan(halvings=2), 8 * 3 + 4 * 1 + 2 * 4),  # 4 run after 3 steps, 2 after 4
        (Plan(halvings=3), 8 * 3 + 4 * 1 + 2 * 4),  # the last two end together
        (Plan(parts=2), 4 * 8 + 4 * 8),
        (Plan(parts=2, halvings=1), 4 * 2 + 2 * 6 + 4 * 3 + 2 * 5),
        # Shards [8, 1, 2, 4] and [3, 3, 1, 8]: 2 run in each after 3 steps, 1 after 4.
        (Plan(halvings=2, shards=2), 8 * 3 + 4 * 1 + 2 * 4),
        (Plan(halvings=1, shards=4), 8 * 3 + 4 * 5),  # of [3, 3] one runs for 3 steps
        (Plan(halvings=4), 8 * 3 + 4 * 1 + 2 * 4),  # 8 rows have three halves
        (Plan(slots=8), 8 * 8),
        (Plan(slots=2), 2 * steps_with_slots(ENDS, 2)),
    ],
)
def test_row_steps(plan, rows):
    assert work(ENDS, plan)[0] == rows


def test_keys_that_are_read():
    """8 rows for 3 steps, 4 for one, 2 for four; a prompt of 10 tokens."""
    plan, prompts = Plan(halvings=2), 36 * 10
    assert work(ENDS, plan, 10) == (36, prompts + 36 * 8)
    exact = 8 * (1 + 2 + 3) + 4 * 4 + 2 * (5 + 6 + 7 + 8)
    assert work(ENDS, plan, 10, range(1, 9)) == (36, prompts + exact)
    staged = 8 * (2 + 2 + 4) + 4 * 4 + 2 * 4 * 8
    assert work(ENDS, plan, 10, [2, 4, 8]) == (36, prompts + staged)


def test_slots_read_what_their_own_rows_need_and_when_idle_the_least():
    idle = 2 * steps_with_slots(ENDS, 2) - sum(ENDS)
    needed = sum(n * 10 + n * (n + 1) // 2 for n in ENDS)
    assert work(ENDS, Plan(slots=2), 10, range(1, 9))[1] == needed + 11 * idle


@given(
    st.lists(st.integers(1, 20), min_size=8, max_size=8),
    st.integers(0, 4),
    st.sampled_from([1, 2, 4]),
)
def test_a_halving_computes_no_more_and_never_less_than_the_tokens(ends, halvings, parts):
    found = [work(ends, Plan(parts, n))[0] for n in (halvings, halvings + 1)]
    assert len(ends) * max(ends) >= found[0] >= found[1] >= sum(ends)


def test_three_halvings_compute_a_third_more_than_the_long_presets_tokens_need():
    """A tenth of 128 rows at the limit. Keys need a cache in finer stages than doubling."""
    ends = lengths(128, 16384, median_of(16384, 0.1))
    table = factors_table(ends, 1024)
    (line,) = [line.split()[-4:] for line in table.splitlines() if "4 parts, 3" in line]
    rows, whole, doubled, sixteenths = map(float, line)
    assert rows < 1.3 and sixteenths < 1.5 < doubled < 2 < whole
