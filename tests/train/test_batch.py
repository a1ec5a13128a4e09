"""Which tokens of a batch count, and by how much; and batches that are made of others."""

import numpy as np
import pytest
from grpo_batches import loss_config, random_rollouts, token_batch

from permix_jax.train.batch import (
    faulty_logprobs,
    filled,
    in_live_group,
    kept_tokens,
    live_problems,
    loss_tokens,
    mini_batch_tokens,
    of_high_entropy,
    of_problems,
    token_weights,
)
from permix_jax.train.gradients import weighted

LENGTHS = [1, 3, 2]
LOSSES = np.array([[6.0, 99, 99, 99], [1, 2, 6, 99], [4, 8, 99, 99]], np.float32)


@pytest.mark.parametrize(
    ("aggregation", "every", "ended"),
    [
        # All three rollouts, and without the second, which is truncated.
        ("grpo", (6 / 1 + 9 / 3 + 12 / 2) / 3, (6 + 6) / 2),
        ("dapo", (6 + 9 + 12) / 6, (6 + 12) / 3),
        ("bnpo", (6 + 9 + 12) / 6, (6 + 12) / 3),
        ("dr_grpo", (6 + 9 + 12) / (3 * 4), (6 + 12) / (2 * 4)),
    ],
)
def test_aggregations_by_hand(aggregation, every, ended):
    batch = token_batch(LENGTHS, 4, truncated=[False, True, False])
    for mask_truncated, expected in ((False, every), (True, ended)):
        config = loss_config(aggregation=aggregation, mask_truncated=mask_truncated)
        total = weighted(token_weights(batch, config), LOSSES).sum()
        assert float(total) == pytest.approx(expected)
    nothing = token_weights(token_batch(LENGTHS, 4, truncated=True), config)
    np.testing.assert_array_equal(nothing, np.zeros((3, 4)))


def test_a_log_prob_of_0_is_of_a_sure_token_and_stays():
    logprobs = np.array([[0, -0.0, -1e-7], [np.nan, -1, -1], [0, 1e-7, -1]], np.float32)
    batch = token_batch([3, 3, 1], 3, logprobs=logprobs)
    # The third rollout is one token long: what stands behind its end is nothing of it.
    assert faulty_logprobs(batch.completions).tolist() == [
        [False] * 3,
        [True, False, False],
        [False] * 3,
    ]
    assert kept_tokens(batch, loss_config()).any(axis=1).tolist() == [True, False, True]


def test_a_group_lives_where_one_of_its_advantages_is_not_0():
    advantages, groups = np.array([0, 0, 1, 0, 0, -2]), np.array([5, 5, 3, 3, 8, 5])
    assert in_live_group(advantages, groups).tolist() == [True, True, True, True, False, True]


def test_kept_dead_groups_dilute():
    batch = token_batch([2] * 8, 2, advantages=[0, 0, 0, 0, 1, -1, 0, 0])
    batch = batch._replace(group=np.repeat(np.arange(4), 2))
    kept, dropped = (token_weights(batch, loss_config(dead_groups=x)) for x in ("keep", "drop"))
    np.testing.assert_allclose(4 * kept[4:6], dropped[4:6])


def test_a_batch_of_dead_groups_alone_weighs_nothing():
    weights = token_weights(token_batch([2, 2], 2), loss_config(dead_groups="drop"))
    np.testing.assert_array_equal(weights, np.zeros((2, 2)))


def test_bnpo_weighs_the_tokens_of_each_mini_batch_alike():
    loss = loss_config(aggregation="bnpo")
    batch, _ = random_rollouts(6, prompts=4, samples=2, vocab=40)
    _, rollouts = of_problems(batch, np.array([1]))
    tokens = mini_batch_tokens(loss_tokens(batch, loss), rollouts, 4, loss)
    kept = batch.completions.mask[2:4]
    np.testing.assert_allclose(tokens.weights, kept / kept.sum())


def test_the_tokens_of_highest_entropy_and_those_that_tie_with_them():
    entropy = np.float32([[3, 9, 1], [2, 3, 0.5]])
    kept = np.array([[1, 0, 1], [1, 1, 1]], bool)  # 3, 1, 2, 3, 0.5
    for share, expected in (
        (0.2, [[1, 0, 0], [0, 1, 0]]),  # one of five; two have the same entropy
        (0.5, [[1, 0, 0], [1, 1, 0]]),  # 2.5 is rounded up
        (1.0, kept),
    ):
        np.testing.assert_array_equal(of_high_entropy(entropy, kept, share), expected)
    assert not of_high_entropy(entropy, np.zeros_like(kept), 0.5).any()


# ---- dynamic sampling ---------------------------------------------------------------------------


def round_of(seed, live, prompt_tokens=5, per_rollout=False):
    """3 problems with 2 rollouts each, of which only those of `live` have advantages."""
    batch, _ = random_rollouts(seed, prompts=3, samples=2, vocab=40, prompt_tokens=prompt_tokens)
    if per_rollout:
        batch = batch._replace(prompts=tuple(np.repeat(x, 2, axis=0) for x in batch.prompts))
    advantages = np.where(np.isin(batch.problem, live), np.float32([1, -1] * 3), 0)
    return batch._replace(advantages=advantages)


@pytest.mark.parametrize("per_rollout", [False, True])
def test_dead_problems_give_way_to_those_of_further_rounds(per_rollout):
    """Live ones first, in the order of the rounds, then dead ones; each with its own prompts."""
    rounds = [
        round_of(1, [2], per_rollout=per_rollout),
        round_of(2, [0], prompt_tokens=8, per_rollout=per_rollout),
    ]
    assert [live_problems(batch).tolist() for batch in rounds] == [[2], [0]]
    got = filled(rounds, 3)
    # Problem 2 of the first round, 0 of the second, then the first dead one, 0 of the first.
    sources = [(0, 2), (1, 0), (0, 0)]
    assert got.problem.tolist() == [0, 0, 1, 1, 2, 2]
    assert in_live_group(got.advantages, got.group).tolist() == [True] * 4 + [False] * 2
    each = len(got.prompts[0]) // 3
    for place, (number, problem) in enumerate(sources):
        source, rows = rounds[number], slice(2 * problem, 2 * problem + 2)
        own = slice(2 * place, 2 * place + 2)
        for mine, theirs in zip(got.completions, source.completions, strict=True):
            np.testing.assert_array_equal(mine[own], theirs[rows])
        np.testing.assert_array_equal(got.rewards[own], source.rewards[rows])
        assert len(set(got.group[own])) == 1
        prompt, mask = (x[each * place : each * (place + 1)] for x in got.prompts)
        tokens, there = (x[each * problem : each * (problem + 1)] for x in source.prompts)
        np.testing.assert_array_equal(prompt[mask], tokens[there])


def test_more_live_problems_than_there_is_room_for_are_cut_in_their_order():
    rounds = [round_of(1, [0, 2]), round_of(2, [0, 1, 2])]
    got = filled(rounds, 3)
    assert len(got.problem) == 6 and got.advantages.all()
    np.testing.assert_array_equal(got.completions.tokens[4:], rounds[1].completions.tokens[:2])


def test_a_single_round_of_live_problems_is_what_it_was():
    batch = round_of(3, [0, 1, 2])
    got = filled([batch], 3)
    for mine, theirs in zip(got.completions, batch.completions, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(got.group, batch.group)
