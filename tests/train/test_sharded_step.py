"""The whole GRPO update on one device and on meshes of eight, and several epochs over a batch."""

from functools import partial

import jax
import numpy as np
import pytest
from dense import dense_statistics
from grpo_batches import loss_config, packed, random_rollouts, small_decoder

from permix_jax.core.sharding import make_mesh, shard_packed
from permix_jax.models.lm_head import Scoring
from permix_jax.models.params import create_params
from permix_jax.train.gradients import packed_gradients
from permix_jax.train.loss import token_losses
from permix_jax.train.optimizer import make_optimizer
from permix_jax.train.state import abstract_state, create_state, make_step

MODEL = small_decoder(tie_embeddings=False, qkv_bias=True)
MESHES = [(8, 1, 1), (2, 2, 2), (1, 8, 1)]
LEARNING_RATE = 1e-2
# Clips so narrow that the second epoch meets both.
LOSS = loss_config(
    aggregation="grpo", clip_low=0.02, clip_high=0.03, kl_weight=0.1, mask_truncated=True
)


def logprobs(params, batch):
    arrays = *batch.prompts, *batch.completions[:2]
    return np.asarray(dense_statistics(MODEL, params, *arrays)[0])


RANDOM, REFERENCE = random_rollouts(1, prompts=16, samples=2, vocab=MODEL.config.vocab_size)


def updates(batch, mesh_shape, epochs=2):
    """[(state, metrics)] after each of `epochs` updates on one batch, as host arrays."""
    mesh = make_mesh(*mesh_shape)
    optimizer, _ = make_optimizer(LEARNING_RATE, 0, 10, "none", 0.0, 1.0)
    with jax.set_mesh(mesh):
        abstract = abstract_state(MODEL, optimizer, mesh)
        of_token, scoring = partial(token_losses, config=LOSS), Scoring(1.0, 64)
        gradients = partial(packed_gradients, MODEL, of_token, scoring)
        step = make_step(gradients, optimizer, abstract)
        state = create_state(create_params(MODEL, jax.random.key(0), mesh), optimizer, abstract)
        rows = mesh_shape[0] * mesh_shape[1]
        x = packed(batch, LOSS, REFERENCE, tokens=16 if rows > 1 else 64, rows=rows)
        assert x.rows.count > 1
        placed, results = shard_packed((x.rows, x.tokens), mesh), []
        for _ in range(epochs):
            state, metrics = step(state, *placed)
            results.append(jax.tree.map(np.asarray, (state, metrics)))
        for leaf, like in zip(jax.tree.leaves(state), jax.tree.leaves(abstract), strict=True):
            assert leaf.sharding.is_equivalent_to(like.sharding, leaf.ndim)
    return results


@pytest.fixture(scope="module")
def batch(mesh):
    """Rollouts with the true log-probs of the policy that the updates start from."""
    exact = logprobs(create_params(MODEL, jax.random.key(0), mesh), RANDOM)
    return RANDOM._replace(completions=RANDOM.completions._replace(logprobs=exact))


@pytest.fixture(scope="module")
def one_device(batch):
    return updates(batch, (1, 1, 1))


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_an_update_is_the_same_on_any_mesh(batch, one_device, shape):
    for (state, metrics), (expected, expected_metrics) in zip(
        updates(batch, shape), one_device, strict=True
    ):
        assert state.step == expected.step
        assert set(metrics) == set(expected_metrics)
        for name, value in expected_metrics.items():
            np.testing.assert_allclose(metrics[name], value, rtol=2e-5, atol=1e-6, err_msg=name)
        # Adam divides a gradient by its own size, so an entry near zero shows its rounding at
        # the size of the learning rate; a hundredth of it is far below any real difference.
        near = partial(np.testing.assert_allclose, atol=LEARNING_RATE / 100)
        jax.tree.map(near, state.params, expected.params)
        # The moments are the gradients (and their squares) themselves, to the rounding of f32.
        for a, b in zip(*map(jax.tree.leaves, (state.opt_state, expected.opt_state)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5 * np.abs(b).max())


def test_the_update_is_not_trivial(one_device):
    (first, metrics), (second, later) = one_device
    assert [int(first.step), int(second.step)] == [1, 2]
    assert float(metrics["grad_norm"]) > 0.01
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), first.params, second.params)
    assert min(jax.tree.leaves(moved)) > LEARNING_RATE / 10
    assert float(later["loss"]) < float(metrics["loss"])


def test_a_second_epoch_has_the_ratio_of_the_new_policy_to_the_one_that_sampled(batch, one_device):
    (first, metrics), (_, later) = one_device
    assert float(metrics["sampling/logp_difference"]) < 1e-5
    assert float(metrics["clip_ratio/low_mean"]) == float(metrics["clip_ratio/high_mean"]) == 0

    new, advantages = logprobs(first.params, batch), batch.advantages[:, None]
    ratio = np.exp(new - batch.completions.logprobs)
    low, high = (ratio < 0.98) & (advantages < 0), (ratio > 1.03) & (advantages > 0)
    to_reference = new - REFERENCE
    losses = -np.minimum(ratio * advantages, np.clip(ratio, 0.98, 1.03) * advantages)
    losses += 0.1 * (np.exp(-to_reference) - 1 + to_reference)

    ended = ~batch.completions.truncated
    kept = batch.completions.mask & ended[:, None]
    assert low[kept].any() and high[kept].any()
    of_rollouts = (losses * kept).sum(axis=1)[ended] / kept.sum(axis=1)[ended]
    expected = {
        "loss": of_rollouts.mean(),
        "sampling/logp_difference": np.abs(new - batch.completions.logprobs)[kept].mean(),
        "clip_ratio/low_mean": low[kept].mean(),
        "clip_ratio/high_mean": high[kept].mean(),
    }
    for name, value in expected.items():
        assert float(later[name]) == pytest.approx(float(value), rel=1e-4), name
