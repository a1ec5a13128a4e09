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


DECAYS = ("none", "linear", "cosine")


@pytest.mark.parametrize(
    ("warmup", "total", "expected"),
    [
        (4, 12, [0.2, 0.4, 0.6, 0.8, 1.0]),  # the first step is not lost
        (0, 12, [1.0]),
        (5, 3, [1 / 6, 2 / 6, 3 / 6]),  # a run that ends in its warm-up
    ],
)
@pytest.mark.parametrize("decay", DECAYS)
def test_warm_up_rises_to_the_peak(decay, warmup, total, expected):
    rates = [float(schedule(decay, warmup, total)(step)) for step in range(len(expected))]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("decay", "expected"),
    # Eight steps are left after the warm-up of four.
    [
        ("none", {11: 1.0, 100: 1.0}),
        ("linear", {8: 0.5, 11: 1 / 8, 12: 0.0}),
        (
            "cosine",
            {step: (1 + math.cos(math.pi * (step - 4) / 8)) / 2 for step in (6, 8, 11, 12)},
        ),
    ],
)
def test_decay_after_warm_up(decay, expected):
    rates = {step: float(schedule(decay)(step)) for step in expected}
    assert rates == pytest.approx(expected, abs=1e-6)


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
    return adam(state).mu["w"]


def adam(state):
    leaves = jax.tree.leaves(state.opt_state, is_leaf=lambda x: hasattr(x, "mu"))
    return next(leaf for leaf in leaves if hasattr(leaf, "mu"))


def test_an_adamw_step_by_hand():
    _, state, step = stepper([0.3, -0.4], weight_decay=0.5, warmup=4)
    state, metrics = step(state, 1.0)
    # Adam's first update is the sign of the gradient; decay pulls by rate * 0.5 * w. The rate is a
    # fifth of the peak.
    wanted = [1 - 0.02 - 0.01 * 1, -2 + 0.02 + 0.01 * 2]
    np.testing.assert_allclose(state.params["w"], wanted, rtol=1e-5)
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
    jax.tree.map(np.testing.assert_array_equal, adam(state), adam(before))
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


def test_moments_lie_where_their_parameter_does(tiny_model):
    optimizer, _ = make_optimizer(0.1, 0, 10, "none", 0.0, 1.0)
    abstract = abstract_state(tiny_model, optimizer, make_mesh(1, 4, 2))
    shardings = jax.tree.map(lambda x: x.sharding, abstract)
    moments = adam(shardings)
    assert moments.mu == moments.nu == shardings.params
    cut = [leaf for leaf in jax.tree.leaves(shardings.params) if not leaf.is_fully_replicated]
    assert len(cut) > len(jax.tree.leaves(shardings.params)) / 2
    assert shardings.step.is_fully_replicated
