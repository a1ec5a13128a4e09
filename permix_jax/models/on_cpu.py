"""Three formulas of a layer, written so that XLA compiles them to fast code for a CPU.

XLA for a CPU computes cheap values again in every loop that reads them, and it drops
`optimization_barrier` before it orders a program. Up to rounding, each function has the values and
gradients of the plain formula of the same name in `operations.py` or `transformer.py`, which
programs for other platforms have (docs/update.md).
"""

from collections.abc import Callable
from functools import partial, wraps

import jax
import jax.numpy as jnp

from permix_jax.core.sharding import platform


def faster_on_cpu(tuned: Callable) -> Callable:
    """Decorator of a plain formula: programs for a CPU compute `tuned` in its place.

    The choice is made while a program is traced, by the platform of its mesh. So a plan for a TPU
    that is made on a CPU has the plain formulas. `__wrapped__` is the plain formula.
    """

    def decorate(plain: Callable) -> Callable:
        @wraps(plain)
        def chosen(*args, **options):
            return (tuned if platform() == "cpu" else plain)(*args, **options)

        return chosen

    return decorate


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def rms_norm(x: jax.Array, scale: jax.Array, eps: float) -> jax.Array:
    """`operations.rms_norm`, with a gradient whose two sums are matrix products.

    JAX's gradient has reductions in their place, and XLA computes their argument once for each of
    them: a twentieth of an update.
    """
    return _rms_norm_forward(x, scale, eps)[0]


def _rms_norm_forward(x, scale, eps):
    inverse = jax.lax.rsqrt(jnp.mean(x**2, axis=-1) + eps)
    return x * inverse[..., None] * scale, (x, inverse, scale)


def _rms_norm_backward(eps, kept, cotangent):
    x, inverse, scale = kept
    product, rows = cotangent * x, tuple(range(x.ndim - 1))
    mean = _exact_tensordot(product, scale, 1) / x.shape[-1]
    grad_x = (cotangent * scale - x * (inverse**2 * mean)[..., None]) * inverse[..., None]
    return grad_x, _exact_tensordot(inverse, product, (rows, rows))


rms_norm.defvjp(_rms_norm_forward, _rms_norm_backward)

_exact_tensordot = partial(jnp.tensordot, precision=jax.lax.Precision.HIGHEST)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def gated_activation(gate: jax.Array, up: jax.Array, activation: Callable) -> jax.Array:
    """`operations.gated_activation`, which keeps nothing but its arguments for its gradient.

    `jax.checkpoint` of the plain formula would say that, but XLA drops its barrier: it would
    compute the activations of many layers again before it uses the first.
    """
    return activation(gate) * up


def _gated_activation_forward(gate, up, activation):
    return gated_activation(gate, up, activation), (gate, up)


def _gated_activation_backward(activation, kept, cotangent):
    gate, up = kept
    # A sum with 0 * cotangent is a barrier that XLA keeps: the activation waits for the cotangent.
    activated, activation_vjp = jax.vjp(activation, gate + 0 * cotangent)
    return *activation_vjp(cotangent * up), cotangent * activated


gated_activation.defvjp(_gated_activation_forward, _gated_activation_backward)


def cos_sin(angles: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`transformer.cos_sin` as a loop of two steps, because XLA keeps what a loop computes.

    Otherwise it computes cos and sin again for each head of every layer, at every decoded token.
    """

    def either(is_sin):
        return jnp.where(is_sin, jnp.sin(angles), jnp.cos(angles))

    return tuple(jax.lax.map(either, jnp.array([False, True])))
