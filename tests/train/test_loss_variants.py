"""Each variant of the policy loss, by hand and against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grpo_batches import loss_config, losses_of, token_batch

from permix_jax.core.config_fields import FIELDS
from permix_jax.train.batch import loss_tokens
from permix_jax.train.gradients import weighted
from permix_jax.train.loss import SAME_AS_POLICY, kl_term, token_losses, with_completions

RATIOS = jnp.array([0.5, 0.9, 1.1, 1.5])
LOSSES = FIELDS["grpo.loss"].rule.choices


def of_ratios(advantage, **changes):
    """(losses, gradients by log-probs) of four tokens whose ratios to the sampler are RATIOS."""
    batch, config = token_batch([4], 4, advantages=advantage), loss_config(**changes)

    def losses(logprobs):
        tokens = with_completions(logprobs, loss_tokens(batch, config), config)
        return token_losses(logprobs, tokens, config)[0]

    logprobs = jnp.log(RATIOS)[None]
    return losses(logprobs)[0], jax.grad(lambda x: losses(x).sum())(logprobs)[0]


def test_reinforce_knows_no_ratio():
    losses, gradients = of_ratios(2, loss="reinforce")
    np.testing.assert_allclose(losses, -2 * np.log(RATIOS), rtol=1e-6)
    np.testing.assert_allclose(gradients, [-2, -2, -2, -2])


@pytest.mark.parametrize("advantage", [2, -3])
def test_cispo_clips_the_weight_and_keeps_the_gradient_of_every_token(advantage):
    losses, gradients = of_ratios(advantage, loss="cispo")
    weights = np.array([0.5, 0.9, 1.1, 1.28])
    np.testing.assert_allclose(gradients, -advantage * weights, rtol=1e-6)
    np.testing.assert_allclose(losses, -advantage * weights * np.log(RATIOS), rtol=1e-6)


@pytest.mark.parametrize(
    ("advantage", "expected", "gradient"),
    [
        (2, [-1.0, -1.8, -2.2, -2.56], [-1.0, -1.8, -2.2, 0]),
        # Without the second clip the last would be 3.0, and would have a gradient.
        (-2, [1.6, 1.8, 2.2, 2.4], [0, 1.8, 2.2, 0]),
    ],
)
def test_the_dual_clip_caps_the_loss_of_bad_tokens(advantage, expected, gradient):
    losses, gradients = of_ratios(advantage, dual_clip=1.2)
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    np.testing.assert_allclose(gradients, gradient, rtol=1e-6)


# ---- sequence ratios ---------------------------------------------------------------------------

LENGTHS = [1, 4, 3]
OLD = np.array([[-1.0, 9, 9, 9], [-0.5, -1, -2, -0.1], [-0.7, -0.7, -3, 9]], np.float32)
NEW = OLD + np.array([[0.1, 9, 9, 9], [0.4, -0.2, 0.3, 0.3], [-0.3, -0.6, 0.1, 9]], np.float32)
ADVANTAGES = np.array([1.5, 0.5, -1.0], np.float32)
GSPO = loss_config(loss="gspo", aggregation="grpo", clip_low=0.3, clip_high=0.5)


def in_one_row(tokens):
    """Arrays [N, T] as one row of the tokens that exist, one completion after another."""
    mask = np.arange(4) < np.array(LENGTHS)[:, None]
    return jax.tree.map(lambda x: jnp.asarray(x[mask])[None], tokens), mask


def gspo(new, lengths=LENGTHS):
    """The objective of the paper's eq. 5, with min(s A, clip(s) A) of whole completions."""
    mask = np.arange(4) < np.array(lengths)[:, None]
    ratio = jnp.exp((jnp.where(mask, new - OLD, 0)).sum(axis=1) / mask.sum(axis=1))
    clipped = jnp.clip(ratio, 0.7, 1.5)
    return -jnp.minimum(ratio * ADVANTAGES, clipped * ADVANTAGES).mean()


def test_gspo_is_the_objective_of_sequence_ratios_in_value_and_gradient():
    batch = token_batch(LENGTHS, 4, logprobs=OLD, advantages=ADVANTAGES)
    tokens, mask = in_one_row(loss_tokens(batch, GSPO))

    def total(new):
        prepared = with_completions(new, tokens, GSPO)
        return weighted(tokens.weights, token_losses(new, prepared, GSPO)[0]).sum()

    value, gradient = jax.value_and_grad(total)(jnp.asarray(NEW[mask])[None])
    wanted, wanted_gradient = jax.value_and_grad(gspo)(jnp.asarray(NEW))
    assert float(value) == pytest.approx(float(wanted), rel=1e-6)
    np.testing.assert_allclose(gradient[0], wanted_gradient[mask], rtol=1e-5)
    assert np.abs(gradient).min() > 1e-3


def test_a_clipped_completion_has_no_gradient_under_gspo():
    narrow = loss_config(loss="gspo", clip_low=0.01, clip_high=0.01)
    batch = token_batch(LENGTHS, 4, logprobs=OLD, advantages=[1, 1, 1])
    tokens, mask = in_one_row(loss_tokens(batch, narrow))

    def total(new):
        return token_losses(new, with_completions(new, tokens, narrow), narrow)[0].sum()

    gradient = jax.grad(total)(jnp.asarray(NEW[mask])[None])[0]
    # The first two ratios are above 1.01, the third, exp(-0.8 / 3), is below 0.99 and comes back.
    np.testing.assert_allclose(gradient, [0] * 5 + [-np.exp(-0.8 / 3)] * 3, rtol=1e-5, atol=1e-7)


def test_a_completion_of_another_row_and_a_token_left_out_move_no_ratio():
    batch = token_batch(LENGTHS, 4, logprobs=OLD, advantages=ADVANTAGES, truncated=[0, 1, 0])
    config = loss_config(loss="gspo", mask_truncated=True)
    tokens = loss_tokens(batch, config)
    got = with_completions(jnp.asarray(NEW), tokens, config).mean_log_ratio
    np.testing.assert_allclose(got[0], [0.1] * 4, rtol=1e-5)
    np.testing.assert_allclose(got[2], [-0.8 / 3] * 4, rtol=1e-5)
    assert not np.asarray(got[1]).any()


# ---- sampler and trainer -----------------------------------------------------------------------

TRAINER = jnp.log(jnp.array([[0.25, 1.0, 2.0, 4.0]]))  # under the sampler: log-prob 0


@pytest.mark.parametrize(
    ("how", "cap", "expected"),
    [
        ("token", 3.0, [0.25, 1, 2, 3]),
        ("mask", 3.0, [0, 1, 2, 0]),  # 0.25 is below 1 / 3, 4 is above 3
        ("sequence", 3.0, [2, 2, 2, 2]),  # 0.25 * 1 * 2 * 4
        ("sequence", 1.5, [1.5, 1.5, 1.5, 1.5]),
    ],
)
def test_importance_weights_by_hand(how, cap, expected):
    config = loss_config(importance=how, importance_cap=cap)
    batch = token_batch([4], 4, advantages=1)
    tokens = loss_tokens(batch, config)._replace(trainer=TRAINER)
    tokens = with_completions(TRAINER, tokens, config)
    losses, metrics = token_losses(TRAINER, tokens, config)
    np.testing.assert_allclose(metrics["sampling/importance"][0], expected, rtol=1e-6)
    np.testing.assert_allclose(losses[0], -np.array(expected), rtol=1e-6)


# ---- KL ----------------------------------------------------------------------------------------

THETA = jnp.array([0.7, -0.4, 0.1, -1.2, 0.5])
BEHAVIOUR = jax.nn.log_softmax(jnp.array([0.2, -0.1, 0.9, -0.3, 0.0]))
REFERENCE = jax.nn.log_softmax(jnp.array([-0.3, 0.8, 0.2, 0.1, -0.9]))


def test_k3_ratio_descends_kl_of_policy_to_reference_also_off_policy():
    def sampled(theta):
        policy = jax.nn.log_softmax(theta)
        term = kl_term(policy, REFERENCE, "k3_ratio", jnp.exp(policy - BEHAVIOUR))
        return (jnp.exp(BEHAVIOUR) * term).sum()

    def kl(theta):
        policy = jax.nn.log_softmax(theta)
        return (jnp.exp(policy) * (policy - REFERENCE)).sum()

    assert float(sampled(THETA)) == pytest.approx(float(kl(THETA)), rel=1e-5)
    np.testing.assert_allclose(jax.grad(sampled)(THETA), jax.grad(kl)(THETA), atol=1e-6)


def test_in_the_loss_the_ratio_of_k3_ratio_is_the_tokens_own():
    old, reference = np.log([[0.4, 0.5]]), np.log([[0.25, 0.5]])
    config = loss_config(kl_weight=0.1, kl_estimator="k3_ratio")
    batch = token_batch([2], 2, logprobs=old.astype(np.float32))
    losses, metrics = losses_of(
        jnp.log(jnp.array([[0.5, 0.25]])), batch, config, reference=reference
    )
    k3 = np.array([np.log(2) - 0.5, 1 - np.log(2)])
    np.testing.assert_allclose(metrics["kl"][0], k3, rtol=1e-6)
    np.testing.assert_allclose(losses[0], 0.1 * np.array([1.25, 0.5]) * k3, rtol=1e-6)


@pytest.mark.parametrize("estimator", FIELDS["grpo.kl_estimator"].rule.choices)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_where_the_policy_is_the_reference_the_kl_and_its_gradient_are_exactly_0(estimator, dtype):
    config = loss_config(kl_weight=0.1, kl_estimator=estimator)
    batch = token_batch([4], 4, logprobs=np.full((1, 4), -0.7, np.float32))
    reference = np.full((1, 4), SAME_AS_POLICY)

    def total(logprobs):
        losses, metrics = losses_of(
            logprobs.astype(jnp.float32), batch, config, reference=reference
        )
        return losses.sum(), metrics["kl"]

    logprobs = jnp.log(RATIOS).astype(dtype)[None]
    gradient, kl = jax.grad(total, has_aux=True)(logprobs)
    assert not np.asarray(kl).any() and not np.asarray(gradient, np.float32).any()


def test_a_kl_in_the_reward_is_not_in_the_loss():
    config = loss_config(kl_weight=0.5, kl_in="reward")
    losses, metrics = losses_of(
        jnp.zeros((1, 2)), token_batch([2], 2, advantages=1), config, reference=np.full((1, 2), -1)
    )
    np.testing.assert_allclose(losses[0], [-1, -1])
    np.testing.assert_allclose(metrics["kl"][0], [np.exp(-1)] * 2, rtol=1e-6)


# ---- dead groups -------------------------------------------------------------------------------


@pytest.mark.parametrize("aggregation", FIELDS["grpo.aggregation"].rule.choices)
@pytest.mark.parametrize("loss", LOSSES)
def test_dropped_groups_are_as_if_they_were_not_there(aggregation, loss):
    """Of four groups of two, three are dead; the KL moves none of them, and no mean counts them."""
    config = loss_config(
        loss=loss, aggregation=aggregation, dead_groups="drop", kl_weight=0.1, importance_cap=2.0,
        importance="sequence",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    shape, live = (8, 4), np.array([0, 0, 0, 0, 1, 1, 0, 0], bool)
    lengths = np.array([4, 2, 3, 1, 2, 4, 4, 4])
    arrays = rng.normal(-1, 0.3, (4, *shape)).astype(np.float32)
    advantages = np.where(live, [0, 0, 0, 0, 1, -1, 0, 0], 0)
    groups = np.repeat(np.arange(4), 2)

    def gradient(rows):
        batch = token_batch(
            lengths[rows], 4, logprobs=arrays[0][rows], advantages=advantages[rows]
        )._replace(group=groups[rows])
        tokens = loss_tokens(batch, config)._replace(
            reference=arrays[1][rows], trainer=arrays[2][rows]
        )

        def total(logprobs):
            prepared = with_completions(logprobs, tokens, config)
            losses, metrics = token_losses(logprobs, prepared, config)
            means = {name: weighted(tokens.shares, x).sum() for name, x in metrics.items()}
            return weighted(tokens.weights, losses).sum(), means

        return jax.grad(total, has_aux=True)(arrays[3][rows])

    (every, metrics), (alone, expected) = gradient(np.ones(8, bool)), gradient(live)
    np.testing.assert_allclose(every[live], alone, rtol=1e-6)
    assert np.abs(alone).max() > 1e-2 and not np.asarray(every[~live]).any()
    for name in metrics:
        np.testing.assert_allclose(metrics[name], expected[name], rtol=1e-6)
