import numpy as np
import pytest

from permix_jax.core.problem import Problem
from permix_jax.rewards.terms import (
    Completion,
    Term,
    answer_format,
    correctness,
    reward_terms,
    soft_overlong,
    total_reward,
)

PROBLEM = Problem("p", "What is 2 + 3?", "5", "test")


def completion(text="\\boxed{5}", tokens=5, truncated=False, correct=1.0):
    return Completion(text, tokens, 100, truncated, PROBLEM, correct)


@pytest.mark.parametrize(
    ("tokens", "truncated", "value"),
    [(1, False, 0), (80, False, 0), (81, False, -0.05), (90, False, -0.5), (100, False, -1)]
    + [(100, True, -1), (40, True, -1)],
)
def test_overlong_falls_linearly_over_the_last_tokens_of_the_budget(tokens, truncated, value):
    got = soft_overlong(20)(completion(tokens=tokens, truncated=truncated))
    assert got == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("so \\boxed{7}", 1), ("so\n#### 7", 1), ("it is 7", 0), ("\\boxed{7", 0), ("", 0)],
)
def test_format_asks_whether_an_answer_is_stated_not_which(text, value):
    assert answer_format(completion(text, correct=0.0)) == value


def test_format_asks_for_an_answer_behind_thinking():
    thought = completion("<think>\\boxed{7}</think> so", correct=0.0)
    assert answer_format(thought) == 1
    assert answer_format(thought._replace(answer_part=" so")) == 0
    assert answer_format(thought._replace(answer_part="")) == 0


def test_the_reward_is_the_weighted_sum_and_terms_are_logged_before_their_weight():
    terms = reward_terms({"correctness": 2.0, "format": 0.5, "overlong": 1.0}, overlong_tokens=20)
    given = [
        completion(),
        completion("it is 5", tokens=90, correct=0.0),
        completion(correct=np.nan),
    ]
    rewards, metrics = total_reward(terms, given)
    np.testing.assert_allclose(rewards, [2.5, -0.5, np.nan])
    assert rewards.dtype == np.float32
    assert metrics == {
        "rewards/correctness/mean": 0.5,
        "rewards/format/mean": 0.5,
        "rewards/overlong/mean": -0.25,
    }


def test_terms_without_weight_are_left_out():
    terms = reward_terms({"correctness": 1.0, "format": 0.0, "overlong": 0.0}, overlong_tokens=0)
    assert terms == [Term("correctness", 1.0, correctness)]


def test_an_unreadable_gold_answer_gives_no_reward_even_where_another_term_would():
    terms = [Term("format", 1.0, answer_format)]
    rewards, metrics = total_reward(terms, [completion(correct=np.nan)])
    assert np.isnan(rewards).all() and metrics == {}


def test_a_term_of_ones_own_is_a_function():
    shorter = Term("brevity", 0.1, lambda c: -c.tokens / c.max_tokens)
    rewards, _ = total_reward([Term("correctness", 1.0, correctness), shorter], [completion()])
    np.testing.assert_allclose(rewards, [0.995])


@pytest.mark.parametrize("value", [None, float("nan"), float("inf")])
def test_a_term_that_gives_no_number_is_refused_by_name(value):
    terms = [Term("mine", 1.0, lambda completion: value)]
    with pytest.raises(ValueError, match="reward term 'mine' gave (nan|inf); return a finite num"):
        total_reward(terms, [completion()])
    rewards, means = total_reward(terms, [completion(correct=float("nan"))])  # not to be graded
    assert np.isnan(rewards).all() and not means
