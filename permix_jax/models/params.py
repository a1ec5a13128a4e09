"""The parameters of a decoder: creation, shardings, adapters, trained and frozen parts."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh

from permix_jax.core.sharding import gather_as, shardings_of
from permix_jax.models.operations import precision
from permix_jax.models.transformer import Decoder

_ADAPTER = ("_lora_a", "_lora_b")  # how the names of adapters end


def init_params(model: Decoder, key: jax.Array):
    """Fresh parameters, each leaf boxed with the names of its logical axes."""
    token = jnp.zeros((1, 1), jnp.int32)
    return model.init(key, token, token, token == 0)["params"]


def boxed_shapes(model: Decoder):
    """ShapeDtypeStructs of the parameters, boxed with the names of their logical axes."""
    return jax.eval_shape(lambda: init_params(model, jax.random.key(0)))


def param_shardings(model: Decoder, mesh: Mesh):
    """NamedShardings of the parameters, from the logical axes they were described with."""
    return shardings_of(boxed_shapes(model), mesh)


def abstract_params(model: Decoder, mesh: Mesh):
    """ShapeDtypeStructs of the parameters with their shardings, as a restore takes them."""
    boxed = boxed_shapes(model)
    return with_shardings(nn.unbox(boxed), shardings_of(boxed, mesh))


def split_trained(model: Decoder, params: dict) -> tuple[dict, dict]:
    """The trained and the frozen part of a parameter tree.

    With LoRA they are the adapters and the base, otherwise all parameters and {}.
    """
    if model.config.lora is None:
        return params, {}
    parts = ({}, {})
    for path, leaf in flatten_dict(params).items():
        parts[not path[-1].endswith(_ADAPTER)][path] = leaf
    return unflatten_dict(parts[0]), unflatten_dict(parts[1])


def join(trained: dict, frozen: dict) -> dict:
    """The inverse of `split_trained`; arrays are shared, not copied."""
    return unflatten_dict({**flatten_dict(frozen), **flatten_dict(trained)})


def without_lora(model: Decoder) -> Decoder:
    """The same decoder without adapters: that of the frozen base."""
    return Decoder(replace(model.config, lora=None))


def initial_trained(model: Decoder, base: dict, key: jax.Array, mesh: Mesh) -> dict:
    """The trained parameters of a policy that starts as `base`.

    They are `base` itself. With LoRA they are fresh adapters, which change nothing yet.
    """
    if model.config.lora is None:
        return base
    return create_params(model, key, mesh, lambda params: split_trained(model, params)[0])


@jax.jit
def unchanged(trained: dict, base: dict | None) -> jax.Array:
    """Bool []: whether a policy still is its base.

    `base`: like `trained`, or `narrowed`: then what the policy computes with is compared. None
    where `trained` are adapters, which change nothing while their second halves are 0.
    """
    if base is None:
        halves = flatten_dict(trained, sep="/")
        equal = [~x.any() for name, x in halves.items() if name.endswith(_ADAPTER[1])]
    else:
        same = jax.tree.map(lambda x, y: (x.astype(y.dtype) == y).all(), trained, base)
        equal = jax.tree.leaves(same)
    return jnp.stack(equal).all()


@jax.named_scope("gather_weights")
def gathered(model: Decoder, params: dict) -> dict:
    """A copy of the parameters for decoding: matrices in the matmuls' dtype, all whole over `fsdp`.

    So they are gathered and converted once, not at every token.
    """

    def one(x: jax.Array, boxed: nn.Partitioned) -> jax.Array:
        return gather_as(x, x.dtype if x.ndim == 1 else model.config.dtype, *boxed.names)

    return jax.tree.map(one, params, boxed_shapes(model))


def narrowed(model: Decoder, params: dict) -> dict:
    """The parameters in as few bytes as compute the same bit for bit, where nothing trains them.

    Matrices are in the matmuls' dtype if that is narrower: the decoder reads them through that
    conversion alone. Vectors (norms and biases) are read in f32, so they stay as they are.
    ShapeDtypeStructs keep their shardings.
    """
    dtype = jnp.dtype(model.config.dtype)

    def one(x):
        if x.ndim == 1 or x.dtype.itemsize <= dtype.itemsize:
            return x
        return x.update(dtype=dtype) if isinstance(x, jax.ShapeDtypeStruct) else x.astype(dtype)

    return jax.tree.map(one, params)


def abstract_like(tree):
    """ShapeDtypeStructs with the shardings of arrays."""
    return with_shardings(tree, jax.tree.map(lambda x: x.sharding, tree))


def with_shardings(shapes, shardings):
    """Attaches shardings to a pytree of ShapeDtypeStructs."""

    def one(x, sharding):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return jax.tree.map(one, shapes, shardings)


def create_params(model: Decoder, key: jax.Array, mesh: Mesh, part: Callable = lambda tree: tree):
    """Fresh parameters, or a part of their tree, which each device makes its part of."""

    def init(key):
        return part(nn.unbox(init_params(model, key)))

    return jax.jit(init, out_shardings=part(param_shardings(model, mesh)))(key)


def merge_adapters(model: Decoder, params: dict, dtype: str | None = None) -> dict:
    """The base with its adapters added to its weights, in `dtype` (None: their own)."""
    lora = model.config.lora
    if lora is None:
        return params
    adapters, base = (flatten_dict(part, sep="/") for part in split_trained(model, params))
    for path in [path for path in base if path + _ADAPTER[0] in adapters]:
        halves = (adapters[path + end] for end in _ADAPTER)
        base[path] = add_low_rank(base[path], *halves, lora.alpha / lora.rank, dtype)
    return unflatten_dict(base, sep="/")


@partial(jax.jit, static_argnames="dtype")
def add_low_rank(weight, a, b, scale: float, dtype: str | None = None) -> jax.Array:
    """weight [*inputs, *outputs] + scale * a [*inputs, rank] @ b [rank, *outputs].

    Computed in f32 and converted to `dtype`; None: the weight's dtype.
    """
    change = jnp.tensordot(a, b, 1, precision=precision(a, b), preferred_element_type=jnp.float32)
    return (weight + change * scale).astype(dtype or weight.dtype)
