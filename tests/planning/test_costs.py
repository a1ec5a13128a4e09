"""Counts of work, against formulas written out by hand."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import pack_arrays
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec
from runs import load_config

from permix_jax.core.sharding import make_mesh
from permix_jax.models.lm_head import Scoring
from permix_jax.models.logprobs import score
from permix_jax.planning.compiled import sampling_program
from permix_jax.planning.costs import (
    cache_bytes,
    decode_bytes,
    link_bytes,
    matmul_flops,
    read_share,
)
from permix_jax.rollout import sampler
from permix_jax.rollout.sampler import sample
from permix_jax.rollout.sampling import Sampling
from permix_jax.train.gradients import cross_entropy, packed_gradients
from permix_jax.train.supervised import SftTokens

U, P, B, T = 2, 3, 4, 5
# Of the tiny decoder: query and out, key and value, gate, up and down; two layers.
LINEAR = 2 * (2 * 16 * 4 * 8 + 2 * 16 * 2 * 8 + 3 * 16 * 24)
HEAD = 48 * 16


def attention(rows: int, queries: int, keys: int) -> int:
    """FLOPs of scores and of the sums over values, 4 heads of 8, two layers."""
    return 2 * 2 * 2 * rows * queries * keys * 4 * 8


@pytest.fixture(scope="module")
def prompts():
    return jnp.zeros((U, P), jnp.int32), jnp.ones((U, P), bool)


def test_matmuls_count_by_scan_length_loop_trips_and_the_dearest_branch():
    x, w = jnp.ones((2, 3)), jnp.ones((3, 3))
    one = 2 * 2 * 3 * 3

    def scanned(x):
        return jax.lax.scan(lambda x, _: (x @ w, None), x, length=7)[0]

    def looped(x):
        return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ w, x)

    def counted(x):
        def go_on(carry):
            return (carry[0] < 6) & (carry[1].sum() < 9)

        return jax.lax.while_loop(go_on, lambda c: (c[0] + 1, c[1] @ w), (0, x))

    def branched(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ w @ w, lambda x: x @ w, x)

    def count(function):
        return matmul_flops(jax.make_jaxpr(function)(x), loop_trips=5)

    assert count(lambda x: x @ w) == one
    assert count(jax.jit(scanned)) == 7 * one
    assert count(looped) == 5 * one
    assert count(counted) == 6 * one
    assert count(branched) == 2 * one
    assert count(lambda x: x + 1) == 0


def test_the_dimensions_of_a_batched_matmul_count_once():
    x, y = jnp.ones((5, 2, 3)), jnp.ones((5, 3, 4))
    jaxpr = jax.make_jaxpr(partial(jnp.einsum, "bij,bjk->bik"))(x, y)
    assert matmul_flops(jaxpr, loop_trips=1) == 2 * 5 * 2 * 3 * 4


def test_a_rollout_counts_its_prompts_once_and_every_decode_step(tiny_model, tiny_params, prompts):
    keys = jax.random.split(jax.random.key(0), B)
    traced = sample.trace(tiny_model, tiny_params, prompts, keys, Sampling(T), (1,))
    prefill = 2 * LINEAR * U * P + attention(U, P, P)
    step = 2 * (LINEAR + HEAD) * B + attention(B, 1, P + T)
    assert matmul_flops(traced.jaxpr, loop_trips=T) == prefill + T * step


def test_a_rollout_in_blocks_counts_those_that_are_written(
    tiny_model, tiny_params, prompts, monkeypatch
):
    """8 slots in 4 blocks: a token reads its own, and 0, 1, 2 or 3 older ones."""
    monkeypatch.setattr(sampler, "_SLOTS", 2)
    monkeypatch.setattr(sampler, "platform", lambda: "tpu")
    sample.clear_cache()
    keys = jax.random.split(jax.random.key(0), B)
    rollout = partial(sample.trace, tiny_model, tiny_params, prompts, keys, Sampling(8), (1,))
    found = sampling_program(rollout, 8).flops()
    sample.clear_cache()
    prefill = 2 * LINEAR * U * P + attention(U, P, P)
    tokens = 8 * (2 * (LINEAR + HEAD) * B + attention(B, 1, P))
    assert found == prefill + tokens + sum(attention(B, 1, 2 * n) * 2 for n in (1, 2, 3, 4))


def test_scoring_runs_each_token_once_and_its_gradient_thrice(tiny_model, tiny_params):
    """One packed row of L tokens, in n blocks that read at most J blocks each."""
    prompts, completions = (U, P), (B, T)
    shapes = (np.zeros(prompts, np.int32), np.ones(prompts, bool))
    packing = pack_arrays(*shapes, np.zeros(completions, np.int32), np.ones(completions, bool))
    rows, blocks = packing.rows, packing.rows.layout.blocks
    (_, _, L), (n, J) = rows.tokens.shape, blocks.shape[2:]
    assert rows.tokens.shape[:2] == (1, 1) and L == n * 8

    def gradients(params):
        tokens = SftTokens(np.float32(rows.scored))
        return packed_gradients(tiny_model, cross_entropy, Scoring(1.0, L), params, rows, tokens)

    attended, head = attention(n, 8, J * 8), 2 * HEAD * L
    forward = jax.make_jaxpr(lambda p: score(tiny_model, p, rows, Scoring(1.0, L)))(tiny_params)
    assert matmul_flops(forward, loop_trips=1) == 2 * LINEAR * L + attended + head
    # Backward costs twice the forward pass. Attention makes its scores once more, and takes a
    # product of each output with its gradient; each of five norms takes two products with a vector.
    again = attended // 2 + 2 * 2 * L * 4 * 8
    norms = 5 * 2 * 2 * 16 * L
    backward = jax.make_jaxpr(gradients)(tiny_params)
    wanted = 3 * (2 * LINEAR * L + attended + head) + again + norms
    assert matmul_flops(backward, loop_trips=1) == wanted


def test_a_kernel_counts_what_it_states_on_each_device():
    """Two visits of a loop, by 4 devices; what the kernel's code holds does not count."""

    def product(x, y, out):
        out[...] = x[...] @ y[...]

    def looped(x):
        stated = pl.CostEstimate(flops=1000, transcendentals=0, bytes_accessed=0)
        like = jax.ShapeDtypeStruct(x.shape, x.dtype)
        kernel = pl.pallas_call(product, out_shape=like, cost_estimate=stated, interpret=True)
        return jax.lax.fori_loop(0, 2, lambda _, x: kernel(x, x), x)

    by_row = PartitionSpec(("fsdp", "tensor"))
    with jax.set_mesh(make_mesh(1, 2, 2)):
        each = jax.shard_map(looped, in_specs=by_row, out_specs=by_row, check_vma=False)
        traced = jax.make_jaxpr(each)(np.ones((16, 4), np.float32))
    assert matmul_flops(traced, loop_trips=1) == 4 * 2 * 1000


@pytest.fixture
def config():
    """4 problems of 8 rollouts, 16 + 16 tokens, on 2 x 2 x 2 chips."""
    mesh = {"mesh__data": 2, "mesh__fsdp": 2, "mesh__tensor": 2}
    return load_config("permix.py", "tiny", train__problems_per_step=4, **mesh)


def test_the_cache_holds_prompts_once_and_is_cut_over_all_chips(tiny_model, config):
    shape = replace(tiny_model.config, dtype="bfloat16")
    # 4 prompts of 16 and 32 rollouts of 16; keys and values of 2 heads of 8 in 2 layers; 2 bytes.
    assert cache_bytes(shape, config, prompts=4) == (4 + 32) * 16 * 2 * 2 * 2 * 8 * 2 / 8


def test_a_token_reads_all_prompts_and_the_written_blocks(config, monkeypatch):
    """4 prompts of 16; of 32 rollouts of 16 the first 4, 8, 12 or 16 slots: 10 on average."""
    monkeypatch.setattr(sampler, "_SLOTS", 4)
    monkeypatch.setattr(sampler, "platform", lambda: "tpu")
    assert read_share(config, prompts=4) == (4 * 16 + 32 * 10) / ((4 + 32) * 16)
    monkeypatch.setattr(sampler, "platform", lambda: "gpu")
    assert read_share(config, prompts=4) == 1


def test_a_decode_step_reads_all_weights_but_the_input_embedding(tiny_model, config):
    tied, untied = (replace(tiny_model.config, tie_embeddings=tie) for tie in (True, False))
    assert decode_bytes(tied, 1000, cache=64.0, config=config) == 1000 * 4 / 2 + 64
    assert decode_bytes(untied, 1768, cache=64.0, config=config) == 1000 * 4 / 2 + 64


def test_links_carry_gathered_weights_and_summed_activations(tiny_model, config):
    only = partial(link_bytes, tiny_model.config, 1000, config, 64)
    # Half of the 500 weights of its tensor half, f32, lie on the chip's fsdp neighbour.
    assert only(weight_passes=3, passes=0) == 3 * 250 * 4
    # 16 tokens of width 16, f32; two sums a layer, two layers; 2 (n - 1) / n = 1.
    assert only(weight_passes=0, passes=3) == 3 * 2 * 2 * 16 * 16 * 4
    config.mesh.fsdp = config.mesh.tensor = 1
    assert only(weight_passes=3, passes=3) == 0
