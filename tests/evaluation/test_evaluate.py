"""An evaluation of an untrained policy in the embedded world, interrupted in every way."""

import errno
import json
import math
import os
from dataclasses import replace

import jax
import pytest
from runs import embedded_policy

from permix_jax.evaluation.evaluate import EvalSettings, chosen_personas, evaluate
from permix_jax.models.params import create_params
from permix_jax.models.policy import StoredPolicy
from permix_jax.rewards.verifier import Verifier
from permix_jax.rollout.sampling import Sampling
from permix_jax.tasks.embedded_world import latent_style_task

IDENTITY = {"policy": "untrained"}
SETTINGS = {
    "seed": 0,
    "samples": 2,
    "role_play_samples": 3,
    "sets": "heldout",
    "personas": 3,
    "batch_size": 12,
    "max_prompt_tokens": 16,
    "resamples": 50,
    "pss": "min_over_max",
    "sampling": Sampling(6),
}


class Interrupted(Exception):
    pass


@pytest.fixture(scope="module")
def world(mesh):
    policy = embedded_policy()
    params = create_params(policy.model, jax.random.key(0), mesh)
    return latent_style_task(5, 0.9, 0.6, 0.2, 0), policy, params, mesh


def evaluate_world(world, folder, check_stop=lambda: None, identity=IDENTITY, **fields):
    """Evaluates and returns the number of times that parameters were asked for."""
    task, policy, params, mesh = world
    loaded = []
    asked = StoredPolicy("a policy", policy, mesh, lambda: loaded.append(1) or params)
    with Verifier(task.grade) as verifier:
        settings = EvalSettings(**SETTINGS | fields)
        evaluate(task, asked, verifier, settings, identity, folder, check_stop)
    return len(loaded)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "completions.jsonl").read_text().splitlines()]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def whole(world, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "eval"
    assert evaluate_world(world, folder) == 1
    return folder


def test_rows_are_keyed_by_problem_persona_and_sample(whole):
    rows = rows_of(whole)
    asked = [row for row in rows if row["task"] == "problems"]
    assert len(asked) == 4 * 5 * 2 and len(rows) - len(asked) == 3 * 12 * 3
    keys = {(r["task"], r["problem"], r["persona"], r["sample"]) for r in rows}
    assert len(keys) == len(rows)
    assert [r["persona"] for r in asked[::10]] == [None, "android", "professor", "rancher"]


def test_what_an_answer_states_is_kept_where_there_are_several(world, whole, tmp_path):
    rows, task = rows_of(whole), world[0]
    for row in rows:
        assert ("stated" in row) == (row["task"] == "problems")
        assert row.get("stated") == (task.stated(row["completion"]) if "stated" in row else None)
    figures = json.loads((whole / "stability.json").read_text())
    names = ["average@2", "pass@1", "pass@2", "majority@1", "majority@2"]
    assert list(figures["at_k"]) == list(figures["by_set"]["heldout"]["at_k"]) == names
    evaluate_world(world, tmp_path, samples=1)
    assert not any("stated" in row for row in rows_of(tmp_path))
    alone = json.loads((tmp_path / "stability.json").read_text())
    assert set(figures) - set(alone) == {"at_k", "flip_rate_same_persona_ci95"}


def test_rows_of_an_older_version_have_no_majority(world, whole, tmp_path):
    """They lack what is stated, and the evaluation goes on."""
    old = [{k: v for k, v in row.items() if k != "stated"} for row in rows_of(whole)[:12]]
    text = "".join(json.dumps(row) + "\n" for row in old)
    (tmp_path / "completions.jsonl").write_text(text)
    (tmp_path / "evaluation.json").write_bytes((whole / "evaluation.json").read_bytes())
    evaluate_world(world, tmp_path)
    ours, theirs = (json.loads((x / "stability.json").read_text()) for x in (tmp_path, whole))
    assert list(ours["at_k"]) == ["average@2", "pass@1", "pass@2"]
    for of in (theirs, theirs["by_set"]["heldout"], theirs["by_kind"]["trained category"]):
        del of["at_k"]["majority@1"], of["at_k"]["majority@2"]
    assert ours == theirs


def test_a_stop_request_keeps_every_batch_and_ends_in_the_same_files(world, whole, tmp_path):
    folder, stops = tmp_path / "eval", 0

    def stop():
        raise Interrupted

    while True:
        try:
            evaluate_world(world, folder, stop)
            break
        except Interrupted:
            stops += 1
            assert len(rows_of(folder)) >= 9 * stops
            assert not (folder / "stability.json").exists()
    assert stops == 4 + 9  # 20 problems in batches of 6, 36 conversation prompts in batches of 4
    assert contents(folder) == contents(whole)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.5, 0.9, 0.999, 1])
def test_a_kill_anywhere_ends_in_the_same_files(world, whole, tmp_path, share):
    folder = tmp_path / "eval"
    folder.mkdir()
    rows = (whole / "completions.jsonl").read_bytes()
    (folder / "completions.jsonl").write_bytes(rows[: int(len(rows) * share)])
    (folder / "evaluation.json").write_bytes((whole / "evaluation.json").read_bytes())
    # Where all is answered, no parameters are loaded; and where it is finished, nothing is done.
    assert evaluate_world(world, folder) == (share < 1)
    assert contents(folder) == contents(whole)
    assert evaluate_world(world, folder) == 0


def test_a_full_disk_is_reported_and_the_rest_goes_on(world, whole, tmp_path, monkeypatch):
    folder, sync, calls = tmp_path / "eval", os.fsync, []

    def full_at_the_third(descriptor):
        calls.append(descriptor)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_at_the_third)
        with pytest.raises(OSError, match="No space left on device"):
            evaluate_world(world, folder)
    assert evaluate_world(world, folder) == 1
    assert contents(folder) == contents(whole)


def test_a_failing_rule_is_raised_not_swallowed(world, tmp_path):
    task, *rest = world

    def broken(text, problem):
        raise RuntimeError("no such rule")

    with pytest.raises(RuntimeError, match="no such rule"):
        evaluate_world((replace(task, grade=broken), *rest), tmp_path / "eval")


def test_answers_do_not_depend_on_the_batch_or_on_further_sets(world, whole, tmp_path):
    def answers(folder):
        return {
            (row["task"], row["problem"], row["persona"], row["sample"]): row["completion"]
            for row in rows_of(folder)
        }

    evaluate_world(world, tmp_path / "small", batch_size=4)
    assert answers(tmp_path / "small") == answers(whole)
    evaluate_world(world, tmp_path / "more", sets="heldout,train")
    more = answers(tmp_path / "more")
    assert {key: more[key] for key in answers(whole)} == answers(whole)
    assert len(more) == 7 * 5 * 2 + 6 * 12 * 3
    for name in ("stability.json", "fidelity.json"):
        one, both = (json.loads((x / name).read_text()) for x in (whole, tmp_path / "more"))
        assert list(both["by_set"]) == ["heldout", "train"]
        assert both["by_set"]["heldout"] == one["by_set"]["heldout"]
    assert len(both["by_task"]["role_play"]["per_persona"]) == 6


@pytest.mark.parametrize(("before", "after"), [(12, 4), (4, 9)])
def test_interrupted_and_gone_on_with_in_other_batches(world, whole, tmp_path, before, after):
    """An older evaluation.json names the batch size; the same answers come, in the same order."""
    stops = []

    def stop_after_three():
        stops.append(1)
        if len(stops) == 3:
            raise Interrupted

    named = {**IDENTITY, "config": {"eval": {"samples": 2, "batch_size": before}}}
    with pytest.raises(Interrupted):
        evaluate_world(world, tmp_path, stop_after_three, named, batch_size=before)
    assert len(rows_of(tmp_path)) == 3 * (before // 2 * 2)
    now = {**IDENTITY, "config": {"eval": {"samples": 2}}}
    assert evaluate_world(world, tmp_path, identity=now, batch_size=after) == 1
    for name in ("completions.jsonl", "stability.json", "fidelity.json"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


def test_prompts_of_another_content_are_refused(world, whole, tmp_path):
    task, *rest = world
    others = [replace(p, system_prompt="you are a clown .") for p in task.personas]
    with pytest.raises(ValueError, match="belongs to another evaluation .prompts_sha256"):
        evaluate_world((replace(task, personas=others), *rest), whole)
    with pytest.raises(ValueError, match="policy: 'other' instead of 'untrained'"):
        evaluate_world(world, whole, identity={"policy": "other"})


def test_chosen_personas_are_the_first_of_each_set(world):
    personas = world[0].personas
    first = [p.id for p in chosen_personas(personas, "train,heldout", 2)]
    assert first == ["robot", "scholar", "android", "professor"]
    assert len(chosen_personas(personas, "heldout", 0)) == 8
    message = (
        "eval.sets names 'harmful', of which there are no personas; there are train, heldout: give "
        "some personas the split harmful, or set eval.sets to train,heldout"
    )
    with pytest.raises(ValueError, match=message):
        chosen_personas(personas, "heldout,harmful", 0)


def test_problems_with_an_answer_without_a_verdict_are_left_out(world, tmp_path):
    task, *others = world
    verdicts = {task.test[0].id: math.nan, task.test[1].id: 1.0}

    def grade(text, problem):
        return verdicts.get(problem.id, 0.0)

    world = (replace(task, grade=grade), *others)
    evaluate_world(world, tmp_path / "eval")
    rows = [row for row in rows_of(tmp_path / "eval") if row["task"] == "problems"]
    correct = {row["problem"]: row["correct"] for row in rows}
    assert [correct[p.id] for p in task.test] == [None, 1, 0, 0, 0]
    stability = json.loads((tmp_path / "eval/stability.json").read_text())
    # Four prompts (no persona, three of them), two samples each.
    assert stability["unknown_verdicts"] == 8 and stability["problems_left_out"] == 1
    assert stability["accuracy_mean"] == stability["accuracy_no_persona"] == 0.25
