"""Operations with gradients of their own, against the gradients that JAX gives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_same_gradients, normal

from permix_jax.models.operations import dense, embed_lookup, states_at

# ---- lookups --------------------------------------------------------------------------------

TOKENS = np.array([[3, 0, 3], [1, 3, 0]])


def test_in_f32_lookups_are_those_of_jax_to_the_last_bit():
    def gradients(function, x):
        cotangent = normal(*jax.eval_shape(function, x).shape, seed=9)
        return jax.jit(jax.value_and_grad(lambda x: (function(x) * cotangent).sum()))(x)

    pairs = [
        (lambda x: embed_lookup(x, TOKENS, x.dtype), lambda x: x[TOKENS], normal(5, 4)),
        (
            lambda x: states_at(x, TOKENS),
            lambda x: jnp.take_along_axis(x, TOKENS[..., None], axis=1),
            normal(2, 5, 4),
        ),
    ]
    for ours, plain, x in pairs:
        for mine, theirs in zip(gradients(ours, x), gradients(plain, x), strict=True):
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("kept_in", ["float32", "bfloat16"])
def test_the_gradient_of_a_token_that_comes_8000_times_is_8000_terms(kept_in):
    """In bf16 the sum would stop at 256 of them."""
    table, term = normal(4, 3, dtype=kept_in), jnp.bfloat16(0.7109375)

    def loss(table):
        rows = embed_lookup(table, jnp.zeros(8000, jnp.int32), jnp.bfloat16)
        assert rows.dtype == jnp.bfloat16
        return (rows * term).astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(loss))(table)
    assert gradient.dtype == kept_in
    # The sum itself is exact: a term has 8 bits, 8000 of them 21. A table in bf16 rounds it once.
    expected = jnp.full(3, 8000 * float(term)).astype(kept_in)
    np.testing.assert_array_equal(gradient[0], expected)
    assert not gradient[1:].any()


def test_the_gradient_of_a_state_that_1000_completions_start_from_is_1000_terms():
    states, index = normal(1, 4, 3, dtype="bfloat16"), jnp.full((1, 1000), 2)

    def loss(states):
        return states_at(states, index).astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(loss))(states)
    np.testing.assert_array_equal(gradient[0, 2].astype(jnp.float32), [1000, 1000, 1000])


# ---- products -------------------------------------------------------------------------------


@pytest.mark.parametrize("sum_over", [1, 2])
def test_dense(sum_over):
    x, weight = normal(2, 3, 4, 5), normal(*(4, 5)[2 - sum_over :], 6, 7, seed=1)
    assert_same_gradients(
        partial(dense, sum_over=sum_over), partial(jnp.tensordot, axes=sum_over), x, weight
    )


def test_the_gradient_of_an_f32_weight_is_not_rounded_to_bf16():
    x, cotangent = normal(500, 6, dtype="bfloat16"), normal(500, 3, dtype="bfloat16", seed=1)
    weight = normal(6, 3, seed=2)

    def loss(weight):
        y = dense(x, weight, 1)
        assert y.dtype == jnp.bfloat16
        return (y * cotangent).astype(jnp.float32).sum()

    gradient = jax.jit(jax.grad(loss))(weight)
    expected = np.asarray(x, np.float64).T @ np.asarray(cotangent, np.float64)
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
