r"""The rule of every real task: does a completion state the gold answer?

This is the exact path. It reads answers in one spelling, compares their parts by exact arithmetic,
and checks units and names (the "x =" in front) against the problem's wording. It evaluates only
numbers of bounded size, and reads only short answers.

A float is final. Undecided leaves the equality of two values to `symbolic.py`; its texts have no
units and no names.

Every gold answer that states anything can be graded. Text that this package cannot read as
mathematics (words of any language, long texts, unknown commands) is compared as text: it is right
if it is equal, else wrong.
"""

import math
import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from permix_jax.core.problem import Grade, Problem, Undecided, Verdict
from permix_jax.rewards import exact, latex, words
from permix_jax.rewards.answer import extract_answer
from permix_jax.rewards.expression import parse as parse_expression
from permix_jax.rewards.naming import squeezed, unnamed
from permix_jax.rewards.structure import Leaf, Many, Pair, Relation, Same, Tree, parse, same
from permix_jax.rewards.units import asked_unit, conversion, names_unit, split_unit

_BASED = re.compile(r"([0-9A-Z]+)_\{([0-9]{1,2})\}")
_OPERATOR = re.compile(r"[-+^/!|]|\\(?:frac|sqrt|cdot|times|binom|div|sin|cos|tan|log|ln)")
_FORMULA = re.compile(
    r"(?<!\\)\$\$?((?:[^$\\]|\\.){1,400}?)\$|\\\[(.{1,400}?)\\\]|\\\((.{1,400}?)\\\)", re.DOTALL
)
_WRAPPING = re.compile(r"^\\displaystyle\s*")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}", re.DOTALL)
_EMPTY = Leaf(("\\varnothing",))
_EVERYTHING = Pair("(", ")", (Leaf(("-", "\\infty")), Leaf(("\\infty",))))


class Answer(NamedTuple):
    """The parts of an answer: `tree` is its value, `unit` "" for none, `text` as it was written."""

    text: str
    tree: Tree
    unit: str


def grade_answer(completion: str, problem: Problem, last_number: bool = False) -> Grade:
    """1.0: `completion` states the gold answer. 0.0: it does not. NaN: there is no gold answer.

    Undecided: only algebra decides whether they are equal. With `last_number`, the answer of a
    completion without a box or #### is the last number in it.
    """
    if not readable(problem.answer):
        return math.nan
    answer = extract_answer(completion, last_number)
    verdict = _verdict(answer, problem.answer, problem.prompt)
    return verdict if isinstance(verdict, Undecided) else verdict.right


def explain(answer: str | None, gold: str, prompt: str) -> Verdict | Undecided:
    """Whether `answer` (what stands in the box; None: none does) states `gold`, and why."""
    parts = _read(gold)
    return _verdict(answer, gold, prompt)._replace(kind=_kind(parts) if parts else "")


def _kind(gold: Answer) -> str:
    """What a gold answer is: number, quantity, expression, text, equation, inequality, ratio, tuple
    or interval, list, set, union, matrix."""
    if gold.unit:
        return "quantity"
    match gold.tree:
        case Leaf(tokens):
            if exact.number(tokens) is not None:
                return "number"
            return "text" if any(map(latex.is_word, tokens)) else "expression"
        case Relation(signs):
            return "equation" if set(signs) == {"="} else "inequality"
        case Pair(":"):
            return "ratio"
        case Pair():
            return "tuple or interval"
    return gold.tree.kind


def _verdict(answer: str | None, gold: str, prompt: str) -> Verdict | Undecided:
    """As `explain`, without the kind."""
    parts = _read(gold)
    if parts is None:
        return Verdict(math.nan, "", "the gold answer states nothing")
    if answer is None:
        return Verdict(0.0, "", "no answer is stated")
    if len(answer) > max(latex.MAX_ANSWER_CHARS, 2 * len(gold)):
        return Verdict(0.0, "", "the answer is too long")
    read = _read(answer)
    if read is None:
        return Verdict(0.0, "", "the answer states nothing")
    verdict = compare(read, parts, prompt)
    if isinstance(verdict, Undecided):
        return verdict
    return Verdict(float(verdict), "", "equal" if verdict else "unequal")


def readable(gold: str) -> bool:
    """Whether a gold answer states anything that an answer can be compared with."""
    return _read(gold) is not None


@lru_cache(8192)
def _read(text: str) -> Answer | None:
    """The parts of an answer, or None if it states nothing.

    Text that `latex.read` refuses is one word.
    """
    text = _WRAPPING.sub("", latex.plain(text).strip())
    while len(text) <= latex.MAX_ANSWER_CHARS and (box := _BOX.fullmatch(text)):
        text = box[1].strip()
    whole = latex.read(text)
    if whole is None:
        return Answer(text, Leaf((latex.text_word(text),)), "")
    if not whole:
        return None
    value, unit, of_numbers = split_unit(text)
    tokens = latex.read(value) if unit else None
    if not tokens or (of_numbers and exact.number(_value(tokens)) is None):
        # "sin 30 degrees" is not sin 30 with a unit; "2 sqrt 3 feet" is 2 sqrt 3 with a unit.
        tokens, unit = whole, ""
    tokens = words.without_words_around(tokens)
    tokens = tokens[1:] if tokens[:1] == ("\\approx",) else tokens
    return Answer(text, _tree(tokens), unit)


def _tree(tokens: latex.Tokens) -> Tree:
    if words.everything(tokens):
        return _EVERYTHING
    tree = parse(tokens)
    return _EMPTY if tree == Many("set", ()) else tree


def compare(answer: Answer, gold: Answer, prompt: str) -> bool | Undecided:
    """Whether `answer` and `gold` state the same, as answers to `prompt`."""
    special = _special(answer, gold, prompt)
    if special is not None:
        return special
    tree, gold_tree = unnamed(answer.tree, gold.tree, prompt)
    if tree is None:
        return False
    if _restates(answer, gold, prompt):
        return False
    undecided = None
    for factor in _unit_factors(answer, gold, prompt):
        scaled = tree if factor == 1 else _scaled(tree, factor)
        verdict = same(scaled, gold_tree, exact.same_leaf, exact.same_relation)
        if verdict or _same_listing(scaled, gold_tree):
            return True
        if verdict is None and undecided is None:
            undecided = Undecided(_text(scaled), _text(gold_tree))
    return undecided or False


def _same_listing(tree: Tree, gold: Tree) -> bool:
    """Whether they differ in that one is read as the number 81,256 and the other as 81 and 256."""
    if isinstance(tree, Many) == isinstance(gold, Many):
        return False
    return _text(tree).replace(";", ",") == _text(gold).replace(";", ",")


def _special(answer: Answer, gold: Answer, prompt: str) -> Same:
    """Compares choices, dates, times of day and numbers in another base; None for other answers."""
    gold_tokens, tokens = _leaf(gold), _leaf(answer)
    if letter := words.choice(gold_tokens):
        whole = latex.read(answer.text) or ()
        stated = words.stated_choice(whole)
        if stated:
            return stated == letter
    if gold_date := words.date(gold.text):
        date = words.date(answer.text)
        years = {date[2], gold_date[2]} - {0} if date else set()
        return date is not None and date[:2] == gold_date[:2] and len(years) < 2
    if gold_time := words.clock(gold.text):
        time = words.clock(answer.text)
        if time is None:
            return False if gold_time[1] or _number(gold.tree) is None else None
        return _same_time(time, gold_time, prompt)
    based, number = _BASED.fullmatch("".join(gold_tokens)), "".join(tokens)
    if based and number.isalnum():
        return number.lstrip("0") == based[1] and "base" in prompt
    based, number = _BASED.fullmatch(number), "".join(gold_tokens)
    if based and number.isalnum():
        return based[1] == number and "base" in prompt and based[2] in prompt
    return None


def _same_time(time: tuple[Fraction, str], gold: tuple[Fraction, str], prompt: str) -> Same:
    if time[1] and gold[1]:
        return time == gold
    if time[0] != gold[0]:
        return None if not gold[1] else False
    said = time[1] or gold[1]
    if not said:
        return True
    tells = (
        r"\bmorning|\ba\.?\s?m\b" if said == "a" else r"\bafternoon|\bevening|\bnight|\bp\.?\s?m\b"
    )
    return bool(time[1]) or re.search(tells, prompt, re.IGNORECASE) is not None


def _unit_factors(answer: Answer, gold: Answer, prompt: str) -> tuple[Fraction, ...]:
    """The factors by which the answer's number may be multiplied; () if the units contradict.

    A number without a unit has the unit that the problem asks for, or that of the gold answer.
    """
    one = Fraction(1)
    unit, gold_unit, asked = answer.unit, gold.unit, _asked(prompt)
    if not unit:
        if not _extra_words_fit(answer, prompt):
            return ()
        if gold_unit != "percent" or asked == "percent":
            return (one,)
    if unit == gold_unit:
        return (one,)
    if "percent" in (unit, gold_unit):
        # 50 % is the number 0.5. If the problem speaks of percent, "50" may mean it too.
        if (unit and gold_unit) or (unit and asked not in ("", "percent")):
            return ()
        hundred = Fraction(1, 100) if unit else Fraction(100)
        speaks = not prompt or "percent" in prompt.lower() or "%" in prompt
        return (one,) if asked == "percent" else (one, hundred) if speaks else (hundred,)
    wanted = gold_unit or asked
    if not wanted or unit == wanted or wanted in ("unit", "value", "way"):
        return (one,)
    if unit == "unit" or (unit == "square unit" and wanted.startswith("square")):
        return (one,)
    factor = conversion(unit, wanted)
    return () if factor is None else (factor,)


def _scaled(tree: Tree, factor: Fraction) -> Tree:
    if not isinstance(tree, Leaf):
        return tree
    top, bottom = str(factor.numerator), str(factor.denominator)
    return Leaf(("\\frac", "{", *top, "}", "{", *bottom, "}", "(", *tree.tokens, ")"))


def _extra_words_fit(answer: Answer, prompt: str) -> bool:
    """Whether the words around a number, which are no known unit, agree with the asked unit."""
    spoken = {t[6:-1] for t in latex.read(answer.text) or () if latex.is_word(t)}
    return not (names_unit(spoken) and _asked(prompt)) or names_unit({_asked(prompt)} & spoken)


@lru_cache(4096)
def _asked(prompt: str) -> str:
    return asked_unit(prompt[-4000:])


def _number(tree: Tree) -> Fraction | None:
    return exact.number(tree.tokens) if isinstance(tree, Leaf) else None


def _value(tokens: latex.Tokens) -> latex.Tokens:
    """The right side of "x = 50"."""
    return tokens[len(tokens) - tokens[::-1].index("=") :] if "=" in tokens else tokens


def _leaf(answer: Answer) -> latex.Tokens:
    return answer.tree.tokens if isinstance(answer.tree, Leaf) else ()


def _restates(answer: Answer, gold: Answer, prompt: str) -> bool:
    """Whether the answer only repeats a formula of the problem, which the gold answer evaluates.

    Without this check, the box 2^{10} would solve "Evaluate $2^{10}$".
    """
    text = squeezed(answer.text)
    if not _OPERATOR.search(text) or text not in _formulas(prompt):
        return False
    tokens, gold_tokens = latex.read(answer.text) or (), latex.read(gold.text) or ()
    if sorted(tokens) == sorted(gold_tokens):
        return False
    node, gold_node = _node(answer.tree), _node(gold.tree)
    return node is None or node != gold_node


@lru_cache(4096)
def _formulas(prompt: str) -> frozenset[str]:
    """The formulas of a problem, without spacing."""
    found = (next(filter(None, match.groups())) for match in _FORMULA.finditer(prompt[-8000:]))
    return frozenset(squeezed(formula).rstrip(".,?=") for formula in found)


def _node(tree: Tree) -> tuple | None:
    return parse_expression(tree.tokens) if isinstance(tree, Leaf) else None


def _text(tree: Tree) -> str:
    """A tree in LaTeX that `structure.parse` reads as an equal tree."""
    match tree:
        case Leaf(tokens):
            return latex.form(tokens)
        case Relation(signs, parts):
            texts = [_text(part) for part in parts]
            joined = "".join(f"{t} {s} " for t, s in zip(texts, signs, strict=False))
            return joined + texts[-1]
        case Pair(opening, closing, parts):
            if opening == ":":
                return f"({','.join(map(_text, parts))})"
            return f"{opening}{','.join(map(_text, parts))}{closing}"
        case Many("matrix", rows):
            lines = " \\\\ ".join(" & ".join(map(_text, row)) for row in rows)
            return f"\\begin{{matrix}}{lines}\\end{{matrix}}"
        case Many("set", parts):
            return f"\\{{{','.join(map(_text, parts))}\\}}"
        case Many(kind, parts, mark):
            glue = " \\cup " if kind == "union" else " \\text{or} " if mark else ";"
            return glue.join(map(_text, parts))
    raise TypeError(f"not a tree: {tree!r}")
