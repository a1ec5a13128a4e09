"""The mesh, and the table of logical axes. What programs compute on it: test_collectives.py."""

import os
import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from jax.sharding import NamedSharding, PartitionSpec
from other_platforms import abstract_mesh

from permix_jax.core import sharding
from permix_jax.core.sharding import constrain, gather_as, make_mesh, shard_rows, spec
from permix_jax.models.params import create_params, param_shardings
from permix_jax.models.transformer import Decoder

# How each parameter of a layer is cut; written out, so that a change of the table shows.
WANTED = {
    "attention/query": PartitionSpec("fsdp", "tensor", None),
    "attention/key": PartitionSpec("fsdp", "tensor", None),
    "attention/value": PartitionSpec("fsdp", "tensor", None),
    "attention/out": PartitionSpec("tensor", None, "fsdp"),
    "attention_norm/scale": PartitionSpec(None),
    "mlp/gate": PartitionSpec("fsdp", "tensor"),
    "mlp/up": PartitionSpec("fsdp", "tensor"),
    "mlp/down": PartitionSpec("tensor", "fsdp"),
    "mlp_norm/scale": PartitionSpec(None),
}


def in_layers(params) -> dict:
    """Parameters by name without the layer: {"mlp/gate": [array of layer 0, of layer 1], ...}."""
    grouped = {}
    for path, value in flatten_dict(params, sep="/").items():
        grouped.setdefault(path.split("/", 1)[-1] if "layers" in path else path, []).append(value)
    return grouped


@pytest.fixture(scope="module")
def cube():
    return make_mesh(2, 2, 2)


@pytest.fixture(scope="module")
def cube_params(tiny_model, cube):
    return create_params(tiny_model, jax.random.key(0), cube)


def test_a_mesh_has_the_shape_asked_for_or_is_refused():
    assert dict(make_mesh(2, 1, 3).shape) == {"data": 2, "fsdp": 1, "tensor": 3}
    with pytest.raises(ValueError, match="= 16, but only 8 cpu device.*lower mesh.data"):
        make_mesh(4, 2, 2)
    for shape in ((0, 1, 1), (1, -1, 1), (1, 1, 0)):
        with pytest.raises(ValueError, match="each must be at least 1"):
            make_mesh(*shape)


FLAGS = ["--xla_gpu_deterministic_ops=true"]
FLAGS += ["--xla_gpu_enable_scatter_determinism_expander=false"]


def test_determinism_is_asked_for_once_and_keeps_other_flags(monkeypatch):
    monkeypatch.setattr(sharding, "backends_are_initialized", lambda: False)
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=x")
    for _ in range(2):
        make_mesh(1, 1, 1, deterministic=True)
        assert os.environ["XLA_FLAGS"].split() == ["--xla_dump_to=x", *FLAGS]


def test_determinism_that_comes_too_late_is_refused_on_gpus_alone(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    make_mesh(1, 1, 1, deterministic=True)  # a CPU sums in one order anyway
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ValueError, match="mesh.deterministic is True, but JAX has found its GPUs"):
        make_mesh(1, 1, 1, deterministic=True)
    monkeypatch.setenv("XLA_FLAGS", " ".join(FLAGS))
    make_mesh(1, 1, 1, deterministic=True)
    assert os.environ["XLA_FLAGS"].split() == FLAGS


def test_xla_knows_the_flags_of_determinism():
    """It ends a process that has an unknown one."""
    program = "from permix_jax.core.sharding import make_mesh; print(make_mesh(1, 1, 1, True).size)"
    env = {**os.environ, "XLA_FLAGS": ""}
    ran = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (0, "1\n"), ran.stderr


def test_spec_reads_the_table():
    assert spec("batch", None, "kv_heads") == PartitionSpec(("data", "fsdp"), None, "tensor")
    with pytest.raises(KeyError, match="unheard_of"):
        spec("unheard_of")


def test_parameters_lie_as_the_table_says(tiny_model, cube, cube_params):
    grouped = in_layers(cube_params)
    assert grouped.pop("embedding")[0].sharding.spec == PartitionSpec("tensor", "fsdp")
    assert grouped.pop("final_norm/scale")[0].sharding.is_fully_replicated
    assert set(grouped) == set(WANTED)
    for name, arrays in grouped.items():
        assert len(arrays) == tiny_model.config.num_layers
        for array in arrays:
            assert array.sharding.is_equivalent_to(NamedSharding(cube, WANTED[name]), array.ndim)
    shardings = param_shardings(tiny_model, cube)
    assert jax.tree.structure(shardings) == jax.tree.structure(cube_params)


def test_biases_are_cut_as_the_heads_that_they_belong_to(tiny_model, cube):
    biased = Decoder(replace(tiny_model.config, qkv_bias=True))
    attention = param_shardings(biased, cube)["layers_1"]["attention"]
    for name in ("query", "key", "value"):
        assert attention[name].spec == PartitionSpec("fsdp", "tensor", None)
        assert attention[f"{name}_bias"].spec == PartitionSpec("tensor")


def test_values_of_fresh_parameters_do_not_depend_on_the_mesh(tiny_params, cube_params):
    for mine, theirs in zip(*map(jax.tree.leaves, (cube_params, tiny_params)), strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert len(mine.addressable_shards) == 8


def test_rows_are_spread_over_data_and_fsdp(cube):
    numbers = np.arange(24).reshape(8, 3)
    tokens, keys = shard_rows((numbers, jax.random.split(jax.random.key(0), 4)), cube)
    assert {shard.data.shape for shard in tokens.addressable_shards} == {(2, 3)}
    assert {shard.data.shape for shard in keys.addressable_shards} == {(1,)}
    np.testing.assert_array_equal(tokens, numbers)


def test_constrain_places_on_the_current_mesh_and_is_the_identity_without_one(cube):
    x = jnp.zeros((4, 6, 8))
    assert constrain(x, "batch", None, "mlp") is x
    with jax.set_mesh(cube):
        placed = jax.jit(lambda x: constrain(x + 1, "batch", None, "mlp"))(x)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(1, 6, 4)}


def test_what_is_gathered_over_fsdp_is_sent_in_the_narrower_dtype(cube):
    """Left to itself XLA gathers f32 and converts then, which sends twice the bytes."""

    def placements(x, dtype):
        with jax.set_mesh(cube):
            jaxpr = jax.make_jaxpr(lambda x: gather_as(x, dtype, "vocab", "embed"))(x)
        assert jaxpr.out_avals[0].dtype == dtype
        return [
            (eqn.outvars[0].aval.dtype.name, eqn.params["sharding"].spec)
            for eqn in jaxpr.eqns
            if eqn.primitive.name == "sharding_constraint"
        ]

    kept, whole = PartitionSpec("tensor", "fsdp"), PartitionSpec("tensor", None)
    wide, narrow = jnp.ones((4, 6)), jnp.ones((4, 6), jnp.bfloat16)
    assert placements(wide, jnp.bfloat16) == [("bfloat16", kept), ("bfloat16", whole)]
    assert placements(narrow, jnp.float32) == [("bfloat16", whole)]
    # What has the dtype already may lie anywhere, such as gathered: it is not cut once more.
    assert placements(narrow, jnp.bfloat16) == [("bfloat16", whole)]


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_a_program_is_for_the_platform_of_its_mesh(platform):
    with jax.sharding.use_abstract_mesh(abstract_mesh(platform)):
        assert jax.eval_shape(lambda: {sharding.platform(): jnp.zeros(())}).keys() == {platform}
    assert sharding.platform() == "cpu"
