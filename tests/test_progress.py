import io
import re
from types import SimpleNamespace

import pytest

from permix_jax import progress
from permix_jax.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that only moves when told; the real one is not touched."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


@pytest.fixture
def lines(capsys):
    """What was printed so far, the output being no terminal."""
    return lambda: capsys.readouterr().err.splitlines()


def test_the_first_and_the_last_unit_get_a_line(clock, lines):
    with Progress("SFT", 50) as bar:
        for _ in range(50):
            clock.seconds += 0.1
            bar.advance(loss=1.23456)
    assert lines() == ["SFT 1/50  loss 1.235", "SFT 50/50  loss 1.235  0 s left"]


def test_between_them_there_is_a_line_every_ten_seconds(clock, lines):
    with Progress("GRPO", 100) as bar:
        for step in range(20):
            clock.seconds += 4
            bar.advance(reward=step / 8, truncated=0)
    # At 4, 16, 28, ... seconds, with 4 seconds for each of the steps that are left.
    printed = lines()
    assert [line.split("  ")[0] for line in printed] == [f"GRPO {i}/100" for i in range(1, 20, 3)]
    assert printed[1] == "GRPO 4/100  reward 0.375  truncated 0  384 s left"


def test_time_left_counts_only_what_this_run_did_after_the_unit_that_compiles(clock, lines):
    with Progress("GRPO", 100, initial=90) as bar:
        clock.seconds += 600
        bar.advance()
        clock.seconds += 11
        bar.advance()
    assert lines() == ["GRPO 91/100", "GRPO 92/100  88 s left"]


def test_units_may_come_many_at_once(clock, lines):
    with Progress("eval", 1000) as bar:
        clock.seconds += 1
        bar.advance(256)
        clock.seconds += 1
        bar.advance(744)
    assert [line.split("  ")[0] for line in lines()] == ["eval 256/1000", "eval 1000/1000"]


def test_nothing_left_to_do_prints_nothing(lines):
    with Progress("GRPO", 6, initial=6):
        pass
    assert lines() == []


def test_a_terminal_gets_one_bar(monkeypatch):
    output = io.StringIO()
    output.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", output)
    with Progress("GRPO", 4, initial=2) as bar:
        bar.advance(reward=0.5)
        bar.advance(reward=0.75)
    text = output.getvalue()
    assert "\r" in text and text.count("\n") == 1
    assert re.search(r"GRPO: 100%.* 4/4 .*reward=0.75", text)


def test_a_warning_stands_on_a_line_of_its_own(monkeypatch):
    output = io.StringIO()
    output.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", output)
    monkeypatch.setattr(progress._LOG, "warning", lambda text: print(text, file=output))
    with Progress("GRPO", 4) as bar:
        bar.advance()
        bar.warn("step 1: too long")
        bar.advance()
    before, after = output.getvalue().split("step 1: too long\n")
    assert before.rstrip(" ").endswith("\r")
    assert after.startswith("\rGRPO: ")
