import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from permix_jax.core.sharding import make_mesh
from permix_jax.train.state import (
    TrainState,
    abstract_state,
    create_state,
    make_optimizer,
    make_step,
)


def schedule(decay, warmup=4, total=12, peak=1.0):
    return make_optimizer(peak, warmup, total, decay, 0.0, 1.0)[1]


# ---- learning rate --------------------------------------------------------------------------


@pytest.mark.parametrize("decay", ["none", "linear", "cosine"])
def test_warm_up_rises_to_the_peak_and_does_not_lose_the_first_step(decay):
    rates = [float(schedule(decay)(step)) for step in range(5)]
    np.testing.assert_allclose(rates, [0.2, 0.4, 0.6, 0.8, 1.0], rtol=1e-6)


@pytest.mark.parametrize(
    ("decay", "step", "expected"),
    [
        ("none", 11, 1.0),
        ("none", 100, 1.0),
        # Eight steps are left after the warm-up of four.
        ("linear", 8, 0.5),
        ("linear", 11, 1 / 8),
        ("linear", 12, 0.0),
        ("cosine", 6, (1 + math.cos(math.pi / 4)) / 2),
        ("cosine", 8, 0.5),
        ("cosine", 11, (1 + math.cos(math.pi * 7 / 8)) / 2),
        ("cosine", 12, 0.0),
    ],
)
def test_decay_after_warm_up(decay, step, expected):
    assert float(schedule(decay)(step)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("decay", ["none", "linear", "cosine"])
def test_without_warm_up_the_first_step_has_the_peak(decay):
    assert float(schedule(decay, warmup=0, peak=3e-4)(0)) == pytest.approx(3e-4)


@pytest.mark.parametrize("decay", ["none", "linear", "cosine"])
def test_a_run_that_ends_in_its_warm_up_has_finite_rates(decay):
    rates = [float(schedule(decay, warmup=5, total=3)(step)) for step in range(3)]
    np.testing.assert_allclose(rates, [1 / 6, 2 / 6, 3 / 6], rtol=1e-6)


# ---- the step -------------------------------------------------------------------------------


def stepper(gradient, peak=0.1, warmup=0, weight_decay=0.0, max_grad_norm=1.0):
    """A fresh state with params w = [1, -2], and the step whose gradient is a constant."""
    optimizer, _ = make_optimizer(peak, warmup, 10, "none", weight_decay, max_grad_norm)
    params = {"w": jnp.array([1.0, -2.0])}
    first = TrainState(jnp.int32(0), params, optimizer.init(params))
    state = create_state(params, optimizer, first)
    step = make_step(
        lambda params, batch: ({"w": jnp.array(gradient) * batch}, {"loss": params["w"].sum()}),
        optimizer,
        first,
    )
    return params, state, step


def first_moment(state):
    """Adam's mean gradient: after one step, 1 - b1 = 0.1 times the gradient that it was given."""
    return next(leaf.mu["w"] for leaf in adam_states(state))


def is_adam(x):
    return hasattr(x, "mu")


def adam_states(state):
    return filter(is_adam, jax.tree.leaves(state.opt_state, is_leaf=is_adam))


def test_an_adamw_step_by_hand():
    _, state, step = stepper([0.3, -0.4], weight_decay=0.5)
    state, metrics = step(state, 1.0)
    # Adam's first update is the sign of the gradient; decay pulls by peak * 0.5 * w.
    np.testing.assert_allclose(
        state.params["w"], [1 - 0.1 - 0.05 * 1, -2 + 0.1 + 0.05 * 2], rtol=1e-5
    )
    assert float(metrics["grad_norm"]) == pytest.approx(0.5)
    assert float(metrics["loss"]) == -1.0


@pytest.mark.parametrize(
    ("scale", "used"),
    [(1.0, [0.3, -0.4]), (10.0, [0.6, -0.8])],  # norm 0.5 is kept, norm 5 is cut to 1
)
def test_gradients_are_clipped_to_the_norm_and_reported_before(scale, used):
    _, state, step = stepper([0.3, -0.4])
    state, metrics = step(state, scale)
    assert float(metrics["grad_norm"]) == pytest.approx(0.5 * scale)
    np.testing.assert_allclose(first_moment(state), 0.1 * np.array(used), rtol=1e-5)


def test_a_warm_up_step_is_as_long_as_the_schedule_says():
    _, state, step = stepper([0.3, -0.4], peak=0.1, warmup=4)
    state, _ = step(state, 1.0)
    np.testing.assert_allclose(state.params["w"], [1 - 0.02, -2 + 0.02], rtol=1e-5)


def test_the_counter_counts_updates_and_the_state_is_reused_in_place():
    params, state, step = stepper([0.3, -0.4])
    assert state.step.dtype == jnp.int32 and int(state.step) == 0
    for expected in (1, 2, 3):
        old, (state, _) = state, step(state, 1.0)
        assert int(state.step) == expected
        assert old.params["w"].is_deleted() and first_moment(old).is_deleted()
    # The state owned a copy: the parameters it was made from are still there.
    assert params["w"].tolist() == [1, -2]


def test_a_step_that_teaches_nothing_moves_nothing_but_the_learning_rate_goes_on():
    """AdamW would still move the parameters, by its momentum and its weight decay."""
    _, state, step = stepper([0.3, -0.4], warmup=4, weight_decay=0.5)
    state, _ = step(state, 1.0)
    before = jax.tree.map(np.asarray, state)
    state, metrics = step(state, 0.0)
    assert float(metrics["grad_norm"]) == 0
    np.testing.assert_array_equal(state.params["w"], before.params["w"])
    for new, old in zip(
        jax.tree.leaves(next(adam_states(state))),
        jax.tree.leaves(next(adam_states(before))),
        strict=True,
    ):
        np.testing.assert_array_equal(new, old)
    assert int(state.step) == 2
    # The third step, at the third rate: as long as the second gradient in a row makes it.
    state, _ = step(state, 1.0)
    rate = 0.1 * 3 / 5
    expected = before.params["w"] - rate * (np.array([1, -1]) + 0.5 * before.params["w"])
    np.testing.assert_allclose(state.params["w"], expected, rtol=1e-4)


def test_a_gradient_that_is_not_a_number_is_not_taken_for_nothing():
    _, state, step = stepper([math.nan, 0.4])
    state, metrics = step(state, 1.0)
    assert math.isnan(float(metrics["grad_norm"])) and np.isnan(state.params["w"]).any()


# ---- on a mesh ------------------------------------------------------------------------------


def test_moments_lie_where_their_parameter_does(tiny_model):
    optimizer, _ = make_optimizer(0.1, 0, 10, "none", 0.0, 1.0)
    abstract = abstract_state(tiny_model, optimizer, make_mesh(1, 4, 2))
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    adam = next(adam_states(shardings))
    for moment in (adam.mu, adam.nu):
        assert jax.tree.all(jax.tree.map(lambda a, b: a == b, moment, shardings.params))
    cut = [leaf for leaf in jax.tree.leaves(shardings.params) if not leaf.is_fully_replicated]
    assert len(cut) > len(jax.tree.leaves(shardings.params)) / 2
    assert shardings.step.is_fully_replicated
