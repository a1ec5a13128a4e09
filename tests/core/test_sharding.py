"""The mesh, the table of logical axes, and a model that computes the same on any mesh."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import pack_arrays, unpack
from flax.traverse_util import flatten_dict
from jax.sharding import NamedSharding, PartitionSpec
from other_platforms import abstract_mesh

from permix_jax.core import sharding
from permix_jax.core.sharding import constrain, gather_as, make_mesh, shard_packed, shard_rows, spec
from permix_jax.models.lm_head import Scoring
from permix_jax.models.logprobs import score
from permix_jax.models.params import create_params, param_shardings
from permix_jax.rollout.sampler import sample
from permix_jax.rollout.sampling import Sampling

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


def test_a_mesh_has_the_shape_asked_for():
    mesh = make_mesh(2, 1, 3)
    assert dict(mesh.shape) == {"data": 2, "fsdp": 1, "tensor": 3}


def test_a_mesh_of_more_devices_than_there_are_is_refused():
    with pytest.raises(ValueError, match="= 16, but only 8 cpu device.*lower mesh.data"):
        make_mesh(4, 2, 2)


@pytest.mark.parametrize("shape", [(0, 1, 1), (1, -1, 1), (1, 1, 0)])
def test_an_axis_below_one_is_refused(shape):
    with pytest.raises(ValueError, match="each must be at least 1"):
        make_mesh(*shape)


FLAGS = (
    "--xla_gpu_deterministic_ops=true --xla_gpu_enable_scatter_determinism_expander=false".split()
)


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


@pytest.mark.parametrize("shape", [(1, 2, 1), (2, 4, 1), (1, 2, 2), (8, 1, 1)])
def test_bytes_per_device_fall_with_the_cut(tiny_model, tiny_params, shape):
    """Weights fall as 1 / (fsdp * tensor); norms, and copies over `data`, are whole."""
    shardings = param_shardings(tiny_model, make_mesh(*shape))

    def share(array, sharding):
        return np.prod(sharding.shard_shape(array.shape)) / array.size

    shares = flatten_dict(jax.tree.map(share, tiny_params, shardings), sep="/")
    _, fsdp, tensor = shape
    for name, value in shares.items():
        assert value == (1 if "norm" in name else 1 / (fsdp * tensor)), name


def test_values_of_fresh_parameters_do_not_depend_on_the_mesh(tiny_params, cube_params):
    for mine, theirs in zip(*map(jax.tree.leaves, (cube_params, tiny_params)), strict=True):
        np.testing.assert_array_equal(mine, theirs)
        assert len(mine.addressable_shards) == 8


def test_rows_are_spread_over_data_and_fsdp(cube):
    tokens, keys = shard_rows(
        (np.arange(24).reshape(8, 3), jax.random.split(jax.random.key(0), 4)), cube
    )
    assert {shard.data.shape for shard in tokens.addressable_shards} == {(2, 3)}
    assert {shard.data.shape for shard in keys.addressable_shards} == {(1,)}
    np.testing.assert_array_equal(tokens, np.arange(24).reshape(8, 3))


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


def test_sampling_and_scoring_on_eight_devices_equal_one(
    tiny_model, tiny_params, cube, cube_params
):
    prompts = np.random.default_rng(0).integers(0, 48, (4, 6), np.int32)
    mask = np.arange(6) < np.array([[3], [6], [1], [5]])
    keys = jax.random.split(jax.random.key(1), 8)
    sampling, end_tokens = Sampling(8, temperature=0.9), (3, 7, 11)

    def run(params, *arrays):
        return sample(tiny_model, params, arrays, keys, sampling, end_tokens)

    def scores(params, completions, rows, place=lambda x: x):
        on_host = jax.tree.map(np.asarray, (completions.tokens, completions.mask))
        packing = pack_arrays(prompts, mask, *on_host, tokens=32, rows=rows)
        found = score(tiny_model, params, place(packing.rows), Scoring(0.9, 16))
        return unpack(packing, found, on_host[1])

    completions = run(tiny_params, prompts, mask)
    logprobs = scores(tiny_params, completions, 1)
    with jax.set_mesh(cube):
        placed, keys = shard_rows((prompts, mask), cube), shard_rows(keys, cube)
        sharded = run(cube_params, *placed)
        scored = scores(cube_params, sharded, 4, lambda rows: shard_packed(rows, cube))
    np.testing.assert_array_equal(sharded.tokens, completions.tokens)
    np.testing.assert_array_equal(sharded.mask, completions.mask)
    np.testing.assert_array_equal(sharded.truncated, completions.truncated)
    np.testing.assert_allclose(sharded.logprobs, completions.logprobs, atol=1e-5)
    inside = np.asarray(completions.mask)
    np.testing.assert_allclose(scored[inside], logprobs[inside], atol=1e-5)
    np.testing.assert_allclose(scored[inside], completions.logprobs[inside], atol=1e-5)
    assert len(sharded.tokens.sharding.device_set) == 8


@pytest.mark.parametrize("platform", ["cpu", "gpu", "tpu"])
def test_a_program_is_for_the_platform_of_its_mesh(platform):
    with jax.sharding.use_abstract_mesh(abstract_mesh(platform)):
        assert jax.eval_shape(lambda: {sharding.platform(): jnp.zeros(())}).keys() == {platform}
    assert sharding.platform() == "cpu"
