"""The reward of word problems: is the last stated number the gold one?

Completions are hostile text, for a policy finds whatever passes: every scan of one is linear in
its length, only a short answer is read as a number, and nothing is ever evaluated.
"""

import math
import re
from fractions import Fraction

from permix_jax.tasks.problem import Problem

MAX_ANSWER_CHARS = 200

_BRACE = re.compile(r"\\boxed\{|\\[{}]|[{}]")
_SPELLINGS = {
    "\u2212": "-", "{,}": ",", "\\!": "", "\\,": "", "\\$": "$", "\\dfrac": "\\frac",
    "\\tfrac": "\\frac", "\\(": "", "\\)": "",
}  # fmt: skip
_DECIMAL = r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_NUMBER = re.compile(
    r"(?P<sign>[-+]?\s*[$€£]?\s*|[$€£]\s*-\s*)"
    rf"(?:\\frac\{{(?P<top>-?{_DECIMAL})\}}\{{(?P<bottom>{_DECIMAL})\}}"
    rf"|(?P<number>{_DECIMAL})(?:\s*/\s*(?P<divisor>{_DECIMAL}))?)"
    # The rest is a unit: with a digit or an operator in it ("5 or 6", "5 + x") nothing is stated.
    r"[^\d+*=<>]*"
)


def extract_answer(text: str) -> str | None:
    r"""The last balanced \boxed{...}; else the rest of the line after the last ####; else None."""
    boxed = _last_boxed(text)
    if boxed is not None:
        return boxed
    _, mark, rest = text.rpartition("####")
    return rest.partition("\n")[0].strip() if mark else None


def parse_number(text: str) -> Fraction | None:
    r"""The number that `text` states, exactly; None where it states none or more than one.

    Reads signs, decimals, thousands separators, a/b and \frac{a}{b}, with a currency sign in front
    and a unit behind. A percent sign is a unit: "50%" is 50. Text of more than MAX_ANSWER_CHARS
    states nothing.
    """
    if len(text) > MAX_ANSWER_CHARS:
        return None
    for spelling, plain in _SPELLINGS.items():
        text = text.replace(spelling, plain)
    match = _NUMBER.fullmatch(text.strip(" \t\r\n*_`$"))
    if match is None:
        return None
    numerator = _fraction(match["top"] or match["number"])
    denominator = _fraction(match["bottom"] or match["divisor"] or "1")
    if denominator == 0:
        return None
    return (-numerator if "-" in match["sign"] else numerator) / denominator


def numeric_reward(completion: str, problem: Problem) -> float:
    """1.0 where the completion's answer equals the gold one, else 0.0; NaN: gold is unreadable."""
    gold = parse_number(problem.answer)
    if gold is None:
        return math.nan
    answer = extract_answer(completion)
    return float(answer is not None and parse_number(answer) == gold)


def _fraction(decimal: str) -> Fraction:
    return Fraction(decimal.replace(",", ""))


def _last_boxed(text: str) -> str | None:
    """The content of the balanced box that starts last, in one pass with a stack of braces."""
    last = None
    opened: list[tuple[bool, int]] = []  # (is a box, where its content starts)
    for brace in _BRACE.finditer(text):
        if brace[0] in ("\\{", "\\}"):
            continue
        if brace[0] != "}":
            opened.append((brace[0] != "{", brace.end()))
        elif opened:
            is_box, start = opened.pop()
            if is_box and (last is None or start > last[0]):
                last = (start, brace.start())
    return text[slice(*last)] if last else None
