"""More devices of mesh.tensor than key/value heads: each head is on several of them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from permix_jax.core.sharding import make_mesh, to_host
from permix_jax.models.params import create_params
from permix_jax.models.transformer import Decoder, empty_segment

ROWS, LENGTH = 4, 6


@pytest.fixture
def model(tiny_model):
    return Decoder(replace(tiny_model.config, num_kv_heads=1, qkv_bias=True))


def computed(model: Decoder, *shape: int):
    """On a mesh: hidden states, those of a token more that reads a cache, and gradients."""
    tokens = jax.random.randint(jax.random.key(1), (ROWS, LENGTH), 0, model.config.vocab_size)
    places = jnp.broadcast_to(jnp.arange(LENGTH), (ROWS, LENGTH))
    valid = jnp.ones((ROWS, LENGTH), bool)

    def apply(params):
        hidden, prefix = model.apply({"params": params}, tokens, places, valid)
        cache = empty_segment(model.config, ROWS, 2)
        one = tokens[:, :1], places[:, :1] + LENGTH, valid[:, :1]
        next_hidden, cache = model.apply({"params": params}, *one, prefix, cache, 0)
        return jnp.sin(hidden).sum() + jnp.cos(next_hidden).sum(), (hidden, next_hidden, cache)

    mesh = make_mesh(*shape)
    with jax.set_mesh(mesh):
        params = create_params(model, jax.random.key(0), mesh)
        gradients, results = jax.jit(jax.grad(apply, has_aux=True))(params)
    return params, to_host((gradients, results[:2])), results[2]


@pytest.mark.parametrize("shape", [(1, 1, 2), (2, 1, 4), (1, 2, 4)])
def test_values_and_gradients_are_those_of_one_device(model, shape):
    _, wanted, _ = computed(model, 1, 1, 1)
    params, found, cache = computed(model, *shape)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-5), found, wanted)

    # The weight keeps its published shape, whole on each device; the cache has a head for each.
    tensor = shape[-1]
    key = params["layers_0"]["attention"]["key"]
    assert key.shape == (16, 1, 8)
    assert key.sharding.shard_shape(key.shape) == (16 // shape[1], 1, 8)
    keys, _ = cache.layers[0]
    assert keys.shape == (ROWS, tensor, 8, 2)
    assert keys.sharding.shard_shape(keys.shape)[1] == 1


def test_a_device_keeps_at_least_one_head(tiny_model):
    two = tiny_model.config
    assert [two.kept_heads(tensor) for tensor in (1, 2, 4)] == [2, 2, 4]
