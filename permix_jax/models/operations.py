"""The operations that a layer is made of; axes as in `transformer.py`.

Some have a gradient of their own. It is the one that JAX would give, but its sums over tokens and
devices are in f32 whatever the dtype of the activations. A sum in bf16 of equal terms stops growing
at 256 of them, and a frequent token has thousands.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from permix_jax.core.sharding import constrain, gather_as
from permix_jax.models import on_cpu
from permix_jax.models.on_cpu import faster_on_cpu

ACTIVATIONS: dict[str, Callable] = {"silu": nn.silu, "gelu": partial(nn.gelu, approximate=True)}


def einsum(letters: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """jnp.einsum of two arrays, summed and returned in f32; precise as `precision` says."""
    return jnp.einsum(letters, x, y, precision=precision(x, y), preferred_element_type=jnp.float32)


def tensordot(x: jax.Array, y: jax.Array, axes, preferred_element_type=None) -> jax.Array:
    """jnp.tensordot, precise as `precision` says."""
    dtype = preferred_element_type
    return jnp.tensordot(x, y, axes, precision=precision(x, y), preferred_element_type=dtype)


def precision(x: jax.Array, y: jax.Array) -> jax.lax.Precision | None:
    """The precision of a matmul of x and y: the highest if it is one in f32, else JAX's default.

    JAX's default rounds f32 factors to bf16 on a TPU and to TF32 on a GPU. Products of bf16 are
    exact in f32 anyway.
    """
    is_f32 = jnp.result_type(x, y) == jnp.float32
    return jax.lax.Precision.HIGHEST if is_f32 else None


@partial(jax.custom_vjp, nondiff_argnums=(2,))
@jax.named_scope("embedding")
def embed_lookup(table: jax.Array, tokens: jax.Array, dtype) -> jax.Array:
    """The rows [..., E] of a table [V, E] for tokens int32 [...], in `dtype`.

    The gradient is summed in f32 and has the table's dtype.
    """
    # If the table were cut over `fsdp`, XLA would gather the looked-up rows, which are more.
    return gather_as(table, dtype, "vocab", "embed")[tokens]


def _embed_lookup_forward(table, tokens, dtype):
    return embed_lookup(table, tokens, dtype), (table, tokens)


@jax.named_scope("embedding")
def _embed_lookup_backward(dtype, kept, cotangent):
    table, tokens = kept
    sums = jnp.zeros(table.shape, jnp.float32).at[tokens].add(cotangent.astype(jnp.float32))
    return constrain(sums, "vocab", None).astype(table.dtype), None


embed_lookup.defvjp(_embed_lookup_forward, _embed_lookup_backward)


@jax.custom_vjp
def states_at(states: jax.Array, index: jax.Array) -> jax.Array:
    """The states [B, X, E] at the places index [B, X] of each row of states [B, T, E].

    The gradient is summed in f32: a state may be taken many times, as a prompt's last state is by
    all of its completions.
    """
    return jnp.take_along_axis(states, index[..., None], axis=1)


def _states_at_forward(states, index):
    return states_at(states, index), (states, index)


def _states_at_backward(kept, cotangent):
    states, index = kept
    add = jax.vmap(lambda sums, i, terms: sums.at[i].add(terms))
    sums = add(jnp.zeros(states.shape, jnp.float32), index, cotangent.astype(jnp.float32))
    return sums.astype(states.dtype), None


states_at.defvjp(_states_at_forward, _states_at_backward)


def dense(x: jax.Array, weight: jax.Array, sum_over: int) -> jax.Array:
    """x [..., *inputs] times a weight [*inputs, *outputs], in the dtype of x.

    The gradient of the weight is summed in f32 and has the weight's dtype. JAX's own would have the
    dtype of x, to which the weight is converted, and devices would add it up in that dtype.
    `sum_over`: how many axes `inputs` are.
    """
    return _dense(x, weight, jax.lax.stop_gradient(weight).astype(x.dtype), sum_over)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _dense(x: jax.Array, weight: jax.Array, converted: jax.Array, sum_over: int) -> jax.Array:
    """x times `converted`, the weight in the dtype of x; the gradient goes to `weight`."""
    return tensordot(x, converted, sum_over)


def _dense_forward(x, weight, converted, sum_over):
    # A weight that is not trained (the base under an adapter) has no gradient to compute.
    trained = (x.value, weight.value) if weight.perturbed else None
    return tensordot(x.value, converted.value, sum_over), (trained, converted.value)


def _dense_backward(sum_over, kept, cotangent):
    trained, converted = kept
    outputs = list(range(sum_over, converted.ndim))
    rows = list(range(cotangent.ndim - len(outputs)))
    grad_x = tensordot(cotangent, converted, (list(range(len(rows), cotangent.ndim)), outputs))
    if trained is None:
        return grad_x, None, None
    x, weight = trained
    grad_weight = tensordot(x, cotangent, (rows, rows), preferred_element_type=jnp.float32)
    return grad_x, grad_weight.astype(weight.dtype), None


_dense.defvjp(_dense_forward, _dense_backward, symbolic_zeros=True)


@faster_on_cpu(on_cpu.rms_norm)
def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """x f32 [..., E] over its root mean square, times scale f32 [E] (arXiv 1910.07467)."""
    return x * jax.lax.rsqrt(jnp.mean(x**2, axis=-1, keepdims=True) + eps) * scale


@faster_on_cpu(on_cpu.gated_activation)
def gated_activation(gate: jax.Array, up: jax.Array, activation: Callable) -> jax.Array:
    """activation(gate) * up, elementwise (GLU variants: arXiv 2002.05202)."""
    return activation(gate) * up
