import pytest

from permix_jax.report.completions import answers_table, browser_of, changes_section

PEOPLE = (None, "poet", "pirate")


def rows_of(outcomes, kind="problems", text="7"):
    """`outcomes`: [problem][persona], 1, 0 or None."""
    field, other = ("in_style", "correct") if kind == "role_play" else ("correct", "in_style")
    return [
        {
            "task": kind, "problem": f"q{q}", "persona": persona, "sample": 0, "prompt": f"p{q}",
            "answer": "7", "completion": text, "truncated": False, field: value, other: None,
        }
        for q, by_persona in enumerate(outcomes)
        for persona, value in zip(PEOPLE, by_persona, strict=True)
    ]  # fmt: skip


BEFORE = rows_of([[1, 0, 0], [1, 1, 1], [None, 1, 0]])
AFTER = rows_of([[1, 1, 1], [1, 1, 0], [1, 1, 0]])


def shown(browser):
    return [
        (browser["questions"][p["question"]]["problem"], p["persona"]) for p in browser["pairs"]
    ]


def test_answers_stand_side_by_side_and_regressed_questions_come_first():
    browser = browser_of({"base": BEFORE, "trained": AFTER})
    assert [question["problem"] for question in browser["questions"]] == ["q1", "q0", "q2"]
    assert shown(browser)[:4] == [("q1", None), ("q1", "poet"), ("q1", "pirate"), ("q0", None)]
    assert [a["correct"] for a in browser["pairs"][2]["answers"]] == [1, 0]
    kind = browser["kinds"][0]
    assert (kind["name"], kind["pairs"], kind["shown"]) == ("problems", 9, 9)
    # Between poet and pirate: only after training in q1, never in q0, always in q2.
    flips = [question["flips"] for question in browser["questions"]]
    assert flips == [[False, True], [False, False], [True, True]]


def test_pairs_are_cut_by_number_and_by_length_for_each_kind():
    talk = rows_of([[None, True, False]] * 2, "role_play")
    browser = browser_of({"base": BEFORE + talk}, pairs=4)
    kinds = [(k["name"], k["pairs"], k["shown"]) for k in browser["kinds"]]
    assert kinds == [("problems", 9, 4), ("role_play", 6, 4)]
    assert shown(browser)[:4] == [("q0", None), ("q0", "poet"), ("q0", "pirate"), ("q1", None)]
    assert len(browser["questions"]) == 4  # two of each kind
    long = browser_of({"base": rows_of([[1, 1, 1]] * 3, text="x" * 10)}, characters=35)
    assert long["kinds"][0]["shown"] == 4  # the one that goes over it is the last


def test_further_samples_come_after_first_ones():
    rows = [row | {"sample": sample} for row in BEFORE[:6] for sample in (0, 1)]
    browser = browser_of({"base": rows})
    order = [(q["problem"], q["sample"]) for q in browser["questions"]]
    assert order == [("q0", 0), ("q1", 0), ("q0", 1), ("q1", 1)]


def test_an_answer_that_one_policy_lacks_is_none():
    policies = {"base": BEFORE, "trained": AFTER[:-1]}
    assert browser_of(policies)["pairs"][-1]["answers"][1] is None
    assert answers_table(policies, questions=1)["rows"][2][2:] == ["7 (wrong)", None]


def test_nothing_to_show():
    assert browser_of({"base": [], "trained": []}) is None
    assert changes_section({"base": BEFORE})["blocks"] == []
    assert changes_section({"base": [], "trained": []})["blocks"] == []


def test_changes_are_counted_by_persona_over_all_rows():
    (table,) = changes_section({"base": BEFORE, "trained": AFTER})["blocks"]
    assert [column["name"] for column in table["columns"]] == [
        "persona", "answers", "regressed (right → wrong)", "improved (wrong → right)",
        "right in both", "wrong in both",
    ]  # fmt: skip
    counts = {row[0]["text"]: row[1:] for row in table["rows"]}
    assert counts == {
        "no persona": [2, 0, 0, 2, 0],  # the third could not be graded before
        "poet": [3, 0, 1, 2, 0],
        "pirate": [3, 1, 1, 0, 1],
    }
    assert table["rows"][1][0]["href"] == "#completions?kind=problems&persona=%2Bpoet"
    assert table["rows"][0][0]["href"] == "#completions?kind=problems&persona=-"


def test_a_table_of_answers_begins_where_the_persona_decides():
    policies = {"base": BEFORE, "trained": AFTER}
    made = answers_table(policies)
    assert [column["name"] for column in made["columns"]] == ["prompt", "persona", *policies]
    assert made["rows"] == [
        ["p2", "no persona", "7", "7 (right)"],
        ["p2", "poet", "7 (right)", "7 (right)"],
        ["p2", "pirate", "7 (wrong)", "7 (wrong)"],
    ]
    of_one = answers_table(policies, personas=["pirate"], questions=2)["rows"]
    assert of_one == [
        ["p2", "pirate", "7 (wrong)", "7 (wrong)"],
        ["p0", "pirate", "7 (wrong)", "7 (right)"],
    ]
    with pytest.raises(ValueError, match="no answers of the kind 'role_play' under any persona"):
        answers_table(policies, "role_play")
    with pytest.raises(ValueError, match="no answers of the kind 'problems' under nobody"):
        answers_table(policies, personas=["nobody"])
