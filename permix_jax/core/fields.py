"""Fields of a config by their dotted names, and suggestions for a wrong name."""

import difflib
import traceback
from collections.abc import Iterable, Mapping
from typing import Any


def flat_fields(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a resolved config by dotted field."""
    fields = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            fields |= flat_fields(value, f"{prefix}{name}.")
        else:
            fields[prefix + name] = value
    return fields


def names_in(text: str) -> list[str]:
    """The names in a text with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def differing_fields(mine: dict, theirs: dict, prefix: str = "") -> list[str]:
    """'field: mine instead of theirs' for every field in which two resolved configs differ."""
    lines = []
    for name in sorted({*mine, *theirs}):
        a, b, field = mine.get(name, "(absent)"), theirs.get(name, "(absent)"), prefix + name
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differing_fields(a, b, field + ".")
        elif a != b:
            lines.append(f"{field}: {a!r} instead of {b!r}")
    return lines


def filled_up(config: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved config, with defaults for the fields that it lacks."""
    filled = {**defaults, **config}
    for name, default in defaults.items():
        if isinstance(default, Mapping):
            filled[name] = filled_up(config.get(name, {}), default)
    return filled


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The end of a message about a wrong name: "; did you mean ...?".

    It is "" if no known name is similar, or if all of several are, and for names of one or two
    letters, which are near to any other such.
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    close = [difflib.SequenceMatcher(None, other, name).ratio() for other in near]
    near = [other for other, ratio in zip(near, close, strict=True) if ratio > close[0] - 0.1]
    if not near or len(name) < 3 or 1 < len(known) == len(near):
        return ""
    return f"; did you mean {' or '.join(near)}?"


def told(error: Exception) -> str:
    """One line of an error in a user's code: file, line, type and message."""
    frames = traceback.extract_tb(error.__traceback__)
    frames = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    file, line = getattr(error, "filename", None), getattr(error, "lineno", None)
    place = f"{file or frames[-1].filename}, line {line or frames[-1].lineno}"
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return f"{place}: {type(error).__name__}: {said}".partition("\n")[0]
