import io
import logging
import re
from types import SimpleNamespace

import pytest

from permix_jax.core import progress
from permix_jax.core.progress import Agenda, Phase, Progress


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


def terminal(monkeypatch):
    """What is written to a terminal from now on."""
    output = io.StringIO()
    output.isatty = lambda: True
    monkeypatch.setattr("sys.stderr", output)
    return output


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


def test_nothing_left_to_do_prints_nothing(lines):
    with Progress("GRPO", 6, initial=6):
        pass
    assert lines() == []


def test_a_terminal_gets_one_bar(monkeypatch):
    output = terminal(monkeypatch)
    with Progress("GRPO", 4, initial=2) as bar:
        bar.advance(reward=0.5)
        bar.advance(reward=0.75)
    text = output.getvalue()
    assert "\r" in text and text.count("\n") == 1
    assert re.search(r"GRPO: 100%.* 4/4 .*reward=0.75", text)


def test_a_warning_stands_on_a_line_of_its_own(monkeypatch):
    output = terminal(monkeypatch)
    monkeypatch.setattr(progress._LOG, "warning", lambda text: print(text, file=output))
    with Progress("GRPO", 4) as bar:
        bar.advance()
        bar.warn("step 1: too long")
        bar.advance()
    before, after = output.getvalue().split("step 1: too long\n")
    assert before.rstrip(" ").endswith("\r")
    assert after.startswith("\rGRPO: ")


# ---- an agenda ------------------------------------------------------------------------------


@pytest.fixture
def agenda():
    phases = [
        Phase("sft", 0, "steps of SFT", "sft"),
        Phase("training", 4, "steps of GRPO", "training"),
        Phase("evaluation", 600, "answers", progress.RESPONSES),
        Phase("kl", 1200, "responses", progress.RESPONSES),
    ]
    return Agenda(phases)


def test_the_whole_job_is_said_at_its_start(agenda, caplog):
    caplog.set_level(logging.INFO)
    for job in (agenda, Agenda([])):
        with progress.following(job):
            pass
    assert caplog.messages == [
        "to do: 4 steps of GRPO, 600 answers, 1,200 responses",
        "to do: nothing but the report",
    ]


def test_each_line_says_what_follows_and_how_long_that_takes_once_it_is_known(agenda, clock, lines):
    """GRPO with an evaluation after its second step; then the second evaluation, then the KL."""
    with progress.following(agenda):
        with Progress("GRPO", 4, phase="training") as training:
            for _ in range(2):
                clock.seconds += 20
                training.advance()
            with Progress("evaluation", 300, phase="evaluation") as evaluation:
                clock.seconds += 100  # compiles, and is not counted
                evaluation.advance(100)
                clock.seconds += 50
                evaluation.advance(200)
            for _ in range(2):
                clock.seconds += 20
                training.advance()
        with Progress("evaluation", 300, phase="evaluation") as evaluation:
            clock.seconds += 30
            evaluation.advance(300)
        with Progress("KL", 1200, phase="kl") as kl:
            clock.seconds += 300
            kl.advance(600)
            clock.seconds += 60
            kl.advance(600)
    assert lines() == [
        "GRPO 1/4  then 600 answers, 1,200 responses",
        "GRPO 2/4  40 s left, then 600 answers, 1,200 responses",
        # 50 s for 200 answers, and so for 200 responses; 20 s for a step.
        "evaluation 100/300  then 2 steps of GRPO, 300 answers, 1,200 responses",
        "evaluation 300/300  0 s left, then about 415 s for 2 steps of GRPO, 300 answers, "
        "1,200 responses",
        "GRPO 3/4  20 s left, then about 375 s for 300 answers, 1,200 responses",
        "GRPO 4/4  0 s left, then about 375 s for 300 answers, 1,200 responses",
        "evaluation 300/300  0 s left, then about 300 s for 1,200 responses",
        "KL 600/1200  150 s left",
        "KL 1200/1200  0 s left",
    ]


def test_what_another_run_has_done_does_not_follow(clock, lines):
    phases = [Phase("sft", 9, "steps of SFT", "sft"), Phase("training", 2, "steps", "training")]
    with progress.following(Agenda(phases)):
        progress.finish("sft")
        with Progress("GRPO", 2, phase="training") as bar:
            bar.advance()
            clock.seconds += 3
            bar.advance()
    assert lines() == ["GRPO 1/2", "GRPO 2/2  0 s left"]


def test_rollouts_tell_how_long_responses_take_until_an_evaluation_does(agenda, clock, lines):
    progress.learn(progress.RESPONSES, 64, 3.0)  # nothing is followed yet
    with progress.following(agenda):
        with Progress("GRPO", 4, phase="training") as bar:
            for seconds in (90.0, 32.0, 16.0, 16.0):  # the first compiles
                progress.learn(progress.RESPONSES, 64, seconds)
                clock.seconds += 20
                bar.advance()
        with Progress("evaluation", 600, phase="evaluation") as bar:
            for _ in range(2):
                clock.seconds += 150
                bar.advance(300)
    assert lines() == [
        "GRPO 1/4  then 600 answers, 1,200 responses",
        "GRPO 2/4  40 s left, then about 15 min for 600 answers, 1,200 responses",
        "GRPO 3/4  20 s left, then about 450 s for 600 answers, 1,200 responses",
        "GRPO 4/4  0 s left, then about 450 s for 600 answers, 1,200 responses",
        "evaluation 300/600  75 s left, then about 300 s for 1,200 responses",
        "evaluation 600/600  0 s left, then about 10 min for 1,200 responses",
    ]


def test_a_phase_that_is_not_on_the_agenda_counts_by_itself(agenda, clock, lines):
    with progress.following(agenda), Progress("weights", 20) as bar:
        for _ in range(2):
            clock.seconds += 20
            bar.advance(10)
    assert lines() == ["weights 10/20", "weights 20/20  0 s left"]


def test_a_bar_has_the_time_of_what_follows(monkeypatch, clock, agenda):
    output = terminal(monkeypatch)
    with progress.following(agenda), Progress("evaluation", 600, phase="evaluation") as bar:
        for _ in range(2):
            clock.seconds += 10
            bar.advance(300)
    assert "then=4 steps of GRPO, 1,200 responses" in output.getvalue()


def test_durations():
    said = {0.4: "0 s", 599: "599 s", 600: "10 min", 5999: "100 min", 11520: "3.2 h"}
    assert {seconds: progress.duration(seconds) for seconds in said} == said


def test_less_may_be_left_of_a_phase_after_all():
    agenda = Agenda([Phase("evaluation", 90, "answers", ""), Phase("kl", 4, "responses", "")])
    with progress.following(agenda):
        progress.correct([Phase("evaluation", 30, "answers", ""), Phase("sft", 7, "steps", "")])
    assert agenda.after("kl", 1)[0] == "30 answers, 3 responses"
    progress.correct([Phase("evaluation", 10, "answers", "")])  # no agenda is followed
    assert agenda.after("", 0)[0] == "30 answers, 4 responses"
