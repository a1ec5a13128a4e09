"""What a layer computes with a gradient of its own: lookups, products, norms, gates; axes as in
`transformer.py`.

The values and gradients are those that JAX would give, up to rounding; what differs is what XLA
makes of them, what is kept from the forward pass for the backward one, and that every gradient is
summed over tokens and devices in f32.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from permix_jax.core.sharding import constrain, gather_as

ACTIVATIONS: dict[str, Callable] = {"silu": nn.silu, "gelu": partial(nn.gelu, approximate=True)}


def einsum(letters: str, x: jax.Array, y: jax.Array) -> jax.Array:
    """jnp.einsum of two arrays, summed and returned in f32; precise as `precision` says."""
    return jnp.einsum(letters, x, y, precision=precision(x, y), preferred_element_type=jnp.float32)


def tensordot(x: jax.Array, y: jax.Array, axes, preferred_element_type=None) -> jax.Array:
    """jnp.tensordot, precise as `precision` says."""
    dtype = preferred_element_type
    return jnp.tensordot(x, y, axes, precision=precision(x, y), preferred_element_type=dtype)


def precision(x: jax.Array, y: jax.Array) -> jax.lax.Precision | None:
    """Of a product of x and y: that of f32 where it is one of f32.

    By default JAX rounds the factors of such a product, to bf16 on a TPU and to TF32 on a GPU. For
    bf16, whose products are exact in f32, nothing is asked.
    """
    is_f32 = jnp.result_type(x, y) == jnp.float32
    return jax.lax.Precision.HIGHEST if is_f32 else None


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def looked_up(table: jax.Array, tokens: jax.Array, dtype) -> jax.Array:
    """The rows [..., E] of a table [V, E] that tokens [...] name, in `dtype`.

    The gradient is summed in f32, whatever the dtypes: in bf16 a sum of equal terms stops growing
    at 256 of them, and a frequent token has thousands.
    """
    # Whole over `fsdp`: looked up in parts, it would be the activations that are gathered.
    return gather_as(table, dtype, "vocab", "embed")[tokens]


def _looked_up_forward(table, tokens, dtype):
    return looked_up(table, tokens, dtype), (table, tokens)


def _looked_up_backward(dtype, kept, by_rows):
    table, tokens = kept
    sums = jnp.zeros(table.shape, jnp.float32).at[tokens].add(by_rows.astype(jnp.float32))
    return constrain(sums, "vocab", None).astype(table.dtype), None


looked_up.defvjp(_looked_up_forward, _looked_up_backward)


@jax.custom_vjp
def states_at(states: jax.Array, index: jax.Array) -> jax.Array:
    """Of states [B, T, E] those at index [B, X] of their row: [B, X, E].

    A state may be taken often, such as a prompt's last one by all of its completions. The gradient
    is summed in f32.
    """
    return jnp.take_along_axis(states, index[..., None], axis=1)


def _states_at_forward(states, index):
    return states_at(states, index), (states, index)


def _states_at_backward(kept, by_taken):
    states, index = kept
    add = jax.vmap(lambda sums, i, terms: sums.at[i].add(terms))
    sums = add(jnp.zeros(states.shape, jnp.float32), index, by_taken.astype(jnp.float32))
    return sums.astype(states.dtype), None


states_at.defvjp(_states_at_forward, _states_at_backward)


def product(x: jax.Array, weight: jax.Array, sum_over: int) -> jax.Array:
    """x [..., *inputs] times a weight [*inputs, *outputs], in the dtype of x.

    The gradient of the weight is summed in f32 and has the weight's dtype. For that the weight is
    passed as it is kept: the gradient of a weight that was converted to bf16 before is bf16, also
    where devices add it up.
    """
    return _product(x, weight, jax.lax.stop_gradient(weight).astype(x.dtype), sum_over)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _product(x: jax.Array, weight: jax.Array, converted: jax.Array, sum_over: int) -> jax.Array:
    """x times `converted`, which is the weight in the dtype of x; the gradient is the weight's.

    JAX's own gradient of the weight is that of its transpose: XLA then transposes what the gradient
    of the outputs is computed of, element by element, which took a sixth of an update on a CPU.
    """
    return tensordot(x, converted, sum_over)


def _product_forward(x, weight, converted, sum_over):
    # A frozen weight, such as under an adapter, has no gradient to compute.
    of_weight = (x.value, weight.value) if weight.perturbed else None
    return tensordot(x.value, converted.value, sum_over), (of_weight, converted.value)


def _product_backward(sum_over, kept, by_y):
    of_weight, converted = kept
    outputs = list(range(sum_over, converted.ndim))
    rows = list(range(by_y.ndim - len(outputs)))
    by_x = tensordot(by_y, converted, (list(range(len(rows), by_y.ndim)), outputs))
    if of_weight is None:
        return by_x, None, None
    x, weight = of_weight
    by_weight = tensordot(x, by_y, (rows, rows), preferred_element_type=jnp.float32)
    return by_x, by_weight.astype(weight.dtype), None


_product.defvjp(_product_forward, _product_backward, symbolic_zeros=True)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def normed(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """x [..., E] over its root mean square, times scale [E]; f32.

    The gradient's two sums are products of one matrix with vectors. As JAX has them they are
    reductions, each of which makes that matrix for itself: a twentieth of an update on a CPU.
    """
    return _normed_forward(x, scale, eps)[0]


def _normed_forward(x, scale, eps):
    inverse = jax.lax.rsqrt(jnp.mean(x**2, axis=-1) + eps)
    return x * inverse[..., None] * scale, (x, inverse, scale)


def _normed_backward(eps, kept, by_y):
    x, inverse, scale = kept
    both, rows = by_y * x, list(range(x.ndim - 1))
    mean = tensordot(both, scale, 1) / x.shape[-1]
    by_x = (by_y * scale - x * (inverse**2 * mean)[..., None]) * inverse[..., None]
    return by_x, tensordot(inverse, both, (rows, rows))


normed.defvjp(_normed_forward, _normed_backward)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def gated(gate: jax.Array, up: jax.Array, activation: Callable) -> jax.Array:
    """activation(gate) * up, elementwise. The two arguments alone are kept for the gradient."""
    return activation(gate) * up


def _gated_forward(gate, up, activation):
    return gated(gate, up, activation), (gate, up)


def _gated_backward(activation, kept, by_y):
    gate, up = kept
    # As if it depended on the gradient: XLA would make it in the forward pass, and keep it.
    activated, by_gate = jax.vjp(activation, gate + 0 * by_y)
    return *by_gate(by_y * up), by_y * activated


gated.defvjp(_gated_forward, _gated_backward)
