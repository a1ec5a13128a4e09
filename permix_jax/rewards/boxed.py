r"""The reward of competition problems: does the last \boxed{...} state the gold answer?

Two answers are compared in a normal form of their LaTeX, and as exact rationals where both are
plain numbers. Nothing is rearranged: sqrt(8) is not 2 sqrt(2) here, nor {1, 2} {2, 1}, so a right
answer in another form is scored 0 (a false negative), while a wrong one is never scored 1. What an
answer says beside its value (a unit, the "x =" in front) is held against the problem's wording.

Completions are hostile text, for a policy finds whatever passes: the one scan of a completion is
linear in its length, only a short answer is looked at, and nothing is ever evaluated.
"""

import math
import re
from fractions import Fraction
from typing import NamedTuple

from permix_jax.rewards.units import asked_unit, split_unit
from permix_jax.tasks.problem import Problem

MAX_ANSWER_CHARS = 500

_BRACE = re.compile(
    r"\\(?:boxed|fbox)\s*(?P<box>\{)"
    # TeX boxes one character where there are no braces: "$\boxed 9$".
    r"|\\(?:boxed|fbox)(?P<bare>[0-9]|\s[0-9A-Za-z])(?=\.?(?:\$|\\[)\]]))"
    r"|\\.|[{}]",
    re.DOTALL,
)
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|\s+|.", re.DOTALL)
_SPACES = {"\\,", "\\;", "\\:", "\\ ", "~"}
_DROPPED = {
    "$", "\\!", "\\(", "\\)", "\\[", "\\]", "\\left", "\\right", "\\big", "\\Big", "\\displaystyle",
}  # fmt: skip
_SPELLINGS = {
    "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\cfrac": "\\frac", "\\leq": "\\le",
    "\\geq": "\\ge", "\\neq": "\\ne", "\u2212": "-", "\u221e": "\\infty", "\u03c0": "\\pi",
}  # fmt: skip
_WRAPPERS = {
    "\\text", "\\mbox", "\\textnormal", "\\textrm", "\\textbf", "\\textit", "\\mathrm", "\\mathbf",
    "\\boxed", "\\fbox",
}  # fmt: skip
_DIGITS = frozenset("0123456789")
_TAKES_ARGUMENT = re.compile(r"\\[A-Za-z]+|[_^]")

_DECIMAL = r"(?:(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
_ARGUMENT = rf"(?:[0-9]|\{{-?{_DECIMAL}\}})"
_NUMBER = re.compile(
    r"(?P<sign>[-+]?)"
    rf"(?:(?P<whole>[0-9]+)?\\frac (?P<top>{_ARGUMENT})(?P<bottom>{_ARGUMENT})"
    rf"|(?P<number>{_DECIMAL})(?:/(?P<divisor>{_DECIMAL}))?)"
)
_ASSIGNED = re.compile(r"(?P<variable>[A-Za-z])=(?P<value>[^=]+)")
_CHOICE = re.compile(r"\(([A-Z])\)")
_WORD = re.compile(r"[A-Z][a-z]{3,}")


class Answer(NamedTuple):
    """`form`: the normal form of the value; `unit` and `variable` (of "x = "): "" for none."""

    form: str
    unit: str
    variable: str


def boxed_reward(completion: str, problem: Problem) -> float:
    """1.0 where the completion's last box equals the gold answer, else 0.0; NaN: gold is empty."""
    gold = read_answer(problem.answer)
    if gold is None:
        return math.nan
    box = last_box(completion)
    answer = None if box is None else read_answer(box)
    return float(answer is not None and same_answer(answer, gold, problem.prompt))


def last_box(text: str) -> str | None:
    r"""The content of the balanced \boxed{...} or \fbox{...} that ends last; None: there is none.

    One pass that remembers the open boxes and how deep they lie.
    """
    last, depth = None, 0
    boxes: list[tuple[int, int]] = []  # (depth, where its content starts)
    for brace in _BRACE.finditer(text):
        if brace["bare"]:
            last = brace.span("bare")
        elif brace["box"]:
            depth += 1
            boxes.append((depth, brace.end()))
        elif brace[0] == "{":
            depth += 1
        elif brace[0] == "}" and depth:
            if boxes and boxes[-1][0] == depth:
                last = (boxes.pop()[1], brace.start())
            depth -= 1
    return text[slice(*last)] if last else None


def read_answer(text: str) -> Answer | None:
    """None where nothing is stated, or more than MAX_ANSWER_CHARS characters."""
    if len(text) > MAX_ANSWER_CHARS:
        return None
    form, unit = _normal_form(text), ""
    value, said, of_numbers = split_unit(text)
    if said and (value_form := _normal_form(value)):
        # "sin 30 degrees" is not sin 30 with a unit; "2 sqrt 3 feet" is 2 sqrt 3 with one.
        if not of_numbers or parse_number(_assigned(value_form)[1]) is not None:
            form, unit = value_form, said
    variable, form = _assigned(form)
    return Answer(form, unit, variable) if form else None


def same_answer(answer: Answer, gold: Answer, prompt: str) -> bool:
    """Whether `answer` states what `gold` does, as an answer to `prompt`."""
    return (
        _same_value(answer.form, gold.form)
        and _same_unit(answer.unit, gold.unit, prompt)
        and _same_variable(answer.variable, gold.variable, prompt)
    )


def parse_number(form: str) -> Fraction | None:
    r"""The plain number that a normal form states, exactly; None for every other form.

    Reads signs, decimals, thousands separators, a/b, \frac ab and mixed numbers, of which the
    fraction is proper ("2\frac{3}{4}"; with "2\frac{4}{3}" a product may be meant).
    """
    match = _NUMBER.fullmatch(form)
    if match is None:
        return None
    top = _fraction(match["top"] or match["number"])
    bottom = _fraction(match["bottom"] or match["divisor"] or "1")
    if bottom == 0 or (match["whole"] and not 0 <= top < bottom):
        return None
    size = int(match["whole"] or 0) + top / bottom
    return -size if match["sign"] == "-" else size


def _assigned(form: str) -> tuple[str, str]:
    """ "x=5" -> ("x", "5"), and "5" -> ("", "5")."""
    match = _ASSIGNED.fullmatch(form)
    return (match["variable"], match["value"]) if match else ("", form)


def _same_value(form: str, gold: str) -> bool:
    if form == gold:
        return True
    number = parse_number(form)
    return number is not None and number == parse_number(gold)


def _same_unit(unit: str, gold: str, prompt: str) -> bool:
    if unit == gold:
        return True
    if not unit:  # "50" for 50 % is right only where the problem speaks of percents
        return gold != "percent" or "percent" in prompt or "%" in prompt
    return not gold and unit == asked_unit(prompt)


def _same_variable(variable: str, gold: str, prompt: str) -> bool:
    """One side may leave "x =" out where x is asked for; where a line is asked for it may not."""
    if variable == gold:
        return True
    if variable and gold:
        return False
    asked = (
        r"(?i:find|values? of|compute|determine|evaluate|what is|solve for)"
        rf"\s+\$\s*{variable or gold}\s*[.?]?\$(?!\s*(?:and\b|,))"
    )
    return re.search(asked, prompt) is not None


def _normal_form(text: str) -> str:
    """One spelling for what TeX sets alike (see `_tokens`), less a trailing full stop."""
    form = "".join(
        f"{token} " if len(token) > 1 and token[1:].isalpha() else token for token in _tokens(text)
    )
    form = form.rstrip(" ")
    if not form.endswith(".."):
        form = form.removesuffix(".").rstrip(" ")
    if choice := _CHOICE.fullmatch(form):
        return choice[1]
    return form.lower() if _WORD.fullmatch(form) else form


def _tokens(text: str) -> list[str]:
    r"""The TeX tokens of `text` without spacing, sizes, fonts and needless braces.

    Braces around one token go, so that \frac12, \frac{1}2 and \frac{1}{2} are the same tokens, and
    so do those of \text{...} where it is no argument. A space between two digits stays: "1 2" is
    not 12.
    """
    tokens: list[str] = []
    opened: list[tuple[int, bool]] = []  # (where the brace is, whether it is a wrapper's)
    wraps = False
    for token in _TOKEN.findall(text):
        token = _SPELLINGS.get(token, token)
        if token in _SPACES or token.isspace():
            tokens.append(" ")
        elif token in _WRAPPERS:
            wraps = True
        elif token == "{":
            while tokens and tokens[-1] == " " and not wraps:
                tokens.pop()
            opened.append((len(tokens), wraps))
            tokens.append(token)
            wraps = False
        elif token == "}" and opened:
            start, wrapper = opened.pop()
            inner = tokens[start + 1 :]
            visible = [token for token in inner if token != " "]
            argument = start > 0 and _TAKES_ARGUMENT.fullmatch(tokens[start - 1])
            if wrapper and (not argument or len(visible) == 1):
                tokens[start:] = inner
            elif len(visible) == 1:
                tokens[start:] = visible
            else:
                tokens.append(token)
        elif token not in _DROPPED:
            wraps = False
            tokens.append(token)
    return _without_spaces(tokens)


def _without_spaces(tokens: list[str]) -> list[str]:
    kept: list[str] = []
    space = False
    for token in tokens:
        if token == " ":
            space = True
            continue
        if space and kept and kept[-1] in _DIGITS and token in _DIGITS:
            kept.append(" ")
        kept.append(token)
        space = False
    return kept


def _fraction(argument: str) -> Fraction:
    return Fraction(argument.strip("{}").replace(",", ""))
