import json
import math
import sys

import numpy as np
import pytest

from permix_jax.core.problem import Problem, Undecided
from permix_jax.rewards import pool as pool_module
from permix_jax.rewards.grade import grade_answer
from permix_jax.rewards.pool import MAX_STEPS
from permix_jax.rewards.verifier import Verifier

PATIENCE = 60.0
# Right is what it is asked for the first time; "hard" takes more than a pair's steps at first.
ONCE = """
import json, sys, time
print(json.dumps({"ready": True}), flush=True)
seen = set()
for line in sys.stdin:
    pair = json.loads(line)
    answer = pair["answer"]
    if answer == "hang":
        time.sleep(1000)
    verdict = "error" if answer == "error" else answer not in seen
    if answer == "hard" and pair["steps"] <= 1_000_000:
        verdict = "timeout"
    seen.add(answer)
    print(json.dumps({"verdict": verdict}), flush=True)
"""
# Writes down what it is asked, and answers "timeout".
NEVER = """
import json, sys
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    open(sys.argv[1], "a").write(line)
    print(json.dumps({"verdict": "timeout"}), flush=True)
"""


def undecided(text, problem):
    return Undecided(text, problem.answer) if text else math.nan


def problems(*answers):
    return [Problem(f"p{index}", "", answer, "test") for index, answer in enumerate(answers)]


def grade(verifier, *texts):
    return verifier.submit(texts, problems(*["gold"] * len(texts))).result(PATIENCE)


@pytest.fixture
def once(monkeypatch):
    monkeypatch.setattr(pool_module, "_COMMAND", (sys.executable, "-c", ONCE))
    with Verifier(undecided, workers=1, item_seconds=0.3, batch_seconds=PATIENCE) as verifier:
        yield verifier


def test_the_real_thing():
    texts = [r"\boxed{5}", r"\boxed{6}", r"\boxed{\ln 2+\ln 3}", r"\boxed{\ln 5}", "", r"\boxed{1}"]
    golds = problems("5", "5", r"\ln 6", r"\ln 6", "5", "")
    with Verifier(grade_answer, workers=1) as verifier:
        grades = verifier.submit(texts, golds).result(PATIENCE)
    np.testing.assert_array_equal(grades.correct, np.float32([1, 0, 1, 0, 0, np.nan]))
    assert grades.correct.dtype == np.float32
    assert grades.metrics == {
        "verifier/timeouts": 0.0,
        "verifier/errors": 0.0,
        "verifier/unparseable_gold": 1.0,
        "verifier/undecided": 1.0,
        "verifier/symbolic_share": 1 / 6,  # ln 5 is refused by its estimate
    }


def test_an_answer_that_a_group_repeats_is_graded_once_and_remembered(once):
    assert grade(once, "a", "a", "b", "a").correct.tolist() == [1, 1, 1, 1]
    again = grade(once, "a", "c")
    assert again.correct.tolist() == [1, 1] and again.metrics["verifier/symbolic_share"] == 1.0
    pairs = [Undecided(answer, "gold") for answer in "abd"]
    assert once.decide(pairs) == dict.fromkeys(pairs, True)


def test_memory_is_bounded(once, monkeypatch):
    monkeypatch.setattr("permix_jax.rewards.verifier.MAX_REMEMBERED", 2)
    assert grade(once, "a", "b", "c").correct.tolist() == [1, 1, 1]
    assert grade(once, "c").correct.tolist() == [1]  # remembered
    assert grade(once, "a").correct.tolist() == [0]  # forgotten, so asked a second time


def test_what_fails_is_unknown_and_counted(once):
    grades = grade(once, "hang", "error", "hard", "a", "hang", "")
    nan = np.nan
    np.testing.assert_array_equal(grades.correct, np.float32([nan, nan, nan, 1, nan, nan]))
    assert grades.metrics == {
        "verifier/timeouts": 3.0,
        "verifier/errors": 1.0,
        "verifier/unparseable_gold": 1.0,
        "verifier/undecided": 5.0,
        "verifier/symbolic_share": 5 / 6,
    }


@pytest.fixture
def never(monkeypatch, tmp_path):
    """A verifier whose pairs all run out of steps, and what its worker was asked."""
    log = tmp_path / "asked"
    log.touch()
    monkeypatch.setattr(pool_module, "_COMMAND", (sys.executable, "-c", NEVER, str(log)))
    with Verifier(undecided, workers=1, batch_seconds=PATIENCE) as verifier:
        yield verifier, lambda: [json.loads(line) for line in log.read_text().splitlines()]


def test_a_pair_that_ran_out_of_time_is_not_tried_again_but_with_more_patience(never):
    verifier, asked = never
    for _ in range(2):
        grades = grade(verifier, "a")
        assert np.isnan(grades.correct).all() and grades.metrics["verifier/timeouts"] == 1
    once = {"answer": "a", "gold": "gold", "kind": "", "steps": MAX_STEPS}
    assert asked() == [once]
    for _ in range(2):  # with ten times the steps once
        again = verifier.submit(["a"], problems("gold"), retry=True).result(PATIENCE)
        assert np.isnan(again.correct).all() and again.metrics["verifier/timeouts"] == 1
    assert asked() == [once, once | {"steps": 10 * MAX_STEPS}]


def test_a_retry_decides_what_took_long_and_that_is_remembered(once):
    assert np.isnan(grade(once, "hard").correct).all()
    retried = once.submit(["hard", "a"], problems("gold", "gold"), retry=True).result(PATIENCE)
    assert retried.correct.tolist() == [0, 1] and retried.metrics["verifier/timeouts"] == 0
    assert grade(once, "hard").correct.tolist() == [0]


def test_what_the_batch_had_no_time_for_is_unknown_and_tried_again(monkeypatch):
    monkeypatch.setattr(pool_module, "_COMMAND", (sys.executable, "-c", ONCE))
    with Verifier(undecided, workers=1, item_seconds=PATIENCE, batch_seconds=0.3) as verifier:
        late = grade(verifier, "hang", "a")
        assert np.isnan(late.correct).all() and late.metrics["verifier/timeouts"] == 2
        assert grade(verifier, "a").correct.tolist() == [1]


def test_what_the_rule_raises_the_future_raises():
    def broken(text, problem):
        raise ZeroDivisionError("a broken rule")

    with Verifier(broken, workers=0) as verifier:
        with pytest.raises(ZeroDivisionError, match="a broken rule"):
            verifier.submit(["a"], problems("b")).result(PATIENCE)


def test_without_workers_the_rule_has_to_decide():
    with Verifier(undecided, workers=0) as verifier:
        assert verifier.submit([], []).result(PATIENCE).correct.shape == (0,)
        with pytest.raises(ValueError, match="undecided, but workers is 0; use 1 or more"):
            verifier.submit(["a"], problems("b")).result(PATIENCE)


def test_texts_and_problems_must_match():
    with Verifier(grade_answer, workers=0) as verifier:
        with pytest.raises(ValueError, match="2 texts for 1 problems; give one for each"):
            verifier.submit(["a", "b"], problems("c"))


def test_a_closed_verifier_takes_nothing():
    verifier = Verifier(grade_answer, workers=1)
    verifier.close()
    verifier.close()
    with pytest.raises(RuntimeError):
        verifier.submit(["a"], problems("b"))
