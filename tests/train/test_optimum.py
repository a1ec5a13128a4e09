"""GRPO with a KL on a bandit of six arms, whose optimum is known in closed form.

The policy is a softmax over six logits, a completion one token, and the loss the project's own
advantages (scale "none"), token losses and token weights. A group of G rollouts has its own mean
as baseline, which holds 1/G of each rollout's reward, so that in expectation its policy gradient
is (1 - 1/G) times that of the reward: the optimum is that of rewards (1 - 1/G) r.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grpo_batches import loss_config, token_batch
from scipy.optimize import brentq

from permix_jax.train.advantages import group_advantages
from permix_jax.train.batch import token_weights
from permix_jax.train.loss import LossTokens, token_losses

REWARDS = np.array([1.0, 0.0, 0.6, 0.3, 0.9, 0.1])
REFERENCE = np.array([0.08, 0.3, 0.2, 0.22, 0.1, 0.1])
BETA = 0.4


def k2_optimum(rewards):
    """argmax E[r] - beta KL(pi || ref), which is ref exp(r / beta) / Z."""
    weights = REFERENCE * np.exp(rewards / BETA)
    return weights / weights.sum()


def k3_optimum(rewards):
    """argmax E[r] - beta KL(ref || pi), which is beta ref / (c - r).

    The gradient for logit a is pi_a (r_a - E r) + beta (ref_a - pi_a); at zero it gives pi with
    c = E r + beta, the number above max r with which pi sums to 1.
    """

    def arms(c):
        return BETA * REFERENCE / (c - rewards)

    low = (rewards + BETA * REFERENCE).max()  # there one arm alone has mass 1
    return arms(brentq(lambda c: arms(c).sum() - 1, low, rewards.max() + BETA, xtol=1e-15))


def descend(groups_of, estimator, steps=600):
    """Plain gradient descent on the logits.

    `groups_of(policy)` gives groups of arms int [groups, G] and their probabilities.
    """
    config = loss_config(aggregation="grpo", kl_weight=BETA, kl_estimator=estimator)

    @jax.jit
    def gradient(logits, arms, advantages, probabilities):
        old, size = jax.nn.log_softmax(logits), arms.shape[1]
        weights = token_weights(token_batch([1] * size, 1), config)[:, 0]

        def loss(logits):
            shares, reference = jnp.ones(arms.shape), jnp.log(REFERENCE)[arms]
            tokens = LossTokens(old[arms], advantages, None, shares, reference=reference)
            losses, _ = token_losses(jax.nn.log_softmax(logits)[arms], tokens, config)
            return probabilities @ (losses @ weights)

        return jax.grad(loss)(logits)

    logits = jnp.log(jnp.asarray(REFERENCE))
    for _ in range(steps):
        arms, probabilities = groups_of(np.asarray(jax.nn.softmax(logits), np.float64))
        ids = np.repeat(np.arange(len(arms)), arms.shape[1])
        advantages = group_advantages(REWARDS[arms].reshape(-1), ids, "none")
        logits -= 5.0 * gradient(
            logits, arms, advantages.reshape(arms.shape), jnp.asarray(probabilities, jnp.float32)
        )
    return np.asarray(jax.nn.softmax(logits))


def every_group(size):
    """All groups of `size` rollouts, each with its probability: the exact expectation."""
    arms = np.array(list(itertools.product(range(6), repeat=size)))
    return lambda policy: (arms, policy[arms].prod(axis=1))


def one_large_group(policy, size=4096):
    """One group in which each arm has its share of the rollouts, to within one rollout."""
    return np.searchsorted(policy.cumsum()[:-1], (np.arange(size) + 0.5) / size)[None], np.ones(1)


@pytest.mark.parametrize(("estimator", "optimum_of"), [("k2", k2_optimum), ("k3", k3_optimum)])
@pytest.mark.parametrize("size", [2, 3])
def test_small_groups_converge_to_the_optimum_of_shrunk_rewards(estimator, optimum_of, size):
    # The expectation is exact, and the slowest direction shrinks by about 1 - 5 * beta * min(pi)
    # < 0.94 a step, to nothing in 600: what is left is the rounding of f32.
    got = descend(every_group(size), estimator)
    np.testing.assert_allclose(got, optimum_of((1 - 1 / size) * REWARDS), atol=1e-6)


@pytest.mark.parametrize(("estimator", "optimum_of"), [("k2", k2_optimum), ("k3", k3_optimum)])
def test_a_large_group_converges_to_the_optimum(estimator, optimum_of):
    # A share is off by at most one rollout in 4096, which moves the gradient of its logit by at
    # most 2.5e-4 * |r - E r - beta d| < 2.5e-4 and so the probability, through a curvature of
    # beta, by at most 2.5e-4 / 0.4; 1 / G itself is as small.
    got = descend(one_large_group, estimator)
    np.testing.assert_allclose(got, optimum_of(REWARDS), atol=7e-4)
    # Far from where it started, and from the other estimator's optimum.
    other = k3_optimum if optimum_of is k2_optimum else k2_optimum
    assert np.abs(got - REFERENCE).max() > 0.1
    assert np.abs(got - other(REWARDS)).max() > 0.01
