r"""Multiple choice: buys the verdicts on B, (B), "(B) 12", and the text of an option.

An answer that names one option and states the value of another contradicts itself, and is wrong.
"""

import re
from collections.abc import Callable
from functools import lru_cache

from permix_jax.rewards import words

_LETTER = re.compile(
    r"(?:(?:the\s+)?(?:correct\s+)?(?:option|choice|answer)\s+)?(?:is\s+)?[\[(]?\s*([A-Z])\s*[\])]?[.):]?",
    re.IGNORECASE,
)
_STATED = re.compile(
    r"(?i:(?:the\s+)?(?:correct\s+)?(?:option|choice|answer)\s+(?:is\s+)?)?(?:\(\s*([A-Za-z])\s*\)|([A-Z])(?=\s*[).:]|\s*$))"
)
_WITH_TEXT = re.compile(
    r"(?:\\(?:text|textbf|textrm|mathrm|mathbf)\s*\{)?\s*(?:\(([A-H])\)|([A-H])[.:)])"
    r"(?:\s*\}|\s|\\ |\\quad|~)+(.*\w.*)"
)
_CHOSEN = re.compile("^(?:故?应?选|(?:正确)?答案[为是]?)[择:： ]*(?=[(（]?[A-Z])")
_IN_BRACKETS = re.compile(r"(?:\\(?:text|mathrm|)(?:bf|rm|)\s*\{)?\(([A-H])\)\s*\}?")
_BEFORE_POINTS = re.compile(r"(?:^|(?<=[\s:;.?]))([A-H])[.):](?=\s)")
_END = re.compile(r"[;\n?]\s?|\.\s|\sor\s*$")
_VALUE = re.compile(r"[^A-Za-z]*(?:\\[a-z]+[^A-Za-z]*)*")


def letter(text: str) -> str:
    """The letter of a choice that is all of an answer: C, (C), Option C; or ""."""
    text = _spoken(text)
    match = _LETTER.fullmatch(text)
    return (
        match[1].upper() if match and (match[1].isupper() or "(" in text or len(text) > 2) else ""
    )


def with_text(text: str) -> tuple[str, str] | None:
    """("B", "12") of "(B) 12" and "B. 12"; None for other texts."""
    match = _WITH_TEXT.fullmatch(text.strip())
    if match is None:
        return None
    said = match[3][:-1] if match[3].count("}") > match[3].count("{") else match[3]
    return match[1] or match[2], said


def _stated(text: str) -> str:
    """The letter that an answer begins with: "(C) 5", "C. 5"."""
    text = _spoken(text)
    match = _STATED.match(text)
    if match is None or re.search(r"\b(?:or|and)\b|,\s*\(?[A-Z]\)?,?$", text[match.end() :]):
        return ""
    return (match[1] or match[2]).upper()


@lru_cache(4096)
def options(prompt: str) -> dict[str, str]:
    """What the choices of a problem say: {"A": "1", "B": "3"} of "(A) 1 (B) 3" and "A. 1 B. 3"."""
    for form in (_IN_BRACKETS, _BEFORE_POINTS):
        parts = form.split(prompt[-3000:])
        names = parts[1::2]
        if len(names) > 1 and names == [chr(65 + n) for n in range(len(names))]:
            texts = (_END.split(part.strip())[0].strip(" ?.,;") for part in parts[2::2])
            return dict(zip(names, texts, strict=True))
    return dict(re.findall(r'"([A-Z])" for (\w+)', prompt))


def same_choice(answer: str, gold: str, prompt: str, equal: Callable[..., bool]) -> bool | None:
    """Whether an answer chooses what the gold answer does; None where neither is a choice.

    `equal(text, other)`: whether two texts state one value.
    """
    offered, wanted = options(prompt), letter(gold)
    if not wanted:  # a letter for a value
        chosen = letter(answer)
        return (chosen in offered and equal(offered[chosen], gold)) or None
    alone = answer.strip(" $().").upper()
    stated = letter(answer) or _stated(answer) or (alone if alone in offered else "")
    if stated:
        said = with_text(answer)
        return stated == wanted and not (said and _contradicts(said, offered, equal))
    named = {key for key, text in offered.items() if equal(answer, text)}
    return named == {wanted} if wanted in offered and len(named) == 1 else None


def _contradicts(said: tuple[str, str], offered: dict[str, str], equal: Callable) -> bool:
    """Whether "(B) 6" gives option B the value of another one, or a value that it has not."""
    name, text = said
    if name not in offered or equal(text, offered[name]):
        return False
    others = any(equal(text, other) for key, other in offered.items() if key != name)
    return others or bool(_VALUE.fullmatch(text) and _VALUE.fullmatch(offered[name]))


def _spoken(text: str) -> str:
    return _CHOSEN.sub("", words.plain_words(text))
