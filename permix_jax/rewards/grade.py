r"""The rule of every real task: buys the verdict of the first reading in which two answers agree.

Both answers are read into trees (`tree.py`), their names and units are held against each other and
against the problem's wording, and what is left is compared in the kind of the gold answer.

Every gold answer that states anything can be graded. Text that this package cannot read as
mathematics (words of any language, long texts, unknown commands) is compared as text: it is right
if it is equal, else wrong.
"""

import math
import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from permix_jax.core.problem import Grade, Problem, Verdict
from permix_jax.rewards import chemistry, choices, wording, words
from permix_jax.rewards.answer import extract_answer
from permix_jax.rewards.equivalence import kind
from permix_jax.rewards.naming import contradicts_itself, renamed, unnamed
from permix_jax.rewards.nodes import EXPRESSIONS, Node, is_name, names, number
from permix_jax.rewards.notation import MAX_CHARS, plain, read, squeezed
from permix_jax.rewards.quantity import unit_of, without_units
from permix_jax.rewards.tree import EMPTY, parse
from permix_jax.rewards.values import place

MAX_REMEMBERED = 20_000  # pairs
MAX_READ = 20 * MAX_CHARS  # longer texts are compared letter by letter
_OPERATOR = re.compile(r"[-+^/!|]|\\(?:frac|sqrt|cdot|times|binom|div|sin|cos|tan|log|ln)")
_FORMULA = re.compile(
    r"(?<!\\)\$\$?((?:[^$\\]|\\.){1,400}?)\$|\\\[(.{1,400}?)\\\]|\\\((.{1,400}?)\\\)", re.DOTALL
)
_SPACE = re.compile(r"(?<![0-9])\s+(?![A-Za-z])|(?<![A-Za-z0-9])\s+|(?<=[0-9])\s+(?![0-9])")
_SOLVING = re.compile(
    r"(?i)\bsolve|\bsolutions?\b|\ball (?:real|values|possible|\$|x|n)|\broots?\b|\bset\b"
)
_GROUPED = re.compile(r"^-?[0-9]{1,3}(?:[.][0-9]{3})+,[0-9]+(?![0-9,])")
_MODULAR = re.compile(r"(?i)remainder|mod|divide|digit|^$")
_BASES = {"2": "binary", "8": "octal", "16": "hex"}


class Answer(NamedTuple):
    """The text of an answer, as it was written, and its tree."""

    text: str
    tree: Node


def grade_answer(completion: str, problem: Problem, last_number: bool = False) -> Grade:
    """1.0: `completion` states the gold answer. 0.0: it does not. NaN: there is no gold answer.

    With `last_number`, the answer of a completion without a box or #### is the last number in it.
    """
    return explain(extract_answer(completion, last_number), problem.answer, problem.prompt).right


def readable(gold: str) -> bool:
    """Whether a gold answer states anything that an answer can be compared with."""
    return _read(gold) is not None


def explain(answer: str | None, gold: str, prompt: str) -> Verdict:
    """Whether `answer` (what stands in the box; None: none does) states `gold`, and why."""
    if answer is not None and len(answer) > max(MAX_CHARS, 2 * len(gold)):
        wanted = _read(gold)
        if wanted is not None:
            return Verdict(0.0, _kind(wanted), "the answer is too long")
    if answer is not None and len(gold) > MAX_READ and gold.strip():
        one, two = (" ".join(text.casefold().split()) for text in (answer, gold))
        return Verdict(float(one == two), "text", "compared as long texts")
    try:
        return _explained(answer, gold, prompt)
    except (RecursionError, MemoryError):  # of what nests deeply, in a thread that has little left
        return Verdict(0.0, "", "too large to be compared")


@lru_cache(MAX_REMEMBERED)  # a group of completions repeats its answers
def _explained(answer: str | None, gold: str, prompt: str) -> Verdict:
    answer, gold = wording.as_asked(answer, prompt), wording.as_asked(gold, prompt)
    if answer != gold and (option := choices.with_text(gold)):
        return _chosen(answer, option, prompt)
    if re.fullmatch("[a-z]{3}", gold) and gold in wording.said(prompt):
        gold = rf"\text{{{gold}}}"  # red is a word there
    letters = wording.letters(prompt)
    wanted = _read(gold, letters)
    if wanted and not unit_of(wanted.tree):
        letters |= names(wanted.tree)
    if wanted is None:
        return Verdict(math.nan, "", "the gold answer states nothing")
    what = _kind(wanted)
    if answer is None:
        return Verdict(0.0, what, "no answer is stated")
    given = _read(answer, letters)
    if given is None:
        return Verdict(0.0, what, "the answer states nothing")
    if wanted.tree[0] == "text" and len(gold) > MAX_CHARS:
        return Verdict(float(given.tree == wanted.tree), what, "compared as long texts")
    if _SPACE.sub("", given.text) == _SPACE.sub("", wanted.text):
        return Verdict(1.0, what, "the same text")
    if _decimal_comma(answer, gold):
        return Verdict(1.0, what, "the same digits, with a decimal comma")
    special = _special(given, wanted, prompt)
    if special is not None:
        return Verdict(float(special), what, f"{'equal' if special else 'unequal'} as {what}")
    if _restates(given, wanted, prompt):
        return Verdict(0.0, what, "it only repeats a formula of the problem")
    tree = given.tree
    if tree[0] == "text" or wanted.tree[0] == "text":
        if words.same(given.text, wanted.text, prompt):
            return Verdict(1.0, what, "the same words")
        if wanted.tree[0] != "text" and (tokens := read(answer, letters)):
            tree = parse(words.value(tokens, wording.said(prompt)))
    if chemistry.same_formula(given.text, wanted.text):
        return Verdict(1.0, what, "the same formula")
    letters_asked = wanted.tree[0] == "list" and all(p[0] == "sym" for p in wanted.tree[1])
    if letters_asked and sorted(chemistry.bare(given.text)) == sorted(p[1] for p in wanted.tree[1]):
        return Verdict(1.0, what, "the same letters")
    tree, golds = wording.reread(answer, tree, wanted.tree, prompt), wanted.tree
    if wording.names_axes(gold) and tree[0] in ("tuple", "matrix"):
        golds = wording.reread(gold, golds, tree, prompt)
    verdict = _compared(tree, golds, prompt, what)
    half = None if verdict.right else wording.half_digit(given.text, wanted.text, golds, prompt)
    if half is not None:
        about = golds[1][-1] if golds[0] == "about" else golds
        if any(wording.rounds(one, about, half, prompt) for one in _readings(tree, golds, prompt)):
            return Verdict(1.0, what, "equal to the digits that the gold answer has")
    return verdict


def _chosen(answer: str | None, gold: tuple[str, str], prompt: str) -> Verdict:
    """Against "(B) 12": the letter, what it stands for, or both."""
    letter, text = gold
    stated = choices.with_text(answer or "")
    if answer is None or stated or choices.letter(answer):
        right = (stated[0] if stated else choices.letter(answer or "")) == letter
        right = right and (not stated or explain(stated[1], text, prompt).right == 1)
        return Verdict(float(right), "choice", f"{'equal' if right else 'unequal'} as choice")
    return explain(answer, text, prompt)._replace(kind="choice")


def _compared(tree: Node, gold: Node, prompt: str, what: str) -> Verdict:
    """The verdict of the first pair of readings that are equal."""
    if tree[0] == "list" and tree[2] == "or" and gold[0] in EXPRESSIONS and len(tree[1]) == 2:
        both = [_compared(part, gold, prompt, what) for part in tree[1]]  # 3/4 or 75 %
        if all(verdict.right for verdict in both):
            return both[0]
    why = "unequal"
    pairs = (
        (one, two) for two in _readings(gold, gold, prompt) for one in _readings(tree, two, prompt)
    )
    for one, two in pairs:
        one, two = unnamed(one, two, prompt)
        if one is None:
            why = "what it names is not what is asked for"
            continue
        bare = without_units(one, two, prompt)
        why = why if bare else "its unit is not the one wanted"
        if any(wording.same_asked(*new, prompt) for a, b in bare for new in renamed(a, b, prompt)):
            return Verdict(1.0, what, "equal")
    return Verdict(0.0, what, why)


@lru_cache(8192)
def _read(text: str, letters: frozenset[str] = frozenset()) -> Answer | None:
    """The parts of an answer, or None if it states nothing."""
    text = plain(text).strip() if len(text) <= MAX_READ else text
    tokens = read(text, letters)
    if tokens is None:
        return Answer(text, ("text", " ".join(text.casefold().split())))
    return Answer(text, parse(tokens)) if any(t not in "{}$" for t in tokens) else None


def _kind(gold: Answer) -> str:
    if len(gold.text) > MAX_CHARS:
        return "text"
    if choices.letter(gold.text):
        return "choice"
    if words.date(gold.text):
        return "date"
    if words.clock(gold.text) and gold.tree[0] != "ratio":
        return "time"
    return kind(gold.tree)


def _special(answer: Answer, gold: Answer, prompt: str) -> bool | None:
    """Compares choices, dates, times of day and numbers in another base; None for other answers."""
    chosen = choices.same_choice(answer.text, gold.text, prompt, _states)
    if chosen is not None:
        return chosen
    if gold_date := words.date(gold.text):
        date = words.date(answer.text)
        years = {date[2], gold_date[2]} - {0} if date else set()
        return date is not None and date[:2] == gold_date[:2] and len(years) < 2
    if (gold_time := words.clock(gold.text)) and "ratio" not in prompt:
        if time := words.clock(answer.text):
            return _same_time(time, gold_time, prompt)
        return None if ":" in gold.text and not gold_time[1] else False
    based = [tree for tree in (answer.tree, gold.tree) if tree[0] == "based"]
    if len(based) == 1:
        _, digits_, base = based[0]
        other = answer.text if gold.tree[0] == "based" else gold.text
        named = re.search(rf"(?i)base[ -]*\$?_?{base}\b|{_BASES.get(base, base + '-ary')}", prompt)
        named = named or (gold.tree[0] == "based" and "base" in prompt)
        return (
            bool(named or base == "10")
            and words.digits(re.sub(r"[^\w.]|text|mathrm", "", other)) == digits_
        )
    return None


def _states(text: str, other: str) -> bool:
    return explain(text, other, "").right == 1


def _same_time(time: tuple[Fraction, str], gold: tuple[Fraction, str], prompt: str) -> bool | None:
    if time[1] and gold[1]:
        return time == gold
    if time[0] != gold[0]:
        return False
    said = time[1] or gold[1]
    if not said:
        return True
    tells = (
        r"\bmorning|\ba\.?\s?m\b" if said == "a" else r"afternoon|\bevening|\bnight|\bp\.?\s?m\b"
    )
    other = r"\bmorning\b" if said == "p" else r"\bafternoon\b|\bevening\b"
    if time[1]:
        return re.search(other, prompt, re.IGNORECASE) is None
    return re.search(tells, prompt, re.IGNORECASE) is not None


def _readings(tree: Node, gold: Node, prompt: str) -> list[Node]:
    """What "a ≈ b" states: a, or b where b is about a; everything else states itself."""
    if contradicts_itself(tree):
        return [tree]
    if tree[0] == "rel" and set(tree[1]) == {"\\equiv"} and gold[0] != "rel":
        tree = tree[2][-1]
    if tree[0] == "mod" and gold[0] in EXPRESSIONS and _MODULAR.search(prompt):
        tree = tree[1]
    if tree[0] == "set" and len(tree[1]) == 1 and gold[0] == "num" and _SOLVING.search(prompt):
        tree = tree[1][0]
    if tree == EMPTY and gold[0] == "num" or (tree[0] == "num" and gold == EMPTY):
        tree = gold if "how many" in prompt.lower() and {tree, gold} == {EMPTY, number(0)} else tree
    if tree[0] != "about":
        return [tree]
    first, *others = tree[1]
    if is_name(first):
        return [("rel", ("=",), (first, others[0]))]
    value = first[2][-1] if first[0] == "rel" else first
    return [first, *(other for other in others if _close(value, other))]


def _decimal_comma(text: str, gold: str) -> bool:
    """Whether 3,5 is the 3.5 of a gold answer, as many countries write it."""
    if _GROUPED.search(gold):  # 1.234,5
        gold = gold.replace(".", "").replace(",", ".")
        return squeezed(text.replace(",", "")) == squeezed(gold)
    text = re.sub(r"^\s*[a-z]\s*=\s*", "", text)
    comma, text, gold = "{,}" in text, squeezed(text.replace("{,}", ",")), gold.replace("{,}", ".")
    gold = squeezed(gold)
    if text.count(",") != 1:
        unit = text.count(".") == gold.count(",") == 1 and re.search(r"[0-9],[0-9]+\\?[a-z%]", gold)
        return bool(unit) and gold.replace(",", ".") == text
    return (comma and text == gold) or ("," not in gold and text.replace(",", ".") == gold)


def _close(one: Node, two: Node) -> bool:
    if one[0] == two[0] == "qty":
        return _close(one[1], two[1])
    a, b = (place(node) if node[0] in EXPRESSIONS else None for node in (one, two))
    return a is not None and b is not None and abs(a - b) < 0.01 * abs(a)


def _restates(answer: Answer, gold: Answer, prompt: str) -> bool:
    """Whether the answer only repeats a formula of the problem, which the gold answer evaluates.

    Without this check, the box 2^{10} would solve "Evaluate $2^{10}$".
    """
    text = squeezed(answer.text)
    if not prompt or not _OPERATOR.search(text) or text not in _formulas(prompt):
        return False
    tokens, gold_tokens = read(answer.text) or (), read(gold.text) or ()
    return sorted(tokens) != sorted(gold_tokens) and answer.tree != gold.tree


@lru_cache(4096)
def _formulas(prompt: str) -> frozenset[str]:
    """The formulas of a problem, without spacing."""
    found = (next(filter(None, match.groups())) for match in _FORMULA.finditer(prompt[-8000:]))
    return frozenset(squeezed(formula).rstrip(".,?=") for formula in found)
