"""Where thinking ends: buys that a box inside the thought is no answer."""

from collections.abc import Callable
from functools import partial


def answer_part(text: str, end: str, begun: bool = False) -> str:
    """What stands behind the last thought of `text`; "" where `text` ends inside a thought.

    A text in which no thought begins or ends is returned whole: it is of a model that does not
    think. One pass, linear in the length.

    Args:
      end: what ends a thought, such as "</think>". What begins one is the same without its slash.
        "": there are no thoughts.
      begun: whether the prompt begins the thought, so that `text` starts inside it.
    """
    if not end:
        return text
    _, ended, rest = text.rpartition(end)
    inside = (begun and not ended) or begins_thought(rest, end)
    return "" if inside else rest


def begins_thought(text: str, end: str) -> bool:
    """Whether a thought begins in `text` and does not end there."""
    return end.replace("/", "", 1) in text.rpartition(end)[2]


def behind_thinking(rule: Callable, part: Callable[[str], str]) -> Callable:
    """`rule`, whose first argument is a completion, asked about `part` of that completion."""
    return partial(_of_part, rule, part)


def _of_part(rule: Callable, part: Callable[[str], str], completion: str, *others):
    return rule(part(completion), *others)
