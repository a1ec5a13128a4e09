"""What a layer computes with a gradient of its own: products, norms, gates; axes as in
`transformer.py`.

The values and gradients are those that JAX would give, up to rounding; what differs is what XLA
makes of them, and what is kept from the forward pass for the backward one.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

ACTIVATIONS: dict[str, Callable] = {"silu": nn.silu, "gelu": partial(nn.gelu, approximate=True)}


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def product(x: jax.Array, weight: jax.Array, sum_over: int) -> jax.Array:
    """x [..., *inputs] times a weight [*inputs, *outputs].

    JAX's own gradient of the weight is that of its transpose: XLA then transposes what the gradient
    of the outputs is computed of, element by element, which took a sixth of an update on a CPU.
    """
    return jnp.tensordot(x, weight, sum_over)


def _product_forward(x, weight, sum_over):
    # A frozen weight, such as under an adapter, has no gradient to compute.
    kept = (x.value if weight.perturbed else None, weight.value)
    return product(x.value, weight.value, sum_over), kept


def _product_backward(sum_over, kept, by_y):
    x, weight = kept
    outputs = list(range(sum_over, weight.ndim))
    rows = list(range(by_y.ndim - len(outputs)))
    by_x = jnp.tensordot(by_y, weight, (list(range(len(rows), by_y.ndim)), outputs))
    return by_x, None if x is None else jnp.tensordot(x, by_y, (rows, rows))


product.defvjp(_product_forward, _product_backward, symbolic_zeros=True)


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
    exact = partial(jnp.tensordot, precision=jax.lax.Precision.HIGHEST)
    mean = exact(both, scale, 1) / x.shape[-1]
    by_x = (by_y * scale - x * (inverse**2 * mean)[..., None]) * inverse[..., None]
    return by_x, exact(inverse, both, (rows, rows))


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
