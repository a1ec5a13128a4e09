import math

import numpy as np
import pytest

from permix_jax.core.problem import Problem
from permix_jax.rewards.grade import grade_answer
from permix_jax.rewards.verifier import Verifier, join_grades

PATIENCE = 60.0


def problems(*answers):
    return [Problem(f"p{index}", "", answer, "test") for index, answer in enumerate(answers)]


def test_the_real_thing():
    texts = [r"\boxed{5}", r"\boxed{6}", r"\boxed{\ln 2+\ln 3}", r"\boxed{\ln 5}", "", r"\boxed{1}"]
    golds = problems("5", "5", r"\ln 6", r"\ln 6", "5", "")
    with Verifier(grade_answer) as verifier:
        grades = verifier.submit(texts, golds).result(PATIENCE)
    np.testing.assert_array_equal(grades.correct, np.float32([1, 0, 1, 0, 0, np.nan]))
    assert grades.correct.dtype == np.float32
    assert grades.metrics == {"verifier/unparseable_gold": 1.0}


def test_batches_are_graded_in_order_and_join():
    def rule(text, problem):
        return math.nan if text == "?" else float(text == problem.answer)

    with Verifier(rule) as verifier:
        assert verifier.submit([], []).result(PATIENCE).correct.shape == (0,)
        parts = [verifier.submit(each, problems("a", "b")) for each in ("ab", "b?", "??")]
        joined = join_grades([part.result(PATIENCE) for part in parts])
    np.testing.assert_array_equal(joined.correct, np.float32([1, 1, 0] + [np.nan] * 3))
    assert joined.metrics == {"verifier/unparseable_gold": 3.0}


def test_what_the_rule_raises_the_future_raises_and_the_next_batch_is_graded():
    def broken(text, problem):
        if text == "a":
            raise ZeroDivisionError("a broken rule")
        return 1.0

    with Verifier(broken) as verifier:
        with pytest.raises(ZeroDivisionError, match="a broken rule"):
            verifier.submit(["a"], problems("b")).result(PATIENCE)
        assert verifier.submit(["c"], problems("b")).result(PATIENCE).correct.tolist() == [1]


def test_texts_and_problems_must_match():
    with Verifier(grade_answer) as verifier:
        with pytest.raises(ValueError, match="2 texts for 1 problems; give one for each"):
            verifier.submit(["a", "b"], problems("c"))


def test_a_closed_verifier_takes_nothing():
    verifier = Verifier(grade_answer)
    verifier.close()
    verifier.close()
    with pytest.raises(RuntimeError):
        verifier.submit(["a"], problems("b"))
