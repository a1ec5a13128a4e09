"""The conversation in a terminal: what each line does, and what a person sees."""

from itertools import count

import pytest

from permix_jax.app.chat import Answers, CannotAsk, Turn
from permix_jax.app.terminal import HELP, converse, side_by_side
from permix_jax.rollout.generate import Answer


class _Chat:
    """Answers the first question with 1, the next with 2, ..., and keeps what it was asked."""

    def __init__(self):
        self.asked, self.number = [], count(1)

    def ask(self, persona, message, max_new_tokens, temperature, seed, turns):
        if message == "impossible":
            raise CannotAsk("message is impossible; write another")
        self.asked.append((persona, message, seed, list(turns)))
        number = next(self.number)
        return _answers(number)


def _answers(number: int) -> Answers:
    return Answers(Answer(f"base {number}", False), Answer(f"trained {number}", True))


def _said(chat, *lines, ends=EOFError) -> list[str]:
    """What is shown when a person types these lines and then ends."""
    typed, shown = iter(lines), []

    def read(_):
        for line in typed:
            return line
        raise ends

    converse(chat, read, shown.append)
    return shown


@pytest.mark.parametrize("ends", [EOFError, KeyboardInterrupt])
def test_a_conversation_goes_on_until_a_persona_or_new_begins_another(ends):
    chat = _Chat()
    lines = ["one", "two", "/persona You are a pirate.", "three", "four", "/new", "five"]
    _said(chat, *lines, "/persona", "six", ends=ends)
    pirate = "You are a pirate."
    assert chat.asked == [
        (None, "one", 0, []),
        (None, "two", 1, [Turn("one", _answers(1))]),
        (pirate, "three", 0, []),
        (pirate, "four", 1, [Turn("three", _answers(3))]),
        (pirate, "five", 0, []),
        (None, "six", 0, []),
    ]


def test_what_is_shown(monkeypatch):
    monkeypatch.setenv("COLUMNS", "65")
    shown = _said(_Chat(), "one", "", "/persona  You are a cook. ", "/persona", "/help", "/x y")
    assert shown == [
        "base" + " " * 26 + "  |  trained\nbase 1" + " " * 24 + "  |  trained 1 [cut off]",
        "a new conversation, persona: You are a cook.",
        "a new conversation, without a persona",
        HELP,
        f"there is no /x; use one of these:\n{HELP}",
    ]


def test_what_cannot_be_asked_is_said_and_is_no_part_of_the_conversation():
    chat = _Chat()
    shown = _said(chat, "one", "impossible", "two", "/quit", "three")
    assert shown[1] == "error: message is impossible; write another"
    assert [asked[1] for asked in chat.asked] == ["one", "two"]
    assert [turn.message for turn in chat.asked[1][3]] == ["one"]


def test_columns_are_cut_between_words_and_keep_empty_lines():
    answers = Answers(Answer("a b\n\nthe quick brown fox jumps over", False), Answer("yes", True))
    assert side_by_side(answers, 45).splitlines() == [
        "base                  |  trained",
        "a b                   |  yes [cut off]",
        "                      |",
        "the quick brown fox   |",
        "jumps over            |",
    ]
    assert side_by_side(answers, 30) == (
        "base:\na b\n\nthe quick brown fox jumps over\ntrained:\nyes [cut off]"
    )
