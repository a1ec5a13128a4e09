"""Brackets: where a part of an answer begins and ends."""

from permix_jax.rewards.notation import Tokens, is_word

OPEN = {"(", "[", "\\{", "{", "\\langle", "\\lfloor", "\\lceil"}
CLOSE = {")", "]", "\\}", "}", "\\rangle", "\\rfloor", "\\rceil"}


def split(tokens: Tokens, separators) -> tuple[list[Tokens], list[str]]:
    """The parts between separators outside all brackets, and the separators."""
    parts: list[list[str]] = [[]]
    found, level = [], 0
    for token in tokens:
        level += token in OPEN or token.startswith("\\begin{")
        level -= token in CLOSE or token.startswith("\\end{")
        key = token.lower() if is_word(token) else token
        if level <= 0 and key in separators:
            parts.append([])
            found.append(key)
        else:
            parts[-1].append(token)
    return [tuple(part) for part in parts], found


def closing(tokens: Tokens) -> int:
    """Where the bracket that is the first token closes; -1 for nowhere."""
    level = 0
    for at, token in enumerate(tokens):
        level += token in OPEN or token.startswith("\\begin{")
        level -= token in CLOSE or token.startswith("\\end{")
        if level == 0:
            return at
    return -1


def closes_at_end(tokens: Tokens) -> bool:
    """Whether one pair of brackets is around all tokens."""
    return closing(tokens) == len(tokens) - 1
