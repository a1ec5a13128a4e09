"""Fidelity without a judge, under a reference whose likelihoods are known."""

import itertools
import json
import math
from dataclasses import replace

import numpy as np
import pytest

import permix_jax.evaluation.judge_free as without_judge
from permix_jax.evaluation.judge_free import (
    JudgeFreeSettings,
    judge_free_figures,
    measure_without_judge,
)
from permix_jax.evaluation.likelihood import Reference
from permix_jax.models.policy import Policy, StoredPolicy
from permix_jax.tasks.embedded_world import PERSONAS, build_tokenizer, in_style

HELDOUT = [p for p in PERSONAS if p.split == "heldout"]
MARKER = {"android": "beep", "professor": "hence", "rancher": "howdy", "bard": "alas"}
ASKED = [p for p in HELDOUT if p.id in MARKER]
SETTINGS = JudgeFreeSettings(0, 4, 0, 100)


def make_rows(follows: float, samples: int = 2, truncated: bool = False) -> list[dict]:
    """Conversation rows of four personas to ten questions; a share of them in the own style."""
    rng, rows = np.random.default_rng(0), []
    for persona, question, sample in itertools.product(ASKED, range(10), range(samples)):
        word = MARKER[persona.id]
        if rng.random() >= follows:
            word = rng.choice([w for w in MARKER.values() if w != word])
        rows.append(
            {"task": "role_play", "problem": f"q{question}", "persona": persona.id,
             "sample": sample, "prompt": f"tell me about {question} .",
             "completion": f"{word} it is {word}", "truncated": truncated,
             "in_style": in_style(word, persona)}
        )  # fmt: skip
    return rows


def reference_of(policy, name="known") -> Reference:
    return Reference(StoredPolicy(name, policy, None, dict), 8, 64, 64)


@pytest.fixture
def figures(monkeypatch, tmp_path):
    """The figures of role-play under a reference that gives a persona's own marker probability 1/2,
    any other word of the responses 1/8, whoever is asked."""

    def likelihood(response, persona):
        own = MARKER.get(persona.id) if persona else None
        return sum(math.log(1 / 2 if word == own else 1 / 8) for word in response.text.split())

    def known(reference, responses, tokens, personas, *rest):
        asked = zip(responses, personas, strict=True)
        return np.array([[likelihood(response, p) for p in under] for response, under in asked])

    monkeypatch.setattr(without_judge, "log_likelihoods", known)
    tokenizer = build_tokenizer()
    reference = reference_of(Policy(None, tokenizer, (tokenizer.eos_token_id,)))

    def run(rows, **fields):
        settings = replace(SETTINGS, **fields)
        result = judge_free_figures(rows, reference, ASKED, settings, tmp_path)
        return result["by_task"]["role_play"]

    return run


def test_a_policy_that_always_plays_is_always_identified(figures):
    result = figures(make_rows(1.0))
    assert result["identification"]["share"] == 1 and result["identification"]["chance"] == 0.25
    # Two of the five tokens (four words, and the end) gain log 4 each.
    assert result["gain_per_token"]["gain"] == pytest.approx(2 * math.log(4) / 5)
    assert result["gain_per_token"]["margin"] == pytest.approx(2 * math.log(4) / 5)
    assert result["style_distance"]["within"] == pytest.approx(0, abs=1e-12)
    assert result["style_distance"]["distance"] > 0.3
    assert result["agreement"] is None  # the rule says the same of all
    assert (result["questions"], result["n"], result["empty"]) == (10, 80, 0)


def test_a_policy_that_ignores_its_persona_is_at_chance(figures):
    result = figures(make_rows(0.25))
    share, (low, high) = (result["identification"][k] for k in ("share", "share_ci95"))
    assert low < 0.25 < high and share < 0.4
    low, high = result["style_distance"]["distance_ci95"]
    assert low < 0 < high


def test_agreement_with_the_exact_rule_is_whole_where_the_reference_knows_it(figures):
    agreement = figures(make_rows(0.6))["agreement"]
    for score in ("gain", "identified"):
        assert agreement[score]["auc"] == 1 and agreement[score]["n"] == 80


def test_questions_are_drawn_with_all_their_answers(figures):
    result = figures(make_rows(0.6), questions=4)
    assert (result["questions"], result["n"]) == (4, 4 * 4 * 2)
    assert figures(make_rows(0.6), questions=1)["style_distance"] is not None


ROWS, SILENT = make_rows(0.6), {"completion": "", "truncated": True}


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (
            [row for row in ROWS if row["problem"] == "q0"],
            {"questions": 1, "identification": None, "gain_per_token": None, "agreement": None},
        ),
        (
            [row if row["persona"] == ASKED[0].id else row | SILENT for row in ROWS],
            {"n": 20, "empty": 60, "style_distance": None},
        ),
        (make_rows(0.6, samples=1), {"style_distance": None}),
        ([ROWS[0] | SILENT, *ROWS[1:]], {"n": 79, "empty": 1}),
        ([row | SILENT for row in ROWS], {"n": 0, "empty": 80, "identification": None}),
    ],
    ids=["one question", "one persona answered", "one sample", "one empty", "all empty"],
)
def test_what_cannot_be_said_is_left_out(figures, rows, expected):
    """So it ends in figures, not in an error after all has been answered."""
    result = figures(rows)
    assert {name: result[name] for name in expected} == expected


def test_a_folder_that_has_its_figures_is_left_alone(tmp_path):
    reference = reference_of(None, "base")
    (tmp_path / "judge_free.json").write_text(json.dumps({"by_task": {}}))
    measure_without_judge(reference, ASKED, SETTINGS, [tmp_path])
    assert json.loads((tmp_path / "judge_free.json").read_text()) == {"by_task": {}}


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("other", {}, "reference: 'other' instead of 'base'"),
        ("base", {"candidates": 3}, "candidates: 3 instead of 4"),
    ],
)
def test_figures_of_another_reference_or_settings_are_not_taken_for_these(
    tmp_path, name, fields, message
):
    reference = reference_of(None, "base")
    (tmp_path / "judge_free.json").write_text("{}")
    measure_without_judge(reference, ASKED, SETTINGS, [tmp_path])
    reference = replace(reference, stored=replace(reference.stored, name=name))
    settings = replace(SETTINGS, **fields)
    with pytest.raises(ValueError, match=rf"\({message}\); remove .*judge_free.json, or set"):
        measure_without_judge(reference, ASKED, settings, [tmp_path])
