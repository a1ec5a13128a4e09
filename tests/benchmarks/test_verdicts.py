"""Verdicts beside math-verify's, on a table of four rows; hostile strings."""

import json

import pytest
from verdicts import by_kind, judge, math_verify_alone
from verifier_hostile import GOLDS, WORST, hostile

from permix_jax.core.problem import Problem
from permix_jax.rewards.grade import grade_answer

ROWS = [
    {"kind": "number", "problem": "", "gold": "5", "answer": "5.0", "right": True},
    {"kind": "number", "problem": "", "gold": "5", "answer": "6", "right": False},
    {"kind": "unit", "problem": "", "gold": "5", "completion": "\\boxed{5}", "correct": True},
    {"kind": "unit", "problem": "", "gold": "5", "completion": "\\boxed{7}", "correct": True},
]


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_table_counts_by_kind_what_each_accepts_and_refuses(tmp_path):
    judged = judge(write(tmp_path / "table.jsonl", ROWS))
    assert [row.ours for row in judged] == [row.theirs for row in judged] == [1, 0, 1, 0]
    judged[1] = judged[1]._replace(theirs=True)
    judged[2] = judged[2]._replace(ours=None)
    assert by_kind(judged).splitlines()[2:] == [
        "| kind | rows | right accepted | right refused | wrong accepted"
        " | right accepted | right refused | wrong accepted |",
        "| number | 2 | 1 | 0 | 0 | 1 | 0 | 1 |",
        "| unit | 2 | 0 | 2 | 0 | 1 | 1 | 0 |",
        "| all | 4 | 1 | 2 | 0 | 2 | 1 | 1 |",
    ]


def test_a_row_without_a_verdict_is_named(tmp_path):
    table = write(tmp_path / "table.jsonl", [ROWS[0], ROWS[1] | {"right": 0}])
    with pytest.raises(ValueError, match="table.jsonl:2: 'right' is 0; write true or false"):
        judge(table)


def test_math_verify_takes_the_gold_answer_first():
    assert math_verify_alone("x=3", "\\boxed{3}") and not math_verify_alone("3", "\\boxed{x=4}")
    assert math_verify_alone("\\frac{1}{2}", "so \\boxed{0.5}")


def test_hostile_strings_are_the_same_each_time_at_most_a_megabyte_and_never_right():
    strings = list(hostile(60))
    assert strings == list(hostile(70))[:60] and 900_000 < max(map(len, strings)) < 1_000_100
    for text in strings:
        grade = grade_answer(f"\\boxed{{{text}}}", Problem("", "", GOLDS[0], ""))
        assert grade == 0.0, text[:99]


@pytest.mark.parametrize("gold", ["72", "y=1/x", "(3,4)"])
def test_the_worst_answers_that_we_know_are_wrong(gold):
    prompt = "Find all integers $x$, in increasing order. How many feet?"
    for text in WORST:
        assert grade_answer(f"\\boxed{{{text}}}", Problem("", prompt, gold, "")) == 0.0, text[:99]
