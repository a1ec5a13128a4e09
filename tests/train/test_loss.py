import jax
import jax.numpy as jnp
import numpy as np
import pytest
from grpo_batches import loss_config, losses_of, token_batch

from permix_jax.core.config_fields import FIELDS
from permix_jax.train.gradients import weighted
from permix_jax.train.loss import kl_term

AGGREGATIONS = FIELDS["grpo.aggregation"].rule.choices
RATIOS = jnp.array([0.5, 0.9, 1.1, 1.5])


def ratio_batch(advantage):
    """One rollout of four tokens whose old log-prob is 0, so that exp(log-prob) is the ratio."""
    return token_batch([4], 4, advantages=[advantage])


@pytest.mark.parametrize(
    ("advantage", "expected", "gradient", "low", "high"),
    [
        # 1.5 is clipped to 1.28; 0.5 is not, it must come back.
        (2, [-1.0, -1.8, -2.2, -2.56], [-1.0, -1.8, -2.2, 0], [0, 0, 0, 0], [0, 0, 0, 1]),
        # 0.5 is clipped to 0.8; 1.5 is not, it must come back.
        (-2, [1.6, 1.8, 2.2, 3.0], [0, 1.8, 2.2, 3.0], [1, 0, 0, 0], [0, 0, 0, 0]),
        (0, [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]),
    ],
)
def test_the_clipped_objective_by_hand(advantage, expected, gradient, low, high):
    """d(-ratio A)/d log-prob = -ratio A; a token that the clip holds has no gradient."""

    def loss(logprobs):
        losses, metrics = losses_of(logprobs, ratio_batch(advantage), loss_config())
        return losses.sum(), (losses, metrics)

    got, (losses, metrics) = jax.grad(loss, has_aux=True)(jnp.log(RATIOS)[None])
    np.testing.assert_allclose(losses[0], expected, rtol=1e-6)
    np.testing.assert_allclose(got[0], gradient, rtol=1e-6)
    assert metrics["clip_ratio/low_mean"][0].tolist() == low
    assert metrics["clip_ratio/high_mean"][0].tolist() == high
    difference = metrics["sampling/logp_difference"][0]
    np.testing.assert_allclose(difference, np.abs(np.log(RATIOS)), rtol=1e-6)


@pytest.mark.parametrize(
    ("loss", "low", "high"), [("ppo", 1, 1), ("cispo", 0, 1), ("reinforce", 0, 0)]
)
def test_clipping_is_counted_where_the_loss_clips(loss, low, high):
    """Ratios 0.5 with A < 0 and 2 with A > 0, of completions of one token."""
    old = jnp.log(jnp.array([[0.4], [0.4]]))
    batch = token_batch([1, 1], 1, logprobs=old, advantages=[-1, 1])
    new = old + jnp.log(jnp.array([[0.5], [2.0]]))
    _, metrics = losses_of(new, batch, loss_config(loss=loss))
    assert metrics["clip_ratio/low_mean"].astype(int).tolist() == [[low], [0]]
    assert metrics["clip_ratio/high_mean"].astype(int).tolist() == [[0], [high]]


def test_the_ratio_is_to_the_behaviour_policy():
    old = jnp.log(jnp.array([[0.2, 0.4, 0.5, 0.1]]))
    batch = token_batch([4], 4, logprobs=old, advantages=[1])
    losses, _ = losses_of(old + jnp.log(1.1), batch, loss_config())
    np.testing.assert_allclose(losses, -1.1 * np.ones((1, 4)), rtol=1e-6)


# Under the sampler each token had log-prob 0; under the trainer these, so importance 0.5, 1, 2, 4.
TRAINER = jnp.log(jnp.array([[0.5, 1.0, 2.0, 4.0]]))
CAP = loss_config(importance_cap=3.0)


def test_importance_weights_by_hand_and_their_cap():
    # The policy is 1.1 times what it was: to the trainer, not to the sampler.
    logprobs = TRAINER + jnp.log(1.1)
    losses, metrics = losses_of(logprobs, ratio_batch(1), CAP, trainer=TRAINER)
    np.testing.assert_allclose(losses[0], [-0.55, -1.1, -2.2, -3.3], rtol=1e-6)
    np.testing.assert_allclose(metrics["sampling/importance"][0], [0.5, 1, 2, 3], rtol=1e-6)
    difference = metrics["sampling/logp_difference"][0]
    np.testing.assert_allclose(difference, np.abs(TRAINER[0]), rtol=1e-6)
    assert not metrics["clip_ratio/low_mean"].any() and not metrics["clip_ratio/high_mean"].any()


def test_importance_weights_have_no_gradient():
    def loss(logprobs):
        return losses_of(logprobs, ratio_batch(2), CAP)[0].sum()

    # In a first update the trainer's log-probs are the policy's: ratio 1, and weights as above.
    np.testing.assert_allclose(jax.grad(loss)(TRAINER)[0], [-1, -2, -4, -6], rtol=1e-6)


def test_importance_weights_leave_the_kl_alone():
    reference = TRAINER - jnp.log(2.0)
    config = loss_config(importance_cap=3.0, kl_weight=0.1, kl_estimator="k2")
    losses, _ = losses_of(TRAINER, ratio_batch(0), config, reference=reference)
    np.testing.assert_allclose(losses[0], [0.1 * np.log(2) ** 2 / 2] * 4, rtol=1e-5)


def test_where_sampler_and_trainer_agree_the_correction_changes_nothing():
    logprobs, batch = jnp.log(RATIOS)[None], ratio_batch(-2)
    corrected, metrics = losses_of(logprobs, batch, CAP, trainer=jnp.zeros((1, 4)))
    np.testing.assert_array_equal(corrected, losses_of(logprobs, batch, loss_config())[0])
    assert not metrics["sampling/logp_difference"].any()


def test_a_sum_ignores_what_has_weight_zero_in_value_and_gradient():
    weights, values = jnp.array([0.5, 0, 0, 0.25]), jnp.array([2, jnp.nan, jnp.inf, 4])
    value, gradient = jax.value_and_grad(lambda values: weighted(weights, values).sum())(values)
    assert float(value) == 2
    assert gradient.tolist() == [0.5, 0, 0, 0.25]


@pytest.mark.parametrize(
    ("policy", "reference", "k2", "k3"),
    [
        (0.5, 0.25, np.log(2) ** 2 / 2, 0.5 - 1 + np.log(2)),
        (0.25, 0.5, np.log(2) ** 2 / 2, 2 - 1 - np.log(2)),
        (0.3, 0.3, 0, 0),
    ],
)
def test_kl_terms_by_hand(policy, reference, k2, k3):
    for estimator, expected in (("k2", k2), ("k3", k3)):
        term = kl_term(jnp.log(policy), jnp.log(reference), estimator)
        assert float(term) == pytest.approx(expected, abs=1e-7)


def test_the_kl_is_added_with_its_weight_and_logged_as_k3():
    logprobs = jnp.log(jnp.array([[0.5, 0.25]]))
    reference = jnp.log(jnp.array([[0.25, 0.5]]))
    batch = token_batch([2], 2, logprobs=logprobs, advantages=[1])
    config = loss_config(kl_weight=0.1, kl_estimator="k2")
    losses, metrics = losses_of(logprobs, batch, config, reference=reference)
    np.testing.assert_allclose(losses[0], [-1 + 0.1 * np.log(2) ** 2 / 2] * 2, rtol=1e-6)
    np.testing.assert_allclose(metrics["kl"][0], [np.log(2) - 0.5, 1 - np.log(2)], rtol=1e-6)


def test_without_a_kl_weight_the_reference_is_not_read():
    batch, nothing = token_batch([2], 2, advantages=[1]), np.full((1, 2), np.nan)
    losses, metrics = losses_of(jnp.zeros((1, 2)), batch, loss_config(), reference=nothing)
    assert losses.tolist() == [[-1, -1]]
    assert "kl" not in metrics


THETA = jnp.array([0.7, -0.4, 0.1, -1.2, 0.5])
REFERENCE = jax.nn.log_softmax(jnp.array([-0.3, 0.8, 0.2, 0.1, -0.9]))


def expected_gradient(term):
    """Gradient, by enumeration of all tokens y ~ pi, of what a sampled loss term(log pi(y)) is."""

    def loss(theta):
        logprobs = jax.nn.log_softmax(theta)
        return (jax.lax.stop_gradient(jnp.exp(logprobs)) * term(logprobs)).sum()

    return jax.grad(loss)(THETA)


def kl_policy_reference(theta):
    policy = jax.nn.log_softmax(theta)
    return (jnp.exp(policy) * (policy - REFERENCE)).sum()


def kl_reference_policy(theta):
    return (jnp.exp(REFERENCE) * (REFERENCE - jax.nn.log_softmax(theta))).sum()


@pytest.mark.parametrize(
    ("estimator", "descended", "other"),
    [
        ("k2", kl_policy_reference, kl_reference_policy),
        ("k3", kl_reference_policy, kl_policy_reference),
    ],
)
def test_an_estimator_descends_the_divergence_that_it_is_named_with(estimator, descended, other):
    got = expected_gradient(lambda logprobs: kl_term(logprobs, REFERENCE, estimator))
    np.testing.assert_allclose(got, jax.grad(descended)(THETA), atol=1e-7)
    # The two divergences do differ here.
    assert np.abs(got - jax.grad(other)(THETA)).max() > 0.05


def test_k1_would_descend_nothing():
    got = expected_gradient(lambda logprobs: logprobs - REFERENCE)
    np.testing.assert_allclose(got, np.zeros(5), atol=1e-7)


def test_as_a_value_k3_is_kl_of_policy_to_reference():
    policy = jax.nn.log_softmax(THETA)
    mean = (jnp.exp(policy) * kl_term(policy, REFERENCE, "k3")).sum()
    assert float(mean) == pytest.approx(float(kl_policy_reference(THETA)), rel=1e-6)
