"""Rows to figures, by hand."""

from types import SimpleNamespace

import pytest

from permix_jax.core.persona import Persona
from permix_jax.stats.summary import summarise

PEOPLE = [
    Persona("poet", "poet", "you are a poet", "arts", "heldout"),
    Persona("cook", "cook", "you are a cook", "trade", "heldout"),
    Persona("liar", "liar", "you are a liar", "harm", "harmful"),
]
CORRECT = {None: [1, 1, 1, 0], "poet": [1, 1, 0, 0], "cook": [1, 1, 1, 1], "liar": [0, 0, 1, 0]}
SETTINGS = SimpleNamespace(seed=0, samples=1, role_play_samples=2, resamples=50, pss="min_over_max")


def rows(in_style=None):
    asked = [
        {"task": "problems", "persona": persona, "correct": float(x), "in_style": in_style}
        for persona, column in CORRECT.items()
        for x in column
    ]
    if in_style is None:
        return asked
    asked[:4] = [row | {"in_style": None} for row in asked[:4]]
    played = [
        {"task": "role_play", "persona": p.id, "correct": None, "in_style": p.id != "liar"}
        for p in PEOPLE
        for _ in range(2 * 3)
    ]
    return asked + played


def test_stability_together_and_by_set():
    [(name, result)] = summarise(rows(), PEOPLE, SETTINGS).items()
    assert name == "stability"
    assert result["pss"] == 0.25 and result["by_set"]["heldout"]["pss"] == 0.5
    assert result["by_set"]["harmful"]["pss"] == 1
    for of in (result, result["by_set"]["harmful"]):
        assert of["accuracy_no_persona"] == 0.75
    assert [e["persona"] for e in result["by_set"]["heldout"]["per_persona"]] == ["poet", "cook"]


def test_every_kind_has_all_figures():
    """The poet's category was trained, the cook's was not; the liar is harmful."""
    result = summarise(rows(), PEOPLE, SETTINGS, trained={"arts"})["stability"]
    kinds = result["by_kind"]
    assert list(kinds) == ["trained category", "new category", "harmful"]
    assert [of["accuracy_mean"] for of in kinds.values()] == [0.5, 1, 0.25]
    assert [of["worst_minus_none"] for of in kinds.values()] == [-0.25, 0.25, -0.5]
    assert kinds["harmful"] == result["by_set"]["harmful"]
    assert result["worst_minus_none"] == -0.5 and result["hurt"]["share"] == 0
    assert "by_kind" not in kinds["harmful"] and result["principled"] == {}


def test_agreement_by_hand():
    """Right: 2, 2, 2, 1 of the three personas; so 1/3 of the pairs agree, on each problem."""
    result = summarise(rows(), PEOPLE, SETTINGS)["stability"]
    verdict = result["agreement"]["verdict"]
    assert verdict["agreement"] == pytest.approx(1 / 3) == 1 - result["flip_rate"]
    by_chance = (7**2 + 5**2) / 12**2
    assert verdict["kappa"] == pytest.approx((1 / 3 - by_chance) / (1 - by_chance))
    assert list(result["agreement"]) == ["verdict"]  # nobody wrote down what is stated
    stated = [row | {"stated": "7" if row["correct"] else "8"} for row in rows()]
    answer = summarise(stated, PEOPLE, SETTINGS)["stability"]["agreement"]["answer"]
    assert answer == verdict  # all wrong answers are the same
    told = [row | {"completion": "so 7" if row["correct"] else "so 8"} for row in rows()]
    read = summarise(told, PEOPLE, SETTINGS, read=lambda text: text.split()[-1])["stability"]
    assert read["agreement"]["answer"] == answer and "at_k" not in read


def test_lottery_by_hand():
    """Accuracies 0.5, 1, 0.25: the best of two is 1 in two pairs of three, else 0.5."""
    lottery = summarise(rows(), PEOPLE, SETTINGS)["stability"]["lottery"]
    assert lottery["k"] == [1, 2, 3]
    assert lottery["expected_best"] == pytest.approx([1.75 / 3, 2.5 / 3, 1])
    assert lottery["expected_worst"] == pytest.approx([1.75 / 3, (0.5 + 0.25 + 0.25) / 3, 0.25])


def test_the_persona_that_hurts_most_comes_first():
    result = summarise(rows(), PEOPLE, SETTINGS)["stability"]
    effects = {e["persona"]: e["effect"] for e in result["persona_effects"]}
    assert list(effects.items()) == [("liar", -0.5), ("poet", -0.25), ("cook", 0.25)]
    # Holm's correction is for the personas that are asked together.
    alone = result["by_set"]["harmful"]["persona_effects"][0]
    assert alone["p_adjusted"] == alone["p"] <= result["persona_effects"][0]["p_adjusted"]


def test_fidelity_where_there_is_a_rule():
    result = summarise(rows(in_style=True), PEOPLE, SETTINGS)["fidelity"]
    assert result["by_task"]["role_play"]["fidelity"] == pytest.approx(2 / 3)
    assert result["by_task"]["arithmetic"]["fidelity"] == 1
    assert result["by_set"]["harmful"]["by_task"]["role_play"]["fidelity"] == 0
    assert result["by_set"]["heldout"]["by_task"]["role_play"]["n"] == 2 * 3 * 2


def with_unknown(*cells):
    """The rows, with an unknown verdict for (persona, number of the problem)."""
    changed = rows()
    for persona, problem in cells:
        changed[4 * list(CORRECT).index(persona) + problem]["correct"] = None
    return changed


def test_a_problem_with_an_unknown_verdict_is_left_out_under_every_persona():
    """Without the last problem: plain 1, poet 2/3, cook 1, liar 1/3."""
    result = summarise(with_unknown(("cook", 3), ("poet", 3)), PEOPLE, SETTINGS)["stability"]
    assert result["unknown_verdicts"] == 2 and result["problems_left_out"] == 1
    assert result["accuracy_no_persona"] == 1 and result["pss"] == pytest.approx(1 / 3)
    assert [e["n"] for e in result["per_persona"]] == [3, 3, 3]
    # The same problems count in a set whose own verdicts are all known.
    liar = result["by_set"]["harmful"]
    assert liar["accuracy_mean"] == pytest.approx(1 / 3) and liar["accuracy_no_persona"] == 1
    plain = summarise(rows(), PEOPLE, SETTINGS)["stability"]
    assert plain["unknown_verdicts"] == plain["problems_left_out"] == 0


def test_unknown_answers_count_as_wrong_where_every_problem_has_one():
    unknown = with_unknown(("cook", 3), ("poet", 2), (None, 1), ("liar", 0))
    wrong = [row | {"correct": row["correct"] or 0.0} for row in unknown]
    result, expected = (summarise(x, PEOPLE, SETTINGS)["stability"] for x in (unknown, wrong))
    assert (result["unknown_verdicts"], result["problems_left_out"]) == (4, 0)
    assert result | {"unknown_verdicts": 0} == expected
