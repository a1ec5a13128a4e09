"""A conversation with both policies of a run in a terminal."""

import shutil
import textwrap
from collections.abc import Callable
from itertools import zip_longest

from permix_jax.app.chat import Answers, Chat, Turn
from permix_jax.rollout.generate import Answer

HELP = """\
/persona You are a pirate.   both policies get this persona; the conversation begins anew
/persona                     without a persona; the conversation begins anew
/new                         the conversation begins anew, under the same persona
/help                        these lines
/quit, Ctrl-D or Ctrl-C      ends"""
_GAP = "  |  "
_NARROWEST = 20  # characters of a column


def converse(
    chat: Chat,
    read: Callable[[str], str],
    show: Callable[[str], None],
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
) -> None:
    """Asks both policies what `read` returns, line by line, and shows both answers.

    A line that begins with "/" is a command (`HELP`). Each policy sees the conversation with its
    own answers. Ends when `read` raises EOFError or KeyboardInterrupt. A message that cannot be
    asked is answered by one line, and is no part of the conversation.

    Args:
      read: gives the next line; its argument is the prompt to show, as of `input`.
      max_new_tokens, temperature, seed: as in `Chat.ask`; the draws of message i have seed + i.
    """
    persona: str | None = None
    turns: list[Turn] = []
    while True:
        try:
            line = read("> ").strip()
        except (EOFError, KeyboardInterrupt):
            return
        command, _, rest = line.partition(" ")
        if command == "/quit":
            return
        if command == "/help":
            show(HELP)
        elif command in ("/new", "/persona"):
            turns = []
            if command == "/persona":
                persona = rest.strip() or None
            show(f"a new conversation, {f'persona: {persona}' if persona else 'without a persona'}")
        elif command.startswith("/"):
            show(f"there is no {command}; use one of these:\n{HELP}")
        elif line:
            try:
                drawn = seed + len(turns)
                answers = chat.ask(persona, line, max_new_tokens, temperature, drawn, turns)
            except ValueError as error:
                show(f"error: {error}")
            except KeyboardInterrupt:
                return
            else:
                turns.append(Turn(line, answers))
                show(side_by_side(answers, shutil.get_terminal_size().columns))


def side_by_side(answers: Answers, width: int) -> str:
    """Both answers in columns, under their policies' names, in lines of at most `width` characters.

    A terminal that is too narrow for two columns gets one answer under the other.
    """
    column = (width - len(_GAP)) // 2
    texts = {name: _text(answer) for name, answer in zip(answers._fields, answers, strict=True)}
    if column < _NARROWEST:
        return "\n".join(f"{name}:\n{text}" for name, text in texts.items())
    columns = [[name, *_wrapped(text, column)] for name, text in texts.items()]
    rows = zip_longest(*columns, fillvalue="")
    return "\n".join(f"{base:{column}}{_GAP}{trained}".rstrip() for base, trained in rows)


def _text(answer: Answer) -> str:
    return answer.text.strip() + " [cut off]" * answer.truncated


def _wrapped(text: str, width: int) -> list[str]:
    """The text's lines, cut between words to the width; empty lines stay."""
    return [part for line in text.splitlines() for part in textwrap.wrap(line, width) or [""]]
