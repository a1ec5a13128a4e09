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
seeds = st.integers(0, 2**40)
steps = st.integers(0, 10_000)
levels = st.sampled_from(LEVELS)
shares = st.floats(0, 1)
strategies = st.sampled_from(WEIGHTS)


def Mixture(train, harmful, share, level="problem", weights="uniform", **fields):
    """The mixture of these personas; the other fields of the config have their defaults."""
    fields |= {"share": share, "level": level, "weights": weights}
    values = section_with("personas", **fields)
    return call_with(mixture.Mixture, values, train=train, harmful=harmful)


def assign(seed, step, num_problems, group_size, personas, share, level):
    """The draws with defaults for all but share and level."""
    return mixture.assign(
        Mixture(tuple(personas), (), share, level), seed, step, num_problems, group_size
    )


def ids(rows):
    return [[persona.id if persona else None for persona in row] for row in rows]


def state_of(seed):
    """Running accuracies after some rollouts drawn from a seed."""
    size = len(TRAIN + HARMFUL)
    rng = np.random.default_rng(seed)
    return update(initial(size), rng.integers(0, size, 40), rng.integers(0, 2, 40) * 1.0, 0.9)


@settings(deadline=None, max_examples=50)
@given(
    seed=seeds, step=steps, share=shares, level=levels, weights=strategies,
    num=st.integers(0, 6), more=steps,
)  # fmt: skip
def test_a_row_does_not_depend_on_the_batch_it_sits_in(
    seed, step, share, level, weights, num, more
):
    mixed = Mixture(
        TRAIN, HARMFUL, share, level, weights,
        harmful_share=0.3, curriculum_steps=9, paraphrase=True,
    )  # fmt: skip
    state = state_of(seed)
    small = mixture.assign(mixed, seed, step, num, 3, state)
    assert mixture.assign(mixed, seed, step, num + more % 5, 3, state)[:num] == small
    wide = mixture.assign(mixed, seed, step, num, 3 + more % 4, state)
    assert [row[:3] for row in wide] == small


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


def test_the_default_draws_are_pinned():
    # A change here makes a resumed run differ from the uninterrupted one.
    n = [None] * 3
    assert ids(assign(3, 2, 8, 3, PERSONAS, 0.75, "problem")) == [
        n, ["1"] * 3, n, ["0"] * 3, ["4"] * 3, n, n, n,
    ]  # fmt: skip
    assert ids(assign(3, 2, 8, 3, PERSONAS, 0.75, "rollout")) == [
        n, ["4", "1", "0"], n, ["3", "4", "2"], ["4", "3", "3"], n, n, n,
    ]  # fmt: skip


# Harmful personas and the curriculum


@settings(deadline=None, max_examples=50)
@given(seed=seeds, step=steps, level=levels, weights=strategies, a=shares, b=shares, share=shares)
def test_a_larger_harmful_share_only_exchanges_some(seed, step, level, weights, a, b, share):
    few, many = (
        mixture.assign(
            Mixture(TRAIN, HARMFUL, share, level, weights, harmful_share=harmful_share),
            seed, step, 6, 2, state=state_of(seed),
        )
        for harmful_share in sorted((a, b))
    )  # fmt: skip
    for row, other in zip(few, many, strict=True):
        exchanged = None not in row and set(other) <= set(HARMFUL) and not set(row) & set(HARMFUL)
        assert row == other or exchanged


@pytest.mark.parametrize("level", LEVELS)
def test_harmful_share_is_of_the_problems_that_carry_personas(level):
    rows = mixture.assign(Mixture(TRAIN, HARMFUL, 0.5, level, harmful_share=0.2), 0, 1, 2000, 2)
    splits = [{persona.split for persona in row} for row in rows if row[0]]
    assert all(len(kinds) == 1 for kinds in splits)
    harmful = splits.count({"harmful_train"})
    assert abs(harmful - 0.2 * len(splits)) < 4 * math.sqrt(len(splits) * 0.2 * 0.8)
    counts = Counter(row[0].id for row in rows if row[0] in HARMFUL)
    assert all(abs(counts[p.id] - harmful / 3) < 4 * math.sqrt(harmful * 2 / 9) for p in HARMFUL)


def test_the_curriculum_is_linear_and_then_constant():
    mixed = Mixture(TRAIN, HARMFUL, 0.8, harmful_share=0.2, curriculum_steps=4)
    expected = {1: (0.2, 0.05), 2: (0.4, 0.1), 3: (0.6, 0.15), 4: (0.8, 0.2), 400: (0.8, 0.2)}
    for step, values in expected.items():
        assert shares_at(mixed, step) == pytest.approx(values)
    assert shares_at(replace(mixed, curriculum_steps=0), 1) == (0.8, 0.2)


@settings(deadline=None, max_examples=50)
@given(seed=seeds, step=st.integers(1, 20), level=levels)
def test_the_curriculum_draws_as_the_share_it_has_reached(seed, step, level):
    mixed = Mixture(TRAIN, HARMFUL, 0.8, level, harmful_share=0.4, curriculum_steps=10)
    share, harmful_share = shares_at(mixed, step)
    constant = Mixture(TRAIN, HARMFUL, share, level, harmful_share=harmful_share)
    assert mixture.assign(mixed, seed, step, 6, 2) == mixture.assign(constant, seed, step, 6, 2)


# Weights


def counts_of(mixed, num=4000, state=None):
    rows = mixture.assign(mixed, 5, 1, num, 1, state=state)
    return Counter(row[0].id for row in rows)


def assert_frequencies(counts, expected):
    """Each count within 4 standard deviations of what its weight gives."""
    total, number = sum(expected.values()), sum(counts.values())
    assert set(counts) <= set(expected)
    for id, weight in expected.items():
        p = weight / total
        assert abs(counts[id] - number * p) <= 4 * math.sqrt(number * p * (1 - p)), id


def test_by_category_each_category_is_as_frequent_as_the_next():
    counts = counts_of(Mixture(TRAIN, (), 1.0, weights="category"))
    assert_frequencies(counts, {f"{kind}{i}": 1 / n for kind, n in KINDS for i in range(n)})


@pytest.mark.parametrize("weights", ["uniform", "category"])
def test_category_weights_multiply(weights):
    mixed = Mixture(TRAIN, (), 1.0, weights=weights, category_weights=" b : 0.5,a:3, c:1e0")
    factor = {"a": 3, "b": 0.5, "c": 1}
    expected = {
        f"{kind}{i}": factor[kind] / (n if weights == "category" else 1)
        for kind, n in KINDS
        for i in range(n)
    }
    assert_frequencies(counts_of(mixed), expected)


def test_a_category_of_weight_zero_is_left_out():
    counts = counts_of(Mixture(TRAIN, (), 1.0, category_weights="c:0,a:0"))
    assert set(counts) == {"b0", "b1"}


@settings(deadline=None, max_examples=50)
@given(
    seed=seeds, step=steps, level=levels, weights=strategies,
    factors=st.sampled_from(["", "a:2"]), a=shares, b=shares,
)  # fmt: skip
def test_a_larger_share_only_adds_personas(seed, step, level, weights, factors, a, b):
    few, many = (
        mixture.assign(
            Mixture(
                TRAIN, HARMFUL, share, level, weights,
                category_weights=factors, harmful_share=0.3, paraphrase=True,
            ),
            seed, step, 6, 2, state=state_of(seed),
        )
        for share in sorted((a, b))
    )  # fmt: skip
    for row, larger in zip(few, many, strict=True):
        assert row == larger or row == [None, None]


def test_adaptive_weights_are_the_frequencies():
    index = np.arange(len(TRAIN))
    state = update(initial(len(TRAIN)), index, np.linspace(0, 1, len(TRAIN)), 0.9)
    mixed = Mixture(TRAIN, (), 1.0, weights="adaptive", adaptive_floor=0.2)
    expected = {p.id: 1 - 0.8 * i / 7 for i, p in enumerate(TRAIN)}
    np.testing.assert_allclose(adaptive_weights(mixed, state), [*expected.values()], rtol=1e-6)
    assert_frequencies(counts_of(mixed, state=state), expected)


def test_before_anything_is_seen_adaptive_draws_are_uniform():
    mixed = Mixture(TRAIN, (), 1.0, weights="adaptive")
    assert_frequencies(counts_of(mixed, state=initial(8)), dict.fromkeys((p.id for p in TRAIN), 1))


def test_adaptive_compares_a_persona_with_those_of_its_split():
    # All of TRAIN are better than any of HARMFUL; both use the whole range of weights.
    accuracy = np.array([0.6, 0.7, 0.8, 0.9, 0.9, 0.9, 0.9, 1.0, 0.0, 0.1, 0.2])
    state = update(initial(11), np.arange(11), accuracy, 0.9)
    weights = adaptive_weights(Mixture(TRAIN, HARMFUL, 1.0, harmful_share=0.5), state)
    assert weights == pytest.approx(
        [1, 1 - 0.75 / 4, 1 - 0.75 / 2, *[0.4375] * 4, 0.25, 1, 0.625, 0.25], rel=1e-6
    )


# Paraphrases


@settings(deadline=None, max_examples=50)
@given(seed=seeds, step=steps, level=levels, weights=strategies)
def test_paraphrasing_changes_words_and_nothing_else(seed, step, level, weights):
    plain = Mixture(TRAIN, HARMFUL, 0.7, level, weights, harmful_share=0.3)
    state = state_of(seed)
    before = mixture.assign(plain, seed, step, 6, 3, state=state)
    after = mixture.assign(replace(plain, paraphrase=True), seed, step, 6, 3, state=state)
    assert ids(before) == ids(after)
    wordings = set(all_paraphrases(TRAIN + HARMFUL))
    assert all(p is None or p in wordings for row in after for p in row)
    if level == "problem":
        assert all(len(set(row)) == 1 for row in after)


@pytest.mark.parametrize("level", LEVELS)
def test_each_wording_is_as_frequent_as_the_next(level):
    mixed = Mixture(TRAIN[:1], (), 1.0, level, paraphrase=True)
    rows = mixture.assign(mixed, 0, 1, 1000, 2)
    counts = Counter(row[0].system_prompt for row in rows)
    assert set(counts) == {p.system_prompt for p in all_paraphrases(TRAIN[:1])}
    assert_frequencies(counts, dict.fromkeys(counts, 1))
    same = sum(first == second for first, second in rows)
    each = 1000 / len(TEMPLATES)
    assert same == 1000 if level == "problem" else abs(same - each) < 4 * math.sqrt(each * 0.8)


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
        ({"share": 1.01}, "personas.share is 1.01; use a share from 0 to 1"),
        ({"share": math.nan}, "personas.share is nan; use a share from 0 to 1"),
        ({"level": "token"}, "personas.level is 'token'; use one of problem, rollout"),
        ({"weights": "even"}, "personas.weights is 'even'; use one of uniform, category, adaptive"),
        ({"harmful_share": 2.0}, "personas.harmful_share is 2.0; use a share from 0 to 1"),
        ({"adaptive_floor": 0.0}, "personas.adaptive_floor is 0.0; use a share above 0, up to 1"),
        ({"adaptive_decay": 1.0}, "personas.adaptive_decay is 1.0; use a share from 0, below 1"),
        ({"harmful": (), "harmful_share": 0.1}, "personas.harmful_share is 0.1 but there are no "
         "personas to draw; add some of split harmful_train, or set it to 0"),
        ({"train": ()}, "personas.share is 1.0 but there are no personas to draw"),
        ({"category_weights": "z:1"}, "personas.category_weights names 'z'; the categories in "
         "training are a, b, bad, c, worse"),
        ({"category_weights": "a"}, "personas.category_weights is 'a'; write each category once"),
        ({"category_weights": "a:"}, "personas.category_weights is 'a:'; write each category"),
        ({"category_weights": "a:1,"}, "personas.category_weights is 'a:1,'; write each category"),
        ({"category_weights": "a:-1"}, "personas.category_weights is 'a:-1'; write each category"),
        ({"category_weights": "a:nan"}, "is 'a:nan'; write each category once, with a weight"),
        ({"category_weights": "a:inf"}, "is 'a:inf'; write each category once, with a weight of 0"),
        ({"category_weights": "a:1,a:2"}, "is 'a:1,a:2'; write each category once"),
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
    odd = (Persona("x", "X", "You are a x.", "sea: north", "train"), *TRAIN)
    assert set(counts_of(Mixture(odd, (), 1.0, category_weights="sea: north:9,a:0"), 400)) == {
        "x", *(p.id for p in TRAIN[1:]),
    }  # fmt: skip


def test_adaptive_draws_without_running_accuracies_are_refused():
    with pytest.raises(ValueError, match="personas.weights is 'adaptive'; give the running"):
        mixture.assign(Mixture(TRAIN, (), 1.0, weights="adaptive"), 0, 1, 1, 1)
