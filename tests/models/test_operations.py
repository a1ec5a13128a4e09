"""Operations with gradients of their own, against the gradients that JAX gives."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from permix_jax.models.operations import ACTIVATIONS, gated, normed, product


def normal(*shape, dtype="float32", seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def assert_same_gradients(ours, plain, *arguments, tolerance=1e-5):
    """Values and gradients of a weighted sum of the outputs, relative to the largest entry."""
    slopes = normal(*jax.eval_shape(plain, *arguments).shape, seed=9)

    def run(function):
        total = lambda *x: (function(*x).astype(jnp.float32) * slopes).sum()  # noqa: E731
        indices = tuple(range(len(arguments)))
        return jax.jit(jax.value_and_grad(total, indices))(*arguments)

    for mine, theirs in zip(jax.tree.leaves(run(ours)), jax.tree.leaves(run(plain)), strict=True):
        assert mine.dtype == theirs.dtype and mine.shape == theirs.shape
        mine, theirs = np.asarray(mine, np.float32), np.asarray(theirs, np.float32)
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize("sum_over", [1, 2])
def test_product(sum_over):
    x, weight = normal(2, 3, 4, 5), normal(*(4, 5)[2 - sum_over :], 6, 7, seed=1)
    assert_same_gradients(
        partial(product, sum_over=sum_over), partial(jnp.tensordot, axes=sum_over), x, weight
    )


def test_norm():
    def plain(x, scale):
        return x / jnp.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-3) * scale

    x = normal(2, 5, 16) * jnp.array([1e-2, 1, 30, 1e2, 3])[:, None]
    assert_same_gradients(partial(normed, eps=1e-3), plain, x, normal(16, seed=1))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_gate(activation, dtype, tolerance):
    function = ACTIVATIONS[activation]
    gate, up = normal(3, 8, dtype=dtype) * 3, normal(3, 8, dtype=dtype, seed=1)
    plain = lambda gate, up: function(gate) * up  # noqa: E731
    assert_same_gradients(partial(gated, activation=function), plain, gate, up, tolerance=tolerance)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_gate_keeps_its_two_arguments_alone(activation):
    """Temporaries of a chain of MLPs and its gradient, in arrays of tokens x hidden."""
    layers, tokens, width, hidden = 12, 64, 8, 512
    weights = jnp.ones((layers, 3, width, hidden))

    def arrays(gate_of):
        def loss(weights):
            x = jnp.ones((tokens, width))
            for w in weights:
                x = x + gate_of(product(x, w[0], 1), product(x, w[1], 1)) @ w[2].T
            return x.sum()

        memory = jax.jit(jax.grad(loss)).lower(weights).compile().memory_analysis()
        return memory.temp_size_in_bytes / (4 * tokens * hidden * layers)

    function = ACTIVATIONS[activation]
    ours = arrays(partial(gated, activation=function))
    assert ours + 0.9 < arrays(lambda gate, up: function(gate) * up)
