"""Parameters of a decoder: made, and laid out on the mesh."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from permix_jax.models.transformer import Decoder
from permix_jax.sharding import shardings_of


def init_params(model: Decoder, key: jax.Array):
    """Fresh parameters, each leaf boxed with the names of its logical axes."""
    token = jnp.zeros((1, 1), jnp.int32)
    return model.init(key, token, token, token == 0)["params"]


def param_shardings(model: Decoder, mesh: Mesh):
    """NamedShardings of the parameters, from the logical axes they were described with."""
    return shardings_of(jax.eval_shape(lambda: init_params(model, jax.random.key(0))), mesh)


def abstract_params(model: Decoder, mesh: Mesh):
    """ShapeDtypeStructs of the parameters, with their shardings: what a restore needs to know."""
    shapes = jax.eval_shape(lambda: nn.unbox(init_params(model, jax.random.key(0))))
    return with_shardings(shapes, param_shardings(model, mesh))


def with_shardings(shapes, shardings):
    """Attaches shardings to a pytree of ShapeDtypeStructs."""
    return jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        shapes,
        shardings,
    )


def create_params(model: Decoder, key: jax.Array, mesh: Mesh):
    """Fresh parameters, born sharded."""
    init = jax.jit(
        lambda key: nn.unbox(init_params(model, key)), out_shardings=param_shardings(model, mesh)
    )
    return init(key)
