import json

import numpy as np
import pytest

from permix_jax.core.persona import Persona
from permix_jax.personas.bank import default_bank
from permix_jax.stats.paired import persona_effects
from permix_jax.stats.robustness import KINDS, hurt, kind_of, principled
from permix_jax.stats.stability import accuracy_figures, pss_min_over_max, stability
from permix_jax.stats.statistics import bootstrap_weights


def persona(name: str, split: str, category: str = "any") -> Persona:
    return Persona(name, name, f"You are {name}.", category, split)


def test_kinds_of_the_bank():
    bank = default_bank()
    trained = {one.category for one in bank if one.split == "train"}
    kinds = [kind_of(one, trained) for one in bank if one.split != "harmful_train"]
    counts = {kind: kinds.count(kind) for kind in KINDS}
    # As docs/personas.md counts them.
    assert list(counts.values()) == [295, 58, 33, 65, 24]
    assert kind_of(persona("a", "heldout", "mood"), {"mood"}) == "trained category"
    assert kind_of(persona("a", "heldout", "idea"), {"mood"}) == "new category"


def test_share_that_is_hurt_by_hand():
    """Of 20 problems: 10 lost (p = 2^-9), 6 lost (2^-5), 10 won (2^-9), none; Holm times 4 or 2."""
    plain = np.concatenate([np.ones(10), np.zeros(10)])[:, None]
    correct = np.stack([plain] * 4)
    correct[0, :10], correct[1, :6], correct[2, 10:] = 0, 0, 1
    effects = persona_effects(correct, plain, ["much", "little", "helps", "nothing"])
    adjusted = {e["persona"]: e["p_adjusted"] for e in effects}
    assert adjusted["much"] == pytest.approx(4 * 2**-9)
    assert adjusted["little"] == pytest.approx(2 * 2**-5)  # 0.0625: not significant
    assert adjusted["helps"] == pytest.approx(4 * 2**-9)
    assert hurt(effects) == {"share": 0.25, "personas": ["much"]}


def test_few_personas_are_hurt_where_none_is_worse():
    """The family-wise error of 400 evaluations; at 5 % the standard error is 1.1 %."""
    rng, errors = np.random.default_rng(0), 0
    for _ in range(400):
        everyone = (rng.random((6, 60, 1)) < rng.random((1, 60, 1))).astype(float)
        errors += hurt(persona_effects(everyone[1:], everyone[0], range(5)))["share"] > 0
    assert errors <= 400 * (0.05 + 3 * 0.011)


def test_principled_personas_by_hand():
    people = [
        persona("Kim", "neutral", "name"),
        persona("mug", "neutral", "fact"),
        persona("sum", "heldout", "expertise"),
        persona("abacus", "heldout", "expertise"),
        persona("beginner", "train", "expertise"),
        persona("pirate", "heldout", "fictional"),
    ]
    right = np.array([2, 1, 4, 3, 0, 0])  # of 4 problems; without a persona 2
    correct = (np.arange(4) < right[:, None]).astype(float)[..., None]
    plain = np.array([[1.0], [1.0], [0.0], [0.0]])
    weights = bootstrap_weights(4, 100, np.random.default_rng(0))
    found = principled(correct, plain, people, weights)
    assert found["irrelevant"] == ["Kim", "mug"] and found["experts"] == ["sum", "abacus"]
    assert found["worst_case_utility"] == -0.25
    assert found["expertise_advantage"] == (0.5 + 0.25) / 2
    # Gains of the experts by problem: 0, 0, 1, 0.5, of variance 0.229 over 3 degrees of freedom.
    half = 1.959964 * np.sqrt(np.var([0, 0, 1, 0.5], ddof=1) / 4)
    assert found["expertise_advantage_ci95"] == pytest.approx([0.375 - half, 0.375 + half])
    low, high = found["worst_case_utility_ci95"]
    assert -1 <= low < -0.25 < high <= 1
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert principled(correct[5:], plain, people[5:], weights) == {}


def test_worst_and_mean_minus_none_by_hand():
    accuracy, plain = np.array([[0.2, 0.8], [0.5, 0.5]]), np.array([0.6, 0.25])
    figures = accuracy_figures(accuracy, plain, pss_min_over_max)
    np.testing.assert_allclose(figures["worst_minus_none"], [-0.4, 0.25])
    np.testing.assert_allclose(figures["mean_minus_none"], [-0.1, 0.25])


def test_worst_minus_none_of_a_persona_alone_is_its_effect():
    rng = np.random.default_rng(1)
    correct, plain = rng.integers(0, 2, (1, 200, 1)) * 1.0, rng.integers(0, 2, (200, 1)) * 1.0
    found = stability(correct, ["one"], plain, rng, 2000)
    [effect] = persona_effects(correct, plain, ["one"])
    assert found["worst_minus_none"] == found["mean_minus_none"] == effect["effect"]
    assert found["mean_minus_none_ci95"] == pytest.approx(effect["effect_ci95"])
    assert found["worst_minus_none_ci95"] == pytest.approx(effect["effect_ci95"], abs=0.01)


@pytest.mark.parametrize("worst", [0.3, 0.6])
def test_interval_of_worst_minus_none_covers_the_truth(worst):
    """300 runs: at 0.95 the standard error is 0.0126, and 0.915 lies 2.8 of them below. Where all
    personas are as good as none, the interval is wider than necessary."""
    rng, covered = np.random.default_rng(2), []
    accuracies = np.array([0.6, worst, 0.6, 0.6, 0.6])[:, None]
    for _ in range(300):
        difficulty = np.where(rng.random((5, 150)) < 0.5, rng.random(150), rng.random((5, 150)))
        plain, *correct = (difficulty < accuracies).astype(float)[..., None]
        found = stability(np.array(correct), range(4), plain, rng, 200)
        low, high = found["worst_minus_none_ci95"]
        covered.append(low <= worst - 0.6 <= high)
    assert 0.915 <= np.mean(covered) <= (0.985 if worst < 0.6 else 1)
