"""Cutting a batch into parts, and adding up what the parts give: memory changes, results do not."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from permix_jax.core.sharding import constrain


def accumulate(gradients_of: Callable, params, parts, count: jax.Array | int):
    """(gradients, metrics) of `gradients_of(params, part)`, over parts one after another.

    Args:
      gradients_of: gives gradients like `params`, and f32 scalars by name; both are plain sums over
        rows, but for metrics that end in `_max`.
      parts: a pytree whose arrays lead with the parts, [parts, rows, ...].
      count: how many of them there are, from the first.

    Returns:
      what `gradients_of` returns for the whole batch, up to rounding, in the same dtypes.
    """
    if jax.tree.leaves(parts)[-1].shape[0] == 1:
        return gradients_of(params, micro_batch(parts, 0))
    one = jax.eval_shape(lambda: gradients_of(params, micro_batch(parts, 0)))

    def add(i, sums):
        gradients, metrics = gradients_of(params, micro_batch(parts, i))
        merge = lambda name: jnp.maximum if name.endswith("_max") else jnp.add  # noqa: E731
        return (
            jax.tree.map(jnp.add, sums[0], gradients),
            {name: merge(name)(sums[1][name], x) for name, x in metrics.items()},
        )

    # Summed in f32, whatever the parameters are kept in: bf16 would round every part away a little.
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), one)
    sums = jax.lax.fori_loop(0, count, add, zeros)
    return jax.tree.map(lambda x, like: x.astype(like.dtype), sums, one)


def micro_batch(parts, i: jax.Array | int):
    """Part i of a pytree [parts, rows, ...], its rows spread over the mesh; scalars as they are."""

    def one(x):
        if x.ndim == 0:
            return x
        x = jax.lax.dynamic_index_in_dim(x, i, keepdims=False)
        return constrain(x, "batch", *[None] * (x.ndim - 1))

    return jax.tree.map(one, parts)


def split_rows(tree, parts: int):
    """Rows cut into `parts`: [rows, ...] -> [parts, rows / parts, ...].

    Part j takes rows j, j + parts, ..., so that each part is spread over all devices of a mesh on
    which neighbouring rows share a device.
    """
    one = lambda x: x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)  # noqa: E731
    return jax.tree.map(one, tree)
