import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.core.config_fields import FIELDS
from permix_jax.core.field_rules import call_with, section_with
from permix_jax.core.persona import SPLITS, Persona
from permix_jax.personas import mixture
from permix_jax.personas.adaptive import initial, update
from permix_jax.personas.mixture import adaptive_weights, build_mixture, shares_at
from permix_jax.personas.paraphrases import TEMPLATES, all_paraphrases

LEVELS, WEIGHTS = (FIELDS[f"personas.{name}"].rule.choices for name in ("level", "weights"))
PERSONAS = [Persona(str(i), f"P{i}", f"You are P{i}.", "test", "train") for i in range(5)]
KINDS = (("a", 1), ("b", 2), ("c", 5))  # category, personas
TRAIN = tuple(
    Persona(f"{kind}{i}", f"{kind}{i}", f"You are a {kind}{i}.", kind, "train")
    for kind, count in KINDS
    for i in range(count)
)
HARMFUL = tuple(
    Persona(f"h{i}", f"H{i}", f"You are a h{i}.", "bad" if i else "worse", "harmful_train")
    for i in range(3)
)
shares = st.floats(0, 1)
places = st.tuples(st.integers(0, 2**40), st.integers(0, 10_000))  # seed, step


def Mixture(train, harmful, share, level="problem", weights="uniform", **fields):
    """The mixture of these personas; the other fields of the config have their defaults."""
    fields |= {"share": share, "level": level, "weights": weights}
    values = section_with("personas", **fields)
    return call_with(mixture.Mixture, values, train=train, harmful=harmful)


mixtures = st.builds(
    Mixture, st.just(TRAIN), st.just(HARMFUL), shares, st.sampled_from(LEVELS),
    st.sampled_from(WEIGHTS), harmful_share=shares, curriculum_steps=st.sampled_from([0, 9]),
    category_weights=st.sampled_from(["", "a:2"]), paraphrase=st.booleans(),
)  # fmt: skip


def draw(mixed, place, num_problems=6, group_size=2):
    """A step's draws, with running accuracies after some rollouts drawn from the seed."""
    seed, step = place
    rng, size = np.random.default_rng(seed), len(mixed.personas)
    index, correct = rng.integers(0, size, 40), rng.integers(0, 2, 40)
    state = update(initial(size), index, correct * 1.0, 0.9)
    return mixture.assign(mixed, seed, step, num_problems, group_size, state)


def plain(share, level):
    return Mixture(tuple(PERSONAS), (), share, level)


def ids(rows):
    return [[persona.id if persona else None for persona in row] for row in rows]


def assert_share(count, number, p):
    """A count within 4 standard deviations of the binomial distribution."""
    assert abs(count - number * p) <= 4 * math.sqrt(number * p * (1 - p))


def assert_frequencies(counts, expected):
    """Each count is what its weight gives."""
    total = sum(expected.values())
    assert set(counts) <= set(expected)
    for id, weight in expected.items():
        assert_share(counts[id], counts.total(), weight / total)


def counts_of(mixed, num=4000, state=None):
    rows = mixture.assign(mixed, 5, 1, num, 1, state=state)
    return Counter(row[0].id for row in rows)


@settings(max_examples=50)
@given(mixtures, places, st.integers(0, 6), st.integers(0, 4))
def test_a_row_does_not_depend_on_the_batch_it_sits_in(mixed, place, num, more):
    small = draw(mixed, place, num, 3)
    assert draw(mixed, place, num + more, 3)[:num] == small
    assert [row[:3] for row in draw(mixed, place, num, 3 + more)] == small


@given(mixtures, places)
def test_levels_agree_on_which_problems_carry_personas(mixed, place):
    rows = {level: draw(replace(mixed, level=level), place) for level in LEVELS}
    without = {level: [row.count(None) for row in rows[level]] for level in LEVELS}
    assert without["problem"] == without["rollout"]
    assert set(without["problem"]) <= {0, 2}
    assert all(len(set(row)) == 1 for row in rows["problem"])


@pytest.mark.parametrize("level", LEVELS)
def test_share_zero_is_plain_rlvr_and_needs_no_personas(level):
    assert mixture.assign(Mixture((), (), 0.0, level), 0, 1, 2, 3) == [[None] * 3] * 2


@pytest.mark.parametrize("level", LEVELS)
def test_share_and_personas_come_out_at_their_probabilities(level):
    rows = mixture.assign(plain(0.5, level), 7, 3, 1000, 4)
    counts = Counter(row[0].id for row in rows if row[0])
    assert_share(counts.total(), 1000, 0.5)
    assert_frequencies(counts, {persona.id: 1 for persona in PERSONAS})


def test_at_rollout_level_rollouts_draw_on_their_own():
    rows = mixture.assign(plain(1.0, "rollout"), 0, 0, 1000, 2)
    assert_share(sum(first == second for first, second in rows), 1000, 0.2)


def test_seed_and_step_both_change_the_draw():
    draws = [draw(plain(0.5, "problem"), (seed, step), 50) for seed in (0, 1) for step in (0, 1)]
    assert all(a != b for i, a in enumerate(draws) for b in draws[:i])


def test_the_default_draws_are_pinned():
    # A change here makes a resumed run differ from the uninterrupted one.
    n = [None] * 3
    assert ids(mixture.assign(plain(0.75, "problem"), 3, 2, 8, 3)) == [
        n, ["1"] * 3, n, ["0"] * 3, ["4"] * 3, n, n, n,
    ]  # fmt: skip
    assert ids(mixture.assign(plain(0.75, "rollout"), 3, 2, 8, 3)) == [
        n, ["4", "1", "0"], n, ["3", "4", "2"], ["4", "3", "3"], n, n, n,
    ]  # fmt: skip


# Shares and the curriculum


@settings(max_examples=50)
@given(mixtures, places, shares, shares)
def test_a_larger_share_only_adds_personas(mixed, place, a, b):
    few, many = (draw(replace(mixed, share=share), place) for share in sorted((a, b)))
    for row, larger in zip(few, many, strict=True):
        assert row == larger or row == [None, None]


@settings(max_examples=50)
@given(mixtures, places, shares, shares)
def test_a_larger_harmful_share_only_exchanges_some(mixed, place, a, b):
    few, many = (draw(replace(mixed, harmful_share=share), place) for share in sorted((a, b)))
    for row, other in zip(few, many, strict=True):
        splits = [{persona and persona.split for persona in each} for each in (row, other)]
        assert row == other or splits == [{"train"}, {"harmful_train"}]


@pytest.mark.parametrize("level", LEVELS)
def test_harmful_share_is_of_the_problems_that_carry_personas(level):
    rows = mixture.assign(Mixture(TRAIN, HARMFUL, 0.5, level, harmful_share=0.2), 0, 1, 2000, 2)
    splits = [{persona.split for persona in row} for row in rows if row[0]]
    assert all(len(kinds) == 1 for kinds in splits)
    assert_share(splits.count({"harmful_train"}), len(splits), 0.2)
    counts = Counter(row[0].id for row in rows if row[0] in HARMFUL)
    assert_frequencies(counts, {persona.id: 1 for persona in HARMFUL})


def test_the_curriculum_is_linear_and_then_constant():
    mixed = Mixture(TRAIN, HARMFUL, 0.8, harmful_share=0.2, curriculum_steps=4)
    expected = {1: (0.2, 0.05), 2: (0.4, 0.1), 3: (0.6, 0.15), 4: (0.8, 0.2), 400: (0.8, 0.2)}
    for step, values in expected.items():
        assert shares_at(mixed, step) == pytest.approx(values)
    assert shares_at(replace(mixed, curriculum_steps=0), 1) == (0.8, 0.2)


@settings(max_examples=50)
@given(mixtures, places)
def test_the_curriculum_draws_as_the_share_it_has_reached(mixed, place):
    share, harmful_share = shares_at(mixed, place[1])
    constant = replace(mixed, share=share, harmful_share=harmful_share, curriculum_steps=0)
    assert draw(mixed, place) == draw(constant, place)


# Weights


@pytest.mark.parametrize("weights", ["uniform", "category"])
@pytest.mark.parametrize("factors", ["a:1", " b : 0.5,a:3, c:1e0"])
def test_categories_are_equally_frequent_and_category_weights_multiply(weights, factors):
    mixed = Mixture(TRAIN, (), 1.0, weights=weights, category_weights=factors)
    factor = {"a": 3, "b": 0.5, "c": 1} if "b" in factors else dict.fromkeys("abc", 1)
    size = dict(KINDS) if weights == "category" else dict.fromkeys("abc", 1)
    expected = {p.id: factor[p.category] / size[p.category] for p in TRAIN}
    assert_frequencies(counts_of(mixed), expected)


def test_a_category_of_weight_zero_is_left_out():
    counts = counts_of(Mixture(TRAIN, (), 1.0, category_weights="c:0,a:0"), 200)
    assert set(counts) == {"b0", "b1"}


def test_adaptive_weights_are_the_frequencies():
    index = np.arange(len(TRAIN))
    state = update(initial(len(TRAIN)), index, np.linspace(0, 1, len(TRAIN)), 0.9)
    mixed = Mixture(TRAIN, (), 1.0, weights="adaptive", adaptive_floor=0.2)
    expected = {p.id: 1 - 0.8 * i / 7 for i, p in enumerate(TRAIN)}
    np.testing.assert_allclose(adaptive_weights(mixed, state), [*expected.values()], rtol=1e-6)
    assert_frequencies(counts_of(mixed, state=state), expected)


def test_adaptive_compares_a_persona_with_those_of_its_split():
    # All of TRAIN are better than any of HARMFUL; both use the whole range of weights.
    accuracy = np.array([0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9, 1.0, 0.0, 0.1, 0.2])
    state = update(initial(11), np.arange(11), accuracy, 0.9)
    weights = adaptive_weights(Mixture(TRAIN, HARMFUL, 1.0, harmful_share=0.5), state)
    assert weights == pytest.approx(
        [1, 1 - 0.75 / 4, 1 - 0.75 / 2, *[0.4375] * 4, 0.25, 1, 0.625, 0.25], rel=1e-6
    )


# Paraphrases


@settings(max_examples=50)
@given(mixtures, places)
def test_paraphrasing_changes_words_and_nothing_else(mixed, place):
    before, after = (draw(replace(mixed, paraphrase=it), place) for it in (False, True))
    assert ids(before) == ids(after)
    wordings = {None, *all_paraphrases(TRAIN + HARMFUL)}
    assert all(persona in wordings for row in after for persona in row)


@pytest.mark.parametrize("level", LEVELS)
def test_each_wording_is_as_frequent_as_the_next(level):
    mixed = Mixture(TRAIN[:1], (), 1.0, level, paraphrase=True)
    rows = mixture.assign(mixed, 0, 1, 1000, 2)
    counts = Counter(row[0].system_prompt for row in rows)
    assert set(counts) == {p.system_prompt for p in all_paraphrases(TRAIN[:1])}
    assert_frequencies(counts, dict.fromkeys(counts, 1))
    same = sum(first == second for first, second in rows)
    assert_share(same, 1000, 1 if level == "problem" else 1 / len(TEMPLATES))


# Building and refusing


def test_build_mixture_takes_the_personas_that_training_may_draw():
    values = section_with("personas", share=0.5).to_dict()
    bank = [Persona(split, split, "You are a cat.", "x", split) for split in SPLITS]
    cat, harmful = bank[0], bank[SPLITS.index("harmful_train")]
    assert build_mixture(bank, values | {"file": "ignored"}) == Mixture((cat,), (), 0.5)
    built = build_mixture(bank, values | {"harmful_share": 0.1})
    assert built == Mixture((cat,), (harmful,), 0.5, harmful_share=0.1)
    assert built.personas == (cat, harmful)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": math.nan}, "personas.share is nan; use a share from 0 to 1"),
        ({"level": "token"}, "personas.level is 'token'; use one of problem, rollout"),
        ({"harmful": (), "harmful_share": 0.1}, "personas.harmful_share is 0.1 but there are no "
         "personas to draw; add some of split harmful_train, or set it to 0"),
        ({"train": ()}, "personas.share is 1.0 but there are no personas to draw"),
        ({"category_weights": "z:1"}, "personas.category_weights names 'z'; the categories in "
         "training are a, b, bad, c, worse"),
        *(({"category_weights": text}, f"personas.category_weights is {text!r}; write each category"
           " once, with a weight of 0 or more, such as 'profession:2,mood:0.5'")
          for text in ("a", "a:", "a:1,", "a:-1", "a:nan", "a:inf", "a:1,a:2")),
        ({"category_weights": "a:0,b:0,c:0"}, "personas.category_weights is 'a:0,b:0,c:0', which "
         "leaves no persona of split train to draw; give one of its categories a weight above 0"),
        ({"category_weights": "bad:0,worse:0", "harmful_share": 0.1},
         "which leaves no persona of split harmful_train to draw"),
    ],
)  # fmt: skip
def test_impossible_mixtures_are_refused(changes, message):
    with pytest.raises(ValueError) as error:
        replace(Mixture(TRAIN, HARMFUL, 1.0), **changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_colon_in_a_category_is_part_of_its_name():
    odd = Persona("x", "X", "You are a x.", "sea: north", "train")
    mixed = Mixture((odd, *TRAIN), (), 1.0, category_weights="sea: north:9,a:0")
    assert set(counts_of(mixed, 400)) == {"x", *(p.id for p in TRAIN[1:])}


def test_adaptive_draws_without_running_accuracies_are_refused():
    with pytest.raises(ValueError, match="personas.weights is 'adaptive'; give the running"):
        mixture.assign(Mixture(TRAIN, (), 1.0, weights="adaptive"), 0, 1, 1, 1)
