"""What a config field is declared with. Imports no JAX, for the help and messages of commands."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from permix_jax.core.fields import names_in


class Rule(NamedTuple):
    """What a value of the field's type must satisfy, and what to do where it does not."""

    holds: Callable[[Any], bool]
    remedy: str
    choices: Sequence[str] = ()  # all that a text, or a part of it between commas, may be

    def in_words(self) -> str:
        """The possible values, such as "1 or more"; "" for any."""
        return self.remedy.removeprefix("use ").removeprefix("one of ")


def at_least(low: float) -> Rule:
    return Rule(lambda v: v >= low, f"use {low} or more")


def above(low: float) -> Rule:
    return Rule(lambda v: v > low, f"use a number above {low}")


def zero_or_at_least(low: float, zero: str, reason: str) -> Rule:
    """`zero`: what 0 means. `reason`: why numbers between 0 and `low` are of no use."""
    return Rule(lambda v: v == 0 or v >= low, f"use 0 ({zero}), or {low} or more: {reason}")


def one_of(*choices: str, reason: str = "") -> Rule:
    return Rule(lambda v: v in choices, f"use one of {', '.join(choices)}{reason}", choices)


def some_of(*choices: str) -> Rule:
    remedy = f"use some of {','.join(choices)}"
    return Rule(lambda v: set() < {*names_in(v)} <= {*choices}, remedy, choices)


ANY = Rule(lambda v: True, "")
SHARE = Rule(lambda v: 0 <= v <= 1, "use a share from 0 to 1")
SHARE_ABOVE_0 = Rule(lambda v: 0 < v <= 1, "use a share above 0, up to 1")
SHARE_BELOW_1 = Rule(lambda v: 0 <= v < 1, "use a share from 0, below 1")


class OtherThan(NamedTuple):
    value: Any


# {field: its value, or a tuple of values, or any OtherThan one}, all of which hold. The field
# "command" is the command of launch/ that reads the config.
Condition = Mapping[str, Any]


class Field(NamedTuple):
    """The declaration of one field."""

    default: Any  # its type is the field's type
    meaning: str  # one line; the choices follow it on the pages where it ends in ":"
    rule: Rule = ANY
    resume: str = ""  # why a run that goes on with another value has the same results; "": no
    reads: Condition | Sequence[Condition] = ()  # one of them holds where something reads the field


class Section(NamedTuple):
    """Fields with a common first name; its conditions stand beside their own."""

    about: str
    reads: Condition | Sequence[Condition]
    fields: Mapping[str, Field]
