"""Adapters: what they compute, what is trained, and what is shared."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import dense_logits
from flax.traverse_util import flatten_dict
from jaxprs import product_shapes

from permix_jax.models.config import LORA_TARGETS, Lora
from permix_jax.models.params import (
    create_params,
    init_params,
    initial_trained,
    join,
    merge_adapters,
    split_trained,
    without_lora,
)
from permix_jax.models.transformer import Decoder

RANK, ALPHA = 3, 6.0
TOKENS = np.random.default_rng(0).integers(48, size=(3, 7))
POSITIONS = np.broadcast_to(np.arange(7), (3, 7))


@pytest.fixture(scope="module")
def model(tiny_model):
    return Decoder(replace(tiny_model.config, lora=Lora(RANK, ALPHA)))


@pytest.fixture(scope="module")
def params(model, mesh):
    """Base and adapters, all of them random."""
    fresh = create_params(model, jax.random.key(1), mesh)

    def with_noise(x):
        return x + 0.3 * jax.random.normal(jax.random.key(x.size), x.shape)

    adapters, base = split_trained(model, fresh)
    return join(jax.tree.map(with_noise, adapters), base)


def logits(model, params):
    return dense_logits(model, params, TOKENS, POSITIONS, TOKENS >= 0)


def test_each_targeted_layer_has_an_adapter_of_its_rank_in_f32(tiny_model):
    chosen = ("q_proj", "down_proj")
    config = replace(tiny_model.config, lora=Lora(RANK, ALPHA, chosen), param_dtype="bfloat16")
    shapes = jax.eval_shape(lambda: init_params(Decoder(config), jax.random.key(0)))
    adapters, base = split_trained(Decoder(config), shapes)
    found = {"/".join(k): v.unbox() for k, v in flatten_dict(adapters).items()}
    assert {name: leaf.shape for name, leaf in found.items() if "layers_0" in name} == {
        "layers_0/attention/query_lora_a": (16, RANK),
        "layers_0/attention/query_lora_b": (RANK, 4, 8),
        "layers_0/mlp/down_lora_a": (24, RANK),
        "layers_0/mlp/down_lora_b": (RANK, 16),
    }
    assert len(found) == 2 * 2 * 2
    assert {leaf.dtype.name for leaf in found.values()} == {"float32"}
    assert {leaf.unbox().dtype.name for leaf in flatten_dict(base).values()} == {"bfloat16"}


def test_fresh_adapters_change_nothing_and_share_the_base(model, tiny_model, tiny_params, mesh):
    trained, frozen = initial_trained(model, tiny_params, jax.random.key(2), mesh), tiny_params
    whole, base = flatten_dict(join(trained, frozen)), flatten_dict(tiny_params)
    np.testing.assert_array_equal(
        logits(model, join(trained, frozen)), logits(tiny_model, tiny_params)
    )
    assert any(np.any(leaf) for leaf in jax.tree.leaves(trained))
    assert all(whole[path] is leaf for path, leaf in base.items())
    assert len(whole) == len(base) + 2 * len(LORA_TARGETS) * model.config.num_layers


def test_merged_weights_compute_the_same(model, params):
    merged = merge_adapters(model, params)
    base = split_trained(model, params)[1]
    plain = logits(without_lora(model), merged)
    np.testing.assert_allclose(plain, logits(model, params), rtol=1e-4, atol=1e-4)
    assert np.abs(plain - logits(without_lora(model), base)).max() > 0.1
    assert jax.tree.structure(merged) == jax.tree.structure(base)


def test_biases_belong_to_the_frozen_base_and_stay_as_they_are(model, params):
    biased = Decoder(replace(model.config, qkv_bias=True))
    heads, head_dim = biased.config.num_heads, biased.config.head_dim
    bias = np.random.default_rng(1).normal(size=heads * head_dim).astype(np.float32)
    attention = params["layers_1"]["attention"] | {"query_bias": bias}
    whole = params | {"layers_1": params["layers_1"] | {"attention": attention}}
    adapters, base = split_trained(biased, whole)
    assert "query_bias" not in flatten_dict(adapters, sep="/")
    assert base["layers_1"]["attention"]["query_bias"] is bias
    merged = merge_adapters(biased, whole)
    np.testing.assert_array_equal(merged["layers_1"]["attention"]["query_bias"], bias)
    kept = merge_adapters(model, params)["layers_1"]["attention"]["query"]
    np.testing.assert_array_equal(merged["layers_1"]["attention"]["query"], kept)


def test_a_merged_weight_is_that_of_the_paper(model, params):
    flat = flatten_dict(params, sep="/")
    down = flatten_dict(merge_adapters(model, params), sep="/")["layers_1/mlp/down"]
    a, b = flat["layers_1/mlp/down_lora_a"], flat["layers_1/mlp/down_lora_b"]
    expected = flat["layers_1/mlp/down"] + ALPHA / RANK * np.asarray(a) @ np.asarray(b)
    np.testing.assert_allclose(down, expected, rtol=1e-5, atol=1e-6)


def test_gradients_of_adapters_follow_from_those_of_the_merged_weights(model, params):
    """W + s A B: dL/dA = s dL/dW B^T and dL/dB = s A^T dL/dW."""
    adapters, base = split_trained(model, params)
    plain, merged = without_lora(model), merge_adapters(model, params)

    def loss(model, params):
        return jnp.tanh(logits(model, params)).sum()

    by_adapter = jax.jit(jax.grad(lambda adapters: loss(model, join(adapters, base))))(adapters)
    by_weight = jax.jit(jax.grad(lambda params: loss(plain, params)))(merged)
    by_adapter, by_weight = (flatten_dict(g, sep="/") for g in (by_adapter, by_weight))
    flat, scale = flatten_dict(adapters, sep="/"), ALPHA / RANK
    for path in ("layers_0/attention/key", "layers_1/attention/out", "layers_0/mlp/gate"):
        a, b = flat[f"{path}_lora_a"], flat[f"{path}_lora_b"]
        gradient = by_weight[path].reshape(a.size // RANK, b.size // RANK)
        a, b = a.reshape(-1, RANK), b.reshape(RANK, -1)
        for end, expected in (("a", scale * gradient @ b.T), ("b", scale * a.T @ gradient)):
            found = by_adapter[f"{path}_lora_{end}"].reshape(expected.shape)
            np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4)


@pytest.mark.parametrize("remat", ["none", "dots", "full"])
def test_no_gradient_of_a_frozen_weight_is_computed(model, params, remat):
    model = Decoder(replace(model.config, remat=remat))
    adapters, base = split_trained(model, params)

    def loss(adapters, base):
        params = join(adapters, base)
        return model.apply({"params": params}, TOKENS, POSITIONS, TOKENS >= 0)[0].sum()

    weights = {leaf.shape for leaf in jax.tree.leaves(base["layers_0"]) if leaf.ndim > 1}
    assert product_shapes(jax.grad(loss, argnums=1), adapters, base) > weights
    assert not product_shapes(jax.grad(loss), adapters, base) & weights


@pytest.mark.parametrize(
    ("rank", "targets", "message"),
    [
        (0, ("q_proj",), "lora.rank is 0; use 1 or more"),
        (4, ("q_proj", "embed_tokens"), "lora.targets has 'embed_tokens'; use some of q_proj, "),
    ],
)
def test_impossible_adapters_are_refused(rank, targets, message):
    with pytest.raises(ValueError, match=message):
        Lora(rank, ALPHA, targets)
