"""The table of benchmarks/refill.py, by hand."""

import sys

import numpy as np
import pytest
import refill


def rows(tokens, rewards):
    return [
        {"tokens/generated": t, "reward": r, "step": i + 1}
        for i, (t, r) in enumerate(zip(tokens, rewards, strict=True))
    ]


def test_a_step_belongs_to_the_window_that_it_began_in():
    tokens, rewards = refill.tokens_and_rewards(rows([10, 20, 10, 5], [0, 0.5, 1, 0.25]))
    assert tokens.tolist() == [0, 10, 30, 40] and rewards.tolist() == [0, 0.5, 1, 0.25]
    assert refill.in_windows((tokens, rewards), np.array([0, 15, 30, 45])) == [0.25] + [
        pytest.approx(float("nan"), nan_ok=True),
        0.625,
    ]


def test_the_table_pairs_seeds_and_ends_with_the_shortest_run():
    def run(tokens, *rewards):
        return refill.tokens_and_rewards(rows([tokens] * len(rewards), rewards))

    runs = {
        0: [run(10, 0, 0.2, 0.4, 0.6, 0.8), run(10, 0.2, 0.4, 0.4, 0.6, 0.8)],
        2: [run(20, 0.2, 0.5, 0.9), run(20, 0.4, 0.7, 0.9)],
    }
    lines = refill.table(runs, 2).splitlines()
    assert len(lines) == 4 and lines[2].startswith("0 to 20")  # 40 tokens before the fifth step
    # Means 0.1 and 0.3 of two steps, 0.2 and 0.4 of one; the difference is 0.1 in both seeds.
    assert lines[2].split()[3:] == ["+0.200", "±1.271", "+0.300", "±1.271", "+0.100", "±0.000"]
    assert lines[3].split()[3:5] == ["+0.500", "±0.000"]


def test_what_is_no_field_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["refill.py", "--set=train.steps"])
    with pytest.raises(SystemExit):
        refill.main()
    assert (
        "--set=train.steps: give a field and its value, such as train.steps=50"
        in capsys.readouterr().err
    )
