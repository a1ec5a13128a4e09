import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.personas.mixture import LEVELS, assign
from permix_jax.personas.persona import Persona

PERSONAS = [Persona(str(i), f"P{i}", f"You are P{i}.", "test", "train") for i in range(5)]
seeds = st.integers(0, 2**40)
steps = st.integers(0, 10_000)
levels = st.sampled_from(LEVELS)
shares = st.floats(0, 1)


@settings(deadline=None)
@given(seed=seeds, step=steps, share=shares, level=levels, num=st.integers(0, 6), more=steps)
def test_a_row_does_not_depend_on_the_batch_it_sits_in(seed, step, share, level, num, more):
    small = assign(seed, step, num, 3, PERSONAS, share, level)
    large = assign(seed, step, num + more % 5, 3, PERSONAS, share, level)
    wide = assign(seed, step, num, 3 + more % 4, PERSONAS, share, level)
    assert large[:num] == small
    assert [row[:3] for row in wide] == small


@settings(deadline=None)
@given(seed=seeds, step=steps, level=levels, a=shares, b=shares)
def test_a_larger_share_only_adds_personas(seed, step, level, a, b):
    few = assign(seed, step, 8, 2, PERSONAS, min(a, b), level)
    many = assign(seed, step, 8, 2, PERSONAS, max(a, b), level)
    for row, larger in zip(few, many, strict=True):
        assert row == larger or row == [None, None]


@settings(deadline=None)
@given(seed=seeds, step=steps, share=shares)
def test_at_problem_level_a_row_has_one_persona(seed, step, share):
    for row in assign(seed, step, 6, 4, PERSONAS, share, "problem"):
        assert len(row) == 4
        assert len(set(row)) == 1


@settings(deadline=None)
@given(seed=seeds, step=steps, share=shares)
def test_levels_agree_on_which_problems_carry_personas(seed, step, share):
    rows = {level: assign(seed, step, 6, 4, PERSONAS, share, level) for level in LEVELS}
    plain = {level: [row.count(None) for row in rows[level]] for level in LEVELS}
    assert plain["problem"] == plain["rollout"]
    assert set(plain["problem"]) <= {0, 4}


@pytest.mark.parametrize("level", LEVELS)
def test_share_zero_is_plain_rlvr_and_needs_no_personas(level):
    assert assign(0, 1, 2, 3, [], 0.0, level) == [[None] * 3] * 2


@pytest.mark.parametrize("level", LEVELS)
def test_share_and_personas_come_out_at_their_probabilities(level):
    rows = assign(7, 3, 1000, 4, PERSONAS, 0.5, level)
    carrying = [row for row in rows if row[0] is not None]
    assert abs(len(carrying) - 500) < 4 * math.sqrt(1000 * 0.25)
    counts = Counter(row[0].id for row in carrying)
    n = len(carrying)
    assert set(counts) == {persona.id for persona in PERSONAS}
    assert all(abs(count - n / 5) < 4 * math.sqrt(n * 0.2 * 0.8) for count in counts.values())


def test_at_rollout_level_rollouts_draw_on_their_own():
    rows = assign(0, 0, 1000, 2, PERSONAS, 1.0, "rollout")
    same = sum(first == second for first, second in rows)
    assert abs(same - 200) < 4 * math.sqrt(1000 * 0.2 * 0.8)


def test_seed_and_step_both_change_the_draw():
    draws = [assign(seed, step, 50, 1, PERSONAS, 0.5, "problem") for seed in (0, 1)
             for step in (0, 1)]  # fmt: skip
    assert all(a != b for i, a in enumerate(draws) for b in draws[:i])


@pytest.mark.parametrize(
    ("personas", "share", "level", "message"),
    [
        (PERSONAS, 1.01, "problem", "personas.share is 1.01"),
        (PERSONAS, -0.1, "problem", "personas.share is -0.1"),
        (PERSONAS, math.nan, "problem", "personas.share is nan"),
        (PERSONAS, 0.5, "token", "personas.level is 'token'; choose 'problem' or 'rollout'"),
        ([], 0.5, "problem", "personas.share is 0.5 but there are no personas to draw"),
    ],
)
def test_bad_input_is_refused(personas, share, level, message):
    with pytest.raises(ValueError) as error:
        assign(0, 0, 1, 1, personas, share, level)
    assert message in str(error.value)
