"""The verdicts that a mathematician would give, on pairs written for this project."""

from collections import Counter
from pathlib import Path

import pytest

from permix_jax.core.json_lines import read_rows
from permix_jax.core.problem import Problem
from permix_jax.rewards.grade import grade_answer
from permix_jax.rewards.verifier import Verifier

TABLE = Path(__file__).with_name("verdict_table.jsonl")


@pytest.fixture(scope="module")
def rows():
    return [row for _, _, row in read_rows(TABLE)]


@pytest.fixture(scope="module")
def grades(rows):
    texts = [row["completion"] for row in rows]
    problems = [
        Problem(f"row-{line}", row["problem"], row["gold"], "table")
        for line, row in enumerate(rows, 1)
    ]
    with Verifier(grade_answer, item_seconds=20, batch_seconds=300) as verifier:
        return verifier.submit(texts, problems).result(600)


def test_there_are_rows_of_many_kinds(rows):
    kinds = Counter(row["kind"] for row in rows)
    assert len(rows) >= 400 and len(kinds) >= 20
    assert {row["correct"] for row in rows} == {True, False}


def test_every_verdict_holds(rows, grades):
    wrong = {
        line: row
        for line, (row, grade) in enumerate(zip(rows, grades.correct, strict=True), 1)
        if grade != float(row["correct"])
    }
    assert not wrong, wrong


def test_no_grading_failed_and_few_took_algebra(grades):
    assert grades.metrics["verifier/timeouts"] == grades.metrics["verifier/errors"] == 0
    assert grades.metrics["verifier/unparseable_gold"] == 0
    assert grades.metrics["verifier/symbolic_share"] < 0.1
