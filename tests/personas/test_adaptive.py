import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.core.persona import Persona
from permix_jax.personas.adaptive import SMALLEST_SPREAD, initial, metrics, update, weights

NAN = math.nan
SIZE = 5
PERSONAS = [Persona(f"p{i}", f"P{i}", f"You are P{i}.", "test", "train") for i in range(SIZE)]
floors = st.floats(0.01, 1)
decays = st.floats(0, 0.99)
rollouts = st.lists(
    st.tuples(st.integers(-1, SIZE - 1), st.sampled_from([0.0, 1.0, NAN])), max_size=40
)
runs = st.lists(rollouts, max_size=6)


def step(state, pairs, decay=0.9):
    index, correct = zip(*pairs, strict=True) if pairs else ((), ())
    return update(state, np.array(index, np.int32), np.array(correct, np.float32), decay)


def after(run, decay=0.9):
    state = initial(SIZE)
    for pairs in run:
        state = step(state, pairs, decay)
    return state


def seen(accuracy):
    """A state in which every persona has been seen once."""
    accuracy = np.array(accuracy, np.float32)
    return {"accuracy": accuracy, "count": np.ones_like(accuracy)}


def assert_same(left, right):
    assert left.keys() == right.keys() == {"accuracy", "count"}
    for name in left:
        assert left[name].dtype == np.float32
        np.testing.assert_array_equal(left[name], right[name])


# The running accuracy


def test_the_first_step_sets_the_accuracy():
    state = step(initial(3), [(0, 1), (0, 0), (0, 0), (0, 1), (2, 1), (-1, 0)])
    assert_same(state, {"accuracy": np.float32([0.5, 0, 1]), "count": np.float32([1, 0, 1])})


@given(batches=st.lists(st.lists(st.booleans(), min_size=1), min_size=1, max_size=8), decay=decays)
def test_the_running_accuracy_is_the_weighted_mean_of_its_steps(batches, decay):
    state = initial(2)
    for batch in batches:
        state = step(state, [(1, float(right)) for right in batch], decay)
    means = [np.mean(batch) for batch in batches]
    powers = decay ** np.arange(len(batches))[::-1]
    assert state["accuracy"][1] == pytest.approx(np.sum(powers * means) / powers.sum(), abs=1e-6)
    np.testing.assert_array_equal(state["count"], [0, len(batches)])
    assert state["accuracy"][0] == 0


@given(run=runs, pairs=rollouts, decay=decays)
def test_only_personas_that_a_step_saw_move(run, pairs, decay):
    before, graded = after(run), {index for index, right in pairs if not math.isnan(right)}
    now = step(before, pairs, decay)
    for index in range(SIZE):
        assert now["count"][index] == before["count"][index] + (index in graded)
        if index not in graded:
            assert now["accuracy"][index] == before["accuracy"][index]


@given(run=runs, pairs=rollouts, decay=decays)
def test_unreadable_golds_and_plain_prompts_teach_nothing(run, pairs, decay):
    before = after(run)
    graded = [(index, right) for index, right in pairs if index >= 0 and not math.isnan(right)]
    assert_same(step(before, pairs, decay), step(before, graded, decay))
    assert_same(step(before, [(-1, 1.0), (2, NAN)], decay), before)


@given(run=runs, data=st.data())
def test_the_order_of_rollouts_within_a_step_does_not_matter(run, data):
    shuffled = [data.draw(st.permutations(pairs)) for pairs in run]
    assert_same(after(run), after(shuffled))


@given(run=runs, cut=st.integers(0, 6))
def test_a_saved_state_goes_on_as_if_it_had_not_been_saved(run, cut):
    state = after(run[:cut])
    for values in state.values():
        values.flags.writeable = False  # no update writes into the state it is given
    for pairs in run[cut:]:
        state = step(state, pairs)
    assert_same(state, after(run))


# Weights


def test_weights_by_hand():
    np.testing.assert_allclose(weights(seen([0, 0.5, 1]), 0.25), [1, 0.625, 0.25])
    np.testing.assert_allclose(weights(seen([0.2, 0.4, 0.3]), 0.5), [1, 0.5, 0.75], rtol=1e-6)
    np.testing.assert_allclose(weights(seen([0.3, 0.3, 0.3]), 0.25), [1, 1, 1])
    np.testing.assert_allclose(weights(seen([0.30, 0.35]), 0.2), [1, 1 - 0.8 / 2], rtol=1e-5)


def test_personas_not_yet_seen_weigh_as_much_as_the_worst():
    state = step(initial(4), [(1, 1), (2, 0)])
    np.testing.assert_allclose(weights(state, 0.25), [1, 0.25, 1, 1])
    np.testing.assert_array_equal(weights(initial(4), 0.25), np.ones(4))
    assert weights(initial(0), 0.25).shape == (0,)


@given(run=runs, floor=floors)
def test_the_worse_a_persona_the_higher_its_weight(run, floor):
    state = after(run)
    known = state["count"] > 0
    order = np.argsort(state["accuracy"][known])
    assert (np.diff(weights(state, floor)[known][order]) <= 0).all()


@given(accuracy=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=9), floor=floors)
def test_weights_lie_between_the_floor_and_one(accuracy, floor):
    values = weights(seen(accuracy), floor)
    assert values.max() == 1
    assert values.min() >= floor
    if np.ptp(np.float32(accuracy)) >= SMALLEST_SPREAD:
        assert values.min() == pytest.approx(floor)


@settings(max_examples=50)
@given(a=st.floats(0, 1), b=st.floats(0, 1), floor=floors, by=st.floats(0, 1e-3))
def test_a_small_change_of_accuracy_is_a_small_change_of_weight(a, b, floor, by):
    before, after = (weights(seen([a, min(1, b + more)]), floor) for more in (0, by))
    np.testing.assert_allclose(before, after, atol=2 * by / SMALLEST_SPREAD + 1e-5)


# Metrics


def test_metrics_by_hand():
    values = np.array([1, 0.25, 0.25, 0.25, 0.25])
    assert metrics(values, PERSONAS, ["p1", "p0", "p1"]) == {
        "persona/p0/weight": 1.0,
        "persona/p1/weight": 0.25,
        "personas/weight_max_over_min": 4.0,
        # One of probability 1/2 and four of 1/8.
        "personas/weight_entropy": pytest.approx(0.5 * math.log(2) + 0.5 * math.log(8)),
    }
    logged = metrics(np.ones(SIZE), PERSONAS, [])
    assert logged["personas/weight_entropy"] == pytest.approx(math.log(SIZE))
    assert all(type(value) is float for value in logged.values())
