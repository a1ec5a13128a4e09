"""Random arrays, and functions compared by their values and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np


def normal(*shape, dtype="float32", seed=0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def assert_close(got, wanted, tolerance=1e-5):
    """Arrays, or trees of them, whose entries differ by `tolerance` of the largest at most."""
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        mine, theirs = np.asarray(mine, np.float32), np.asarray(theirs, np.float32)
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


@partial(jax.jit, static_argnums=0)  # compiled once for a function, whatever the arguments
def value_and_gradients(function, cotangent, *arguments):
    value, vjp = jax.vjp(function, *arguments)
    return value, vjp(cotangent)


def assert_same_gradients(ours, plain, *arguments, tolerance=1e-5):
    """Value, and gradients by all arguments, for a random cotangent; and their dtypes."""
    shape = jax.eval_shape(plain, *arguments)
    cotangent = normal(*shape.shape, dtype=shape.dtype, seed=9)
    got, wanted = (value_and_gradients(f, cotangent, *arguments) for f in (ours, plain))
    assert jax.tree.map(lambda x: x.dtype, got) == jax.tree.map(lambda x: x.dtype, wanted)
    assert_close(got, wanted, tolerance)
