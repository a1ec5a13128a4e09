"""How often personas claim plain answers: by hand, and of a run's stored answers."""

import numpy as np
import plain_style
import pytest
from runs import run_tiny


def test_shares_by_hand():
    """The first persona claims one of four plain answers, both two; a gain of 0 is no claim."""
    of_plain = np.array([[0.5, -1.0], [-0.1, 0.2], [0.0, -2.0], [-1.0, -1.0]])
    lines = plain_style.table(of_plain, np.array([1.0, -1.0, 2.0, 3.0])).splitlines()
    assert [line.split()[:-2] for line in lines[2:]] == [
        "claimed by one of 1 0.250".split(),
        "claimed by one of 2 0.500".split(),
        "own 0.750".split(),
        "q 0.500".split(),
    ]
    low, high = map(float, lines[2].split()[-2:])
    assert 0 == low < 0.25 < high < 1


def test_a_runs_answers_are_scored_once(tmp_path, monkeypatch):
    monkeypatch.setenv("PERMIX_CACHE", str(tmp_path / "cache"))
    workdir = run_tiny(tmp_path / "run", train__steps=1, eval__kl_responses=0)
    said = plain_style.measure(workdir, 3, 6)
    assert [line.partition("  ")[0] for line in said.splitlines()[2:]] == [
        "claimed by one of 1", "claimed by one of 2", "claimed by one of 3", "own", "q",
    ]  # fmt: skip
    written = (workdir / "plain_style/plain.jsonl").read_bytes()
    assert len(written.splitlines()) == 6 * 4
    assert len((workdir / "plain_style/own.jsonl").read_bytes().splitlines()) == 6 * 2
    assert plain_style.measure(workdir, 3, 6) == said
    assert (workdir / "plain_style/plain.jsonl").read_bytes() == written
    with pytest.raises(ValueError, match=r"^--problems is 10000; .* has \d+ plain answers$"):
        plain_style.measure(workdir, 3, 10000)
