from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import dense_statistics
from grpo_batches import (
    assert_close,
    loss_config,
    losses_of,
    packed,
    random_rollouts,
    small_decoder,
    token_batch,
)

from permix_jax.core.config_fields import FIELDS
from permix_jax.models.lm_head import Scoring
from permix_jax.models.params import create_params
from permix_jax.rollout.sampler import sample
from permix_jax.rollout.sampling import Sampling
from permix_jax.train.batch import (
    loss_tokens,
    mini_batch_tokens,
    of_problems,
    token_weights,
)
from permix_jax.train.gradients import accumulate, packed_gradients, weighted
from permix_jax.train.loss import entropy_factors, token_losses, with_completions

MODEL = small_decoder()
AGGREGATIONS = FIELDS["grpo.aggregation"].rule.choices
TEMPERATURE = 0.8
BATCH, REFERENCE = random_rollouts(6, prompts=4, samples=2, vocab=MODEL.config.vocab_size)
KL = {"kl_weight": 0.1, "kl_estimator": "k3"}


@pytest.fixture(scope="module")
def params(mesh):
    return create_params(MODEL, jax.random.key(0), mesh)


@pytest.fixture(scope="module")
def gradients(params):
    """(batch, loss, reference, **of its packing) -> (gradients, metrics), compiled once a shape."""

    @partial(jax.jit, static_argnames="loss")
    def run(params, rows, tokens, loss):
        of_token, scoring = partial(token_losses, config=loss), Scoring(TEMPERATURE, 16)
        options = {"prepare": partial(with_completions, config=loss)} if loss.of_completions else {}
        if loss.entropy_weight:
            options["entropy"] = partial(entropy_factors, config=loss)
        return packed_gradients(MODEL, of_token, scoring, params, rows, tokens, **options)

    def of_batch(batch, loss, reference=None, **packing):
        if reference is None and loss.kl_weight:
            reference = REFERENCE
        x = packed(batch, loss, reference, **packing)
        return run(params, x.rows, x.tokens, loss)

    return of_batch


def of(batch, **changes):
    """The batch with other fields of its completions."""
    return batch._replace(completions=batch.completions._replace(**changes))


def norm(tree):
    return max(float(jnp.abs(x).max()) for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_micro_batches_add_up_to_the_whole(gradients, aggregation):
    # Truncated rollouts are left out, so that parts differ in how many rollouts and tokens count.
    loss = loss_config(aggregation=aggregation, mask_truncated=True, **KL)
    whole, metrics = gradients(BATCH, loss)
    assert norm(whole) > 1e-3
    assert float(metrics["clip_ratio/low_mean"]) > 0 < float(metrics["clip_ratio/high_mean"])
    for packing in ({"tokens": 16}, {"tokens": 16, "rows": 2}):
        assert packed(BATCH, loss, **packing).rows.count > 1
        assert_close(gradients(BATCH, loss, **packing), (whole, metrics))


def test_metrics_are_means_over_the_tokens_that_the_loss_sees(gradients, params):
    loss = loss_config(aggregation="grpo", mask_truncated=True, **KL)
    _, metrics = gradients(BATCH, loss)
    sampled = BATCH.completions
    arrays = *BATCH.prompts, sampled.tokens, sampled.mask
    logprobs, entropy = dense_statistics(MODEL, params, *arrays, TEMPERATURE)
    kept = sampled.mask & ~sampled.truncated[:, None]
    assert 0 < kept.sum() < sampled.mask.sum()

    difference = (np.asarray(logprobs) - sampled.logprobs)[kept]
    advantages = np.broadcast_to(BATCH.advantages[:, None], kept.shape)[kept]
    to_reference = (np.asarray(logprobs) - REFERENCE)[kept]
    expected = {
        "sampling/logp_difference": np.abs(difference).mean(),
        "sampling/logp_difference_max": np.abs(difference).max(),
        "clip_ratio/low_mean": ((np.exp(difference) < 0.8) & (advantages < 0)).mean(),
        "clip_ratio/high_mean": ((np.exp(difference) > 1.28) & (advantages > 0)).mean(),
        "kl": (np.exp(-to_reference) - 1 + to_reference).mean(),
        "entropy": np.asarray(entropy)[kept].mean(),
    }
    assert set(metrics) == {"loss", *expected}
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(float(value), rel=1e-5), name


def test_a_shared_prompt_is_the_same_as_a_repeated_one(gradients):
    loss = loss_config(**KL)
    repeated = BATCH._replace(prompts=[np.repeat(x, 2, axis=0) for x in BATCH.prompts])
    assert_close(gradients(repeated, loss), gradients(BATCH, loss))


@pytest.mark.parametrize("garbage", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("mask_truncated", [False, True])
def test_what_the_loss_does_not_see_changes_nothing(gradients, garbage, mask_truncated):
    loss = loss_config(mask_truncated=mask_truncated, **KL)
    sampled = BATCH.completions
    kept = sampled.mask & ~(mask_truncated & sampled.truncated[:, None])
    broken = np.where(kept, [sampled.logprobs, REFERENCE], garbage).astype(np.float32)
    got = gradients(of(BATCH, logprobs=broken[0]), loss, broken[1])
    expected = gradients(BATCH, loss)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_tokens_after_the_end_change_nothing(gradients):
    loss = loss_config(**KL)
    tokens = np.where(BATCH.completions.mask, BATCH.completions.tokens, 7)
    assert_close(gradients(of(BATCH, tokens=tokens), loss), gradients(BATCH, loss))


def test_garbage_in_the_policys_own_logprobs_reaches_no_gradient():
    batch = token_batch([1, 3, 2], 3, advantages=[1, -1, 2], truncated=[False, True, False])
    config = loss_config(mask_truncated=True, **KL)
    kept = np.array([[1, 0, 0], [0, 0, 0], [1, 1, 0]], bool)

    def loss(logprobs):
        losses, _ = losses_of(logprobs, batch, config, reference=np.zeros((3, 3)))
        return weighted(token_weights(batch, config), losses).sum()

    clean = jax.grad(loss)(jnp.where(kept, -0.1, 0.0))
    assert (np.asarray(clean) != 0).tolist() == kept.tolist()
    for garbage in (jnp.nan, jnp.inf, -jnp.inf):
        np.testing.assert_array_equal(jax.grad(loss)(jnp.where(kept, -0.1, garbage)), clean)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("mask_truncated", [False, True])
def test_rollouts_without_a_reward_are_as_if_they_were_not_there(
    gradients, aggregation, mask_truncated
):
    """2 of 8 have none, one of each prompt's four; whatever their advantages and log-probs."""
    sizes = {"prompts": 2, "samples": 4, "vocab": MODEL.config.vocab_size}
    whole, reference = random_rollouts(6, **sizes)
    rewards, known = whole.rewards.copy(), np.ones(8, bool)
    rewards[[1, 6]], known[[1, 6]] = np.nan, False
    alone = jax.tree.map(lambda x: x[known], whole._replace(prompts=None))
    alone = alone._replace(prompts=whole.prompts)
    loss = loss_config(aggregation=aggregation, mask_truncated=mask_truncated, **KL)
    got = gradients(whole._replace(rewards=rewards), loss, reference)
    expected = gradients(alone, loss, reference[known])
    assert norm(expected[0]) > 1e-3
    assert_close(got, expected)
    with_them = gradients(whole, loss, reference)
    assert float(with_them[1]["kl"]) != pytest.approx(float(expected[1]["kl"]), rel=1e-3)


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_a_batch_without_any_reward_has_loss_and_gradient_0(gradients, aggregation):
    unknown = BATCH._replace(rewards=np.full(8, np.nan, np.float32))
    got, metrics = gradients(unknown, loss_config(aggregation=aggregation, **KL))
    assert norm(got) == 0
    assert {float(x) for x in metrics.values()} == {0.0}


def test_a_rollout_that_is_only_its_end_token_trains_the_policy_by_its_advantage(gradients):
    only_end = of(BATCH, mask=np.arange(6) < np.ones((8, 1)))
    got, _ = gradients(only_end._replace(advantages=np.ones(8, np.float32)), loss_config())
    assert norm(got) > 1e-3
    got, metrics = gradients(only_end._replace(advantages=np.zeros(8, np.float32)), loss_config())
    assert norm(got) == float(metrics["loss"]) == 0


def test_the_first_update_on_sampled_rollouts_is_on_policy(gradients, params):
    sampling = Sampling(max_new_tokens=6, temperature=TEMPERATURE)
    keys = jax.random.split(jax.random.key(1), 8)
    end_tokens = tuple(range(10))  # so many that rollouts end at all lengths
    drawn = sample(MODEL, params, BATCH.prompts, keys, sampling, end_tokens)
    completions = jax.tree.map(np.asarray, drawn)
    lengths = completions.mask.sum(axis=1)
    assert lengths.min() < 6 and len(set(lengths)) > 2
    _, metrics = gradients(BATCH._replace(completions=completions), loss_config())
    assert float(metrics["sampling/logp_difference_max"]) < 1e-5
    assert float(metrics["clip_ratio/low_mean"]) == float(metrics["clip_ratio/high_mean"]) == 0
    # Ratio 1: the loss is minus the token mean of the advantages.
    expected = -(lengths * BATCH.advantages).sum() / lengths.sum()
    assert float(metrics["loss"]) == pytest.approx(expected, abs=1e-5)


def test_parts_are_added_up_in_f32_but_for_maxima_and_only_as_many_as_there_are():
    def gradients_of(scale, part):
        total = part["x"].sum()
        return (scale * total).astype(jnp.bfloat16), {"mean": total, "mean_max": part["x"].max()}

    parts = {"x": jnp.array([[1.0, 256.0], [1.0, 0.0], [3.0, 2.0], [1000.0, 0.0]])}
    run = jax.jit(lambda count: accumulate(gradients_of, jnp.float32(1), parts, count))
    gradients, metrics = run(3)
    # 256 + 1 is 256 in bf16, and 257 + 1 + 5 is 262 if it is summed in f32 and rounded once.
    assert gradients.dtype == jnp.bfloat16 and float(gradients) == 262.0
    assert {name: float(x) for name, x in metrics.items()} == {"mean": 263.0, "mean_max": 256.0}


# ---- mini-batches and what is of whole completions ----------------------------------------------


VARIANTS = {
    "gspo": {"loss": "gspo", "entropy_weight": 0.1},
    "cispo": {"loss": "cispo", "importance_cap": 1.5, "importance": "sequence"},
    "reinforce": {"loss": "reinforce", "importance_cap": 1.2, "importance": "mask"},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_every_loss_is_the_same_in_any_micro_batches(gradients, changes):
    loss = loss_config(mask_truncated=True, aggregation="grpo", **KL, **changes)
    whole = gradients(BATCH, loss)
    assert norm(whole[0]) > 1e-3
    for packing in ({"tokens": 16}, {"tokens": 16, "rows": 2}):
        assert packed(BATCH, loss, **packing).rows.count > 1
        assert_close(gradients(BATCH, loss, **packing), whole)


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS)
def test_the_gradient_is_that_of_the_loss_of_dense_log_probs(gradients, params, changes):
    """Whole logits, log-softmax and autodiff give the same as the chunked head on packed rows."""
    loss = loss_config(aggregation="grpo", **KL, **changes)
    tokens = loss_tokens(BATCH, loss)._replace(reference=REFERENCE)

    def dense(params):
        arrays = *BATCH.prompts, *BATCH.completions[:2]
        logprobs, entropy = dense_statistics(MODEL, params, *arrays, TEMPERATURE)
        prepared = with_completions(logprobs, tokens, loss)
        losses, _ = token_losses(logprobs, prepared, loss)
        losses -= loss.entropy_weight * entropy
        return weighted(tokens.weights, losses).sum()

    value, wanted = jax.jit(jax.value_and_grad(dense))(params)
    got, metrics = gradients(BATCH, loss)
    assert float(metrics["loss"]) == pytest.approx(float(value), abs=1e-6)  # of terms about 1
    assert_close(got, wanted, 2e-5)


@pytest.mark.parametrize("faults", [(), (np.nan, 1e-6), (np.inf, -np.inf)])
@pytest.mark.parametrize("loss", FIELDS["grpo.loss"].rule.choices)
@pytest.mark.parametrize("aggregation", AGGREGATIONS)
def test_rollouts_that_are_left_out_are_as_if_they_were_not_there(aggregation, loss, faults):
    """2 of 8 are truncated, or have an impossible log-prob at one token of theirs; with KL and
    importance, under every loss and aggregation."""
    kept = np.array([1, 1, 0, 1, 1, 1, 0, 1], bool)
    config = loss_config(
        loss=loss, aggregation=aggregation, mask_truncated=True, importance_cap=1.2,
        importance="sequence", **KL,
    )  # fmt: skip
    rng = np.random.default_rng(3)
    behaviour, *arrays = rng.normal(-1, 0.3, (4, 8, 3)).astype(np.float32)
    advantages, lengths = rng.normal(size=8), rng.integers(1, 4, 8)
    if faults:
        behaviour[~kept, lengths[~kept] - 1] = faults

    def gradient(rows):
        batch = token_batch(
            lengths[rows],
            3,
            logprobs=behaviour[rows],
            advantages=advantages[rows],
            truncated=~kept[rows] & (not faults),
        )
        scored = {"reference": arrays[0][rows], "trainer": arrays[1][rows]}
        tokens = loss_tokens(batch, config)._replace(**scored)

        def total(logprobs):
            prepared = with_completions(logprobs, tokens, config)
            losses, metrics = token_losses(logprobs, prepared, config)
            means = {name: weighted(tokens.shares, x).sum() for name, x in metrics.items()}
            return weighted(tokens.weights, losses).sum(), means

        (value, means), gradient = jax.value_and_grad(total, has_aux=True)(arrays[2][rows])
        return np.asarray(gradient), {"loss": value, **means}

    (every, metrics), (alone, expected) = gradient(np.ones(8, bool)), gradient(kept)
    np.testing.assert_allclose(every[kept], alone, rtol=1e-6)
    assert np.abs(every[kept]).max() > 1e-2 and not every[~kept].any()
    for name, value in expected.items():
        np.testing.assert_allclose(metrics[name], value, rtol=1e-5)
    nothing, metrics = gradient(~kept)  # all are left out
    assert not nothing.any() and not any(float(x) for x in metrics.values())


@pytest.mark.parametrize("aggregation", ["grpo", "dapo", "dr_grpo"])
def test_the_mean_of_mini_batches_is_the_gradient_of_the_batch(gradients, aggregation):
    loss = loss_config(aggregation=aggregation, mask_truncated=True)
    whole, _ = gradients(BATCH, loss)
    parts = []
    for problems in ([0, 3], [1, 2]):
        part, rollouts = of_problems(BATCH, np.array(problems))
        tokens = mini_batch_tokens(loss_tokens(BATCH, loss), rollouts, 2, loss)
        assert float(tokens.shares.sum()) == pytest.approx(1)
        parts.append(gradients(part, loss, of_loss=tokens)[0])
    assert_close(jax.tree.map(lambda x, y: (x + y) / 2, *parts), whole)
