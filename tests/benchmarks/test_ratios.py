"""Medians, ratios and the table of the benchmark, from hand-made measurements."""

import pytest
from ratios import Spread, ratios, shares_of_limit, summarize, table


def measured(rollout, update, compile_seconds=5.0):
    """Steps of these seconds, with 1 s beside them, at a peak of 1 GB and 2 GB."""
    steps = [
        {
            "seconds": r + u + 1,
            "phases": {
                "rest": {"seconds": 1, "peak_bytes": 10**8},
                "rollout": {"seconds": r, "peak_bytes": 10**9},
                "update": {"seconds": u, "peak_bytes": 2 * 10**9},
            },
        }
        for r, u in zip(rollout, update, strict=True)
    ]
    return {"compile_seconds": compile_seconds, "steps": steps}


SUMMARIES = {
    "permix": summarize(measured([2, 4, 5], [10, 11, 30]), tokens=100),
    "torch": summarize(measured([8, 8, 8], [22, 22, 22], compile_seconds=0.0), tokens=100),
}


def test_a_summary_holds_medians_lowest_and_highest():
    assert SUMMARIES["permix"] == {
        "rollout": Spread(25, 20, 50),
        "update": Spread(11, 10, 30),
        "step": Spread(16, 13, 36),
        "peak memory of rollout": Spread(1, 1, 1),
        "peak memory of update": Spread(2, 2, 2),
        "compile": Spread(5, 5, 5),
    }


def test_a_ratio_above_one_is_in_our_favour_whatever_the_unit():
    found = ratios(SUMMARIES)["torch"]
    assert found == {
        "rollout": 2,  # 25 over 12.5 tokens/s
        "update": 2,  # 22 over 11 s
        "step": pytest.approx(31 / 16),
        "peak memory of rollout": 1,
        "peak memory of update": 1,
    }  # and none for compiling, which PyTorch does not


def test_the_share_of_the_limit_is_of_the_median_time():
    shares = shares_of_limit(SUMMARIES, {"rollout": 1.0, "update": 5.5}, tokens=100)
    assert shares["permix"] == {"rollout": 0.25, "update": 0.5}  # of 4 s and 11 s
    assert shares["torch"] == {"rollout": 0.125, "update": 0.25}


def test_the_table_shows_medians_spreads_and_ratios():
    shares = shares_of_limit(SUMMARIES, {"rollout": 1.0, "update": 5.5}, tokens=100)
    text = table({"permix": "ours", "torch": "theirs"}, SUMMARIES, shares)
    header, _, *lines = text.splitlines()
    assert header.split() == ["ours", "theirs", "over", "theirs"]
    cells = [line.split() for line in lines]
    assert cells[0] == "rollout, tokens/s 25 (20 to 50) 12.5 2.00x".split()
    assert cells[5] == "compile, s 5 0".split()
    assert cells[6] == "rollout, share of the limit 25% 12%".split()


def test_a_table_without_us_has_no_ratios():
    alone = {"torch": SUMMARIES["torch"]}
    text = table({"torch": "theirs"}, alone, shares_of_limit(alone, {"rollout": 1, "update": 1}, 9))
    assert "over" not in text and "22" in text
