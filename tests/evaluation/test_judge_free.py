"""Fidelity without a judge, under a reference whose likelihoods are known."""

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
    for persona in ASKED:
        for question in range(10):
            for sample in range(samples):
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


@pytest.fixture
def figures(monkeypatch, tmp_path):
    """judge_free_figures under a reference that gives a persona's own marker probability 1/2, any
    other word of the responses 1/8, whoever is asked."""

    def known(reference, responses, tokens, personas, *rest):
        def log_likelihood(response, persona, ids):
            own = MARKER.get(persona.id) if persona else None
            words = response.text.split()
            return sum(math.log(1 / 2 if word == own else 1 / 8) for word in words)

        return np.array(
            [
                [log_likelihood(r, p, ids) for p in under]
                for r, ids, under in zip(responses, tokens, personas, strict=True)
            ]
        )

    monkeypatch.setattr(without_judge, "log_likelihoods", known)
    tokenizer = build_tokenizer()
    policy = Policy(None, tokenizer, (tokenizer.eos_token_id,))
    reference = Reference(StoredPolicy("known", policy, None, dict), 8, 64, 64)

    def run(rows, **fields):
        settings = replace(SETTINGS, **fields)
        return judge_free_figures(rows, reference, ASKED, settings, tmp_path)

    return run


def test_a_policy_that_always_plays_is_always_identified(figures):
    result = figures(make_rows(1.0))["by_task"]["role_play"]
    assert result["identification"]["share"] == 1 and result["identification"]["chance"] == 0.25
    # Two of the five tokens (four words, and the end) gain log 4 each.
    assert result["gain_per_token"]["gain"] == pytest.approx(2 * math.log(4) / 5)
    assert result["gain_per_token"]["margin"] == pytest.approx(2 * math.log(4) / 5)
    assert result["style_distance"]["within"] == pytest.approx(0, abs=1e-12)
    assert result["style_distance"]["distance"] > 0.3
    assert result["agreement"] is None  # the rule says the same of all
    assert (result["questions"], result["n"], result["empty"]) == (10, 80, 0)


def test_a_policy_that_ignores_its_persona_is_at_chance(figures):
    result = figures(make_rows(0.25))["by_task"]["role_play"]
    share, (low, high) = (result["identification"][k] for k in ("share", "share_ci95"))
    assert low < 0.25 < high and share < 0.4
    low, high = result["style_distance"]["distance_ci95"]
    assert low < 0 < high


def test_agreement_with_the_exact_rule_is_whole_where_the_reference_knows_it(figures):
    agreement = figures(make_rows(0.6))["by_task"]["role_play"]["agreement"]
    for score in ("gain", "identified"):
        assert agreement[score]["auc"] == 1 and agreement[score]["n"] == 80


def test_questions_are_drawn_with_all_their_answers(figures):
    result = figures(make_rows(0.6), questions=4)["by_task"]["role_play"]
    assert (result["questions"], result["n"]) == (4, 4 * 4 * 2)


def test_what_one_question_cannot_say_is_left_out(figures):
    """So it ends in figures, not in an error after all has been answered."""
    rows = [row for row in make_rows(0.6) if row["problem"] == "q0"]
    result = figures(rows)["by_task"]["role_play"]
    assert result["questions"] == 1 and result["style_distance"] is not None
    assert result["identification"] is result["gain_per_token"] is result["agreement"] is None


def test_a_question_that_one_persona_alone_answered_has_no_style_distance(figures):
    empty = [
        row if row["persona"] == ASKED[0].id else {**row, "completion": "", "truncated": True}
        for row in make_rows(0.6)
    ]
    result = figures(empty)["by_task"]["role_play"]
    assert (result["n"], result["empty"], result["style_distance"]) == (20, 60, None)


def test_one_sample_has_no_style_distance(figures):
    assert figures(make_rows(0.6, samples=1))["by_task"]["role_play"]["style_distance"] is None


def test_responses_without_a_token_are_counted_and_left_out(figures):
    rows = make_rows(0.6, truncated=True)
    rows[5] = rows[5] | {"completion": ""}
    result = figures(rows)["by_task"]["role_play"]
    assert (result["n"], result["empty"]) == (79, 1)
    silent = figures([row | {"completion": ""} for row in rows])["by_task"]["role_play"]
    assert (silent["n"], silent["empty"], silent["identification"]) == (0, 80, None)


def test_a_folder_that_has_its_figures_is_left_alone(tmp_path):
    reference = Reference(StoredPolicy("base", None, None, dict), 8, 64, 64)
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
    reference = Reference(StoredPolicy("base", None, None, dict), 8, 64, 64)
    (tmp_path / "judge_free.json").write_text("{}")
    measure_without_judge(reference, ASKED, SETTINGS, [tmp_path])
    reference = replace(reference, stored=replace(reference.stored, name=name))
    settings = replace(SETTINGS, **fields)
    with pytest.raises(ValueError, match=rf"\({message}\); remove .*judge_free.json, or set"):
        measure_without_judge(reference, ASKED, settings, [tmp_path])
