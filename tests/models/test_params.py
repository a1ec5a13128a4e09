"""What a run holds of a policy that it does not train."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from grpo_batches import loss_config, packed, random_rollouts, small_decoder
from jax.sharding import NamedSharding

from permix_jax.core.sharding import make_mesh
from permix_jax.models.lm_head import Scoring
from permix_jax.models.logprobs import score
from permix_jax.models.params import abstract_params, create_params, narrowed, unchanged

# Every kind of parameter that a decoder can have.
KINDS = {"qkv_bias": True, "qk_norm": True, "post_norms": True}


def decoder(**changes):
    return small_decoder(**KINDS, **changes)


def varied(params):
    """No norm is 1 and no bias is 0, and none of them is a number of bf16."""
    return jax.tree.map(lambda x: x * 1.001 + 0.0123 if x.ndim == 1 else x, params)


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_narrowed_parameters_score_the_same_bits(tied):
    model = decoder(dtype="bfloat16", tie_embeddings=tied)
    params = varied(create_params(model, jax.random.key(0), make_mesh(1, 1, 1)))
    few = narrowed(model, params)
    kinds = {(x.ndim > 1, str(x.dtype)) for x in jax.tree.leaves(few)}
    assert kinds == {(True, "bfloat16"), (False, "float32")}
    batch, reference = random_rollouts(0, 8, 2, vocab=40)
    rows = jax.tree.map(jnp.asarray, packed(batch, loss_config(), reference, tokens=48).rows)
    scores = [np.asarray(score(model, x, rows, Scoring(0.9, 16))) for x in (params, few)]
    assert np.abs(scores[0]).max() > 1
    np.testing.assert_array_equal(*scores)


def test_nothing_is_widened_and_nothing_copied_where_nothing_is_narrower():
    fields = ({}, {"dtype": "bfloat16", "param_dtype": "bfloat16"}, {"param_dtype": "bfloat16"})
    for model in (decoder(**changes) for changes in fields):
        params = create_params(model, jax.random.key(0), make_mesh(1, 1, 1))
        pairs = zip(*map(jax.tree.leaves, (narrowed(model, params), params)), strict=True)
        assert all(x is y for x, y in pairs)


def test_shapes_without_arrays_keep_their_shardings():
    model, mesh = decoder(dtype="bfloat16"), make_mesh(1, 2, 2)
    few = flatten_dict(narrowed(model, abstract_params(model, mesh)))
    for path, x in flatten_dict(abstract_params(model, mesh)).items():
        assert isinstance(few[path].sharding, NamedSharding)
        assert few[path].sharding == x.sharding
        assert few[path].dtype == ("float32" if x.ndim == 1 else "bfloat16")


@pytest.mark.parametrize("changed", ["none", "matrix", "norm", "below bf16"])
def test_a_policy_is_its_narrowed_base_while_it_computes_with_the_same_numbers(changed):
    model = decoder(dtype="bfloat16")
    policy = create_params(model, jax.random.key(0), make_mesh(1, 1, 1))
    base = narrowed(model, policy)
    policy = dict(policy)
    embedding, norm = policy["embedding"], policy["final_norm"]["scale"]
    policy |= {
        "none": {},
        "matrix": {"embedding": embedding.at[3, 4].add(0.1)},
        "norm": {"final_norm": {"scale": norm.at[2].add(1e-6)}},
        "below bf16": {"embedding": base["embedding"].astype(jnp.float32)},
    }[changed]
    assert bool(unchanged(policy, base)) == (changed in ("none", "below bf16"))
