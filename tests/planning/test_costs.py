"""Counts of work, against formulas written out by hand."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import pytest
from runs import load_config

from permix_jax.models.lm_head import TokenLoss, head_loss
from permix_jax.models.logprobs import completion_logprobs, completion_states, head_weight
from permix_jax.planning.costs import cache_bytes, decode_bytes, link_bytes, matmul_flops
from permix_jax.rollout.sampler import sample
from permix_jax.rollout.sampling import Sampling

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

    def branched(x):
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ w @ w, lambda x: x @ w, x)

    count = lambda f: matmul_flops(jax.make_jaxpr(f)(x), loop_trips=5)  # noqa: E731
    assert count(lambda x: x @ w) == one
    assert count(jax.jit(scanned)) == 7 * one
    assert count(looped) == 5 * one
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


def test_scoring_runs_each_token_once_and_its_gradient_thrice(tiny_model, tiny_params, prompts):
    completions = jnp.zeros((B, T), jnp.int32), jnp.ones((B, T), bool)

    def total(params, model):
        return completion_logprobs(model, params, *prompts, *completions, 1.0, 20).sum()

    def loss(params, model):
        hidden = completion_states(model, params, *prompts, *completions)
        tokens = *completions, jnp.zeros((B, T))
        summed = TokenLoss(jnp.multiply, 1.0, 20)
        return head_loss(summed, hidden, head_weight(model, params), *tokens)[0]

    # The last token of a completion predicts nothing, so it is only predicted.
    layers = 2 * LINEAR * (U * P + B * (T - 1))
    layers += attention(U, P, P) + attention(B, T - 1, P + T - 1)
    head = 2 * HEAD * B * T
    forward = jax.make_jaxpr(partial(total, model=tiny_model))(tiny_params)
    assert matmul_flops(forward, loop_trips=1) == layers + head
    # Backward costs twice the forward pass, and each of five norms two products with a vector.
    norms = 5 * 2 * 2 * 16 * (U * P + B * (T - 1))
    backward = jax.make_jaxpr(jax.grad(partial(loss, model=tiny_model)))(tiny_params)
    assert matmul_flops(backward, loop_trips=1) == 3 * (layers + head) + norms


@pytest.fixture
def config():
    """4 problems of 8 rollouts, 16 + 16 tokens, on 2 x 2 x 2 chips."""
    return load_config(
        "permix.py",
        "tiny",
        train__problems_per_step=4,
        mesh__data=2,
        mesh__fsdp=2,
        mesh__tensor=2,
    )


def test_the_cache_holds_prompts_once_and_is_cut_over_all_chips(tiny_model, config):
    shape = replace(tiny_model.config, dtype="bfloat16")
    # 4 prompts of 16 and 32 rollouts of 16; keys and values of 2 heads of 8 in 2 layers; 2 bytes.
    assert cache_bytes(shape, config, prompts=4) == (4 + 32) * 16 * 2 * 2 * 2 * 8 * 2 / 8


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
