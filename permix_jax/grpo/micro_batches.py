"""Cutting a batch into parts, and adding up what the parts give: memory changes, results do not."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def accumulate(gradients_of: Callable, params, batch, parts: int, prompts: int):
    """`gradients_of(params, batch)`, a plain sum over rows, computed in `parts` one after another.

    Args:
      batch: a pytree whose leaves lead with rows, a multiple of `prompts` of them.
      parts: must divide `prompts`.

    Returns:
      what `gradients_of` returns for the whole batch, up to rounding, in the same dtypes.
    """
    if parts == 1:
        return gradients_of(params, batch)
    cut = split_rows(batch, parts, prompts)
    one = jax.eval_shape(gradients_of, params, jax.tree.map(lambda x: x[0], cut))

    def add(sums, part):
        return jax.tree.map(jnp.add, sums, gradients_of(params, part)), None

    # Summed in f32, whatever the parameters are kept in: bf16 would round every part away a little.
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), one)
    sums, _ = jax.lax.scan(add, zeros, cut)
    return jax.tree.map(lambda x, like: x.astype(like.dtype), sums, one)


def split_rows(tree, parts: int, prompts: int):
    """Leading axes cut into `parts`: [rows, ...] -> [parts, rows / parts, ...].

    Rollouts stay with their prompt. Part j takes prompts j, j + parts, ..., so that each part is
    spread over all devices of a mesh on which neighbouring rows share a device.
    """

    def one(x):
        blocks = x.reshape(prompts // parts, parts, x.shape[0] // prompts, *x.shape[1:])
        return blocks.swapaxes(0, 1).reshape(parts, x.shape[0] // parts, *x.shape[1:])

    return jax.tree.map(one, tree)


def join_rows(tree, prompts: int):
    """The inverse of `split_rows`: [parts, rows / parts, ...] -> [rows, ...]."""

    def one(x):
        parts, rows = x.shape[:2]
        blocks = x.reshape(parts, prompts // parts, parts * rows // prompts, *x.shape[2:])
        return blocks.swapaxes(0, 1).reshape(parts * rows, *x.shape[2:])

    return jax.tree.map(one, tree)
