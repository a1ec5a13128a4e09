"""Which implementation computes packed attention: by platform, by force, by shape."""

import logging
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import normal
from other_platforms import abstract_mesh

from permix_jax.models import attention, packed_attention
from permix_jax.models.attention import PackedLayout, attend_packed
from permix_jax.models.config import ModelConfig
from permix_jax.models.packed_attention import require_attention, seen

MODEL = ModelConfig(
    vocab_size=48,
    embed_dim=16,
    num_layers=1,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    mlp_dim=24,
)


def layout_of(tokens: int, blocks: int = 2) -> PackedLayout:
    """One sequence that fills a row; each block reads all before it."""
    at = jnp.arange(tokens, dtype=jnp.int32)[None]
    lists = np.tril(np.arange(blocks) + 1)[None] - 1
    return PackedLayout(at, at * 0, at * 0, jnp.asarray(lists, jnp.int32))


def primitives(platform: str, model: ModelConfig, tokens: int = 256) -> set[str]:
    """Of attention, and of its gradient, in a program for a platform."""

    def total(query, keys, values):
        packed = seen(layout_of(tokens), 0, model)
        return packed_attention.attention(query, keys, values, packed, 1.0).sum()

    H, K, D = model.num_heads, model.num_kv_heads, model.head_dim
    shapes = (1, tokens, H, D), (1, K, tokens, D), (1, K, tokens, D)
    arrays = [jax.ShapeDtypeStruct(shape, model.dtype) for shape in shapes]
    with jax.sharding.use_abstract_mesh(abstract_mesh(platform)):
        text = str(jax.make_jaxpr(jax.grad(total, (0, 1, 2)))(*arrays))
    return {name for name in ("pallas_call", "scan", "cond") if f" {name}[" in text}


@pytest.mark.parametrize(
    ("platform", "name", "wanted"),
    [
        ("cpu", "auto", {"scan", "cond"}),
        ("cpu", "blocks", {"scan", "cond"}),
        ("gpu", "auto", {"scan"}),  # the host would have to read a condition
        ("tpu", "blocks", {"scan", "cond"}),
    ],
)
def test_blocks_compute_it_where_no_kernel_does(platform, name, wanted):
    assert primitives(platform, replace(MODEL, attention=name)) == wanted


@pytest.mark.parametrize("name", ["auto", "tpu"])
def test_kernels_compute_it_on_a_tpu(name):
    found = primitives("tpu", replace(MODEL, attention=name))
    assert "pallas_call" in found and "scan" not in found


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_kernels_for_tpus_are_refused_elsewhere(platform):
    with pytest.raises(ValueError, match=f"is 'tpu', .* for a {platform}; use auto or blocks"):
        primitives(platform, replace(MODEL, attention="tpu"))
    for name in ("auto", "blocks"):
        require_attention(name, platform)


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="attention = 'flash'; use auto, blocks, tpu"):
        replace(MODEL, attention="flash")


@pytest.mark.parametrize(("tokens", "head_dim"), [(256, 8), (192, 64)])
@pytest.mark.parametrize("name", ["auto", "tpu"])
def test_what_the_kernels_do_not_take_is_computed_by_blocks_and_said_once(
    caplog, name, tokens, head_dim
):
    packed_attention._say_once.cache_clear()
    model = replace(MODEL, attention=name, head_dim=head_dim)
    with caplog.at_level(logging.INFO):
        assert [primitives("tpu", model, tokens) for _ in range(2)] == [{"scan", "cond"}] * 2
    (line,) = caplog.messages
    assert f"rows of {tokens} tokens and 4 heads of size {head_dim} on 2" in line


def test_a_gpu_computes_what_a_cpu_does(monkeypatch):
    """Lists of different lengths: on a GPU entries of -1 are read, too, and hidden."""
    layout = layout_of(32, blocks=4)
    query, keys, values = normal(1, 32, 4, 8), *(normal(1, 2, 32, 8, seed=i) for i in (1, 2))

    def gradients():
        def total(*arrays):
            out = attend_packed(*arrays, layout, 5, 0.7)
            return (out**2).sum(), out

        return jax.grad(total, (0, 1, 2), has_aux=True)(query, keys, values)

    on_cpu = gradients()
    monkeypatch.setattr(attention, "platform", lambda: "gpu")
    jax.tree.map(np.testing.assert_array_equal, gradients(), on_cpu)
