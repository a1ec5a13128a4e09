r"""The problem's wording: buys verdicts on what is asked (an order, factors, digits, a direction).

Also how an answer is read beside its gold answer: P(6, 4) is a number beside a number, and a point
beside a point.
"""

import re
from fractions import Fraction
from functools import lru_cache

from permix_jax.rewards.equivalence import same
from permix_jax.rewards.naming import unnamed
from permix_jax.rewards.nodes import EXPRESSIONS, Node, names, times
from permix_jax.rewards.notation import read
from permix_jax.rewards.quantity import unit_of, without_units
from permix_jax.rewards.rewriting import counted
from permix_jax.rewards.sets import is_set, same_sets
from permix_jax.rewards.tree import parse
from permix_jax.rewards.units import asked, is_measure
from permix_jax.rewards.values import place, rational, same_value

_THOUSANDS = re.compile(r"[0-9]{1,3}(,[0-9]{3})+")
_AXIS = re.compile(r"\\(?:hat|vec|mathbf|overrightarrow)\s*\{?\\?[ijk](?:math)?\b")
_ROWS = re.compile(r"\[([^][;]+(?:;[^][;]+)+)\]")
_ZERO = re.compile(
    r"(?:\\(?:mathbf|mathrm|boldsymbol|text)\s*\{)?[0O]\}?_.*|\\mathbf\s*\{?0\}?|.*zero matrix\}?"
)
_MATHS = re.compile(r"\$([^$]{1,300})\$|\\\((.{1,300}?)\\\)")
_WHOLE = re.compile(r"(?i)\bintegers?\b|\bnatural\b|whole number")
_ORDER = re.compile(r"(?i)(?:in|ing) (?:order|size)\b|smallest to|least to|largest to|greatest to")
_DECIMAL = re.compile(r"[0-9]*\.([0-9]+)(?:\s*\\(?:times|cdot)\s*10\s*\^\s*\{?\s*(-?[0-9]{1,2}))?")
_ABOUT = re.compile(r"(?i)approximat|calculator|\bestimate|\\approx|numerical")
_ROUNDED = re.compile(r"(?i)\bround|\bnearest|decimal place|significant")
_EXACT = re.compile(r"frac|[0-9]/[0-9]|sqrt|\\pi|π|√|\\(?:ln|log|sin|cos|tan)")
_ROOTS = re.compile(r"(?i)\bsolve\b|\broots?\b|\bsolutions?\b|\bzeros\b|eigenvalues|all values")
_FACTORS = re.compile(r"\b[Ff]actor(?:i[sz]e)?\b(?! of)")
_DIRECTION = re.compile(
    r"\ban eigenvector|\ba (?:direction|normal) vector"
    r"|\ba (?:nonzero )?vector (?:parallel|perpendicular|orthogonal|normal)"
)
_CHANGE = re.compile(r"(?i)\bchange[sd]?\b|increase or decrease|profit or loss|gain or loss")
_LESS = re.compile(
    r"(?i)(?:\\text\s*\{)?\s*(?:an? )?(?:decreas(?:es?|ed)|decline|drop|loss|fall|reduction)"
    r"(?: (?:of|by))?\s*\}?"
)
_CLASSES = re.compile(r"\\mathbb\s*\{?Z\}?\s*(?:/|_)")
_CLASS = re.compile(r"\\(?:overline|bar)\s*\{([0-9]+)\}|\[([0-9]+)\](?:_\{?[0-9]+\}?)?")


@lru_cache(4096)
def letters(prompt: str) -> frozenset[str]:
    """The letters that a problem uses as variables."""
    prompt = re.sub(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}|\\[A-Za-z]+", " ", prompt[-8000:])
    found = (match[1] or match[2] for match in _MATHS.finditer(prompt))
    bare = re.findall(
        r"(?<![\w$/.^-])(?<!\din )(?<!in )(?<!\d )(?<!\$ )[B-HJ-Zb-z](?![\w'$/^.-]\w|\w)", prompt
    )
    return frozenset(c for text in found for c in text if c.isalpha()) | frozenset(bare)


@lru_cache(4096)
def said(prompt: str) -> frozenset[str]:
    """The words of a problem, in small letters."""
    return frozenset(re.findall(r"[^\W\d_]+", prompt.casefold()))


def as_asked(text: str | None, prompt: str) -> str | None:
    """-8 % of "a decrease of 8 %" where a change is asked for, and 9 of a class of residues."""
    if text and _CHANGE.search(prompt) and _LESS.search(text) and "-" not in text:
        return "-" + _LESS.sub("", text).strip()
    if text and _CLASSES.search(prompt) and (match := _CLASS.fullmatch(text.strip(" $"))):
        return match[1] or match[2]
    return text


def names_axes(text: str) -> bool:
    r"""Whether a vector is written by its axes: 3\hat{i} - 5\hat{j}."""
    return bool(_AXIS.search(text))


def reread(text: str, tree: Node, gold: Node, prompt: str) -> Node:
    """The tree of an answer as what its gold answer is, where it can be read as that."""
    if gold[0] == "num" and counted(text) != text:
        return parse(read(counted(text)) or ())
    if gold[0] in ("list", "tuple") and _THOUSANDS.fullmatch(text):
        return parse(read(text.replace(",", ";")) or ())  # 45,135 are two numbers here
    if gold[0] == "list" and tree[:3] == ("tuple", "[", "]") and _ROOTS.search(prompt):
        return ("list", tree[3], "")
    if gold[0] in ("tuple", "matrix") and names_axes(text):
        return parse(read(text + "+0j") or ())
    if gold[0] == "matrix" and text[:2] == "{{":
        return parse(read(text.translate(str.maketrans("{}", "[]"))) or ())
    if gold[0] == "matrix" and (rows := _ROWS.fullmatch(text.strip())):
        cells = re.sub(r"[\s,]+", "&", re.sub(r"\s*;\s*", r"\\\\", rows[1].strip()))
        return parse(read(rf"\begin{{matrix}}{cells}\end{{matrix}}") or ())
    if gold[0] == "matrix" and _ZERO.fullmatch(text.strip(" $")):
        return ("matrix", tuple(tuple(("num", Fraction(0)) for _ in row) for row in gold[1]))
    return tree


def half_digit(answer: str, gold: str, tree: Node, prompt: str) -> Fraction | None:
    """Half of the last digit that a gold answer shows, if it is a measured or an "about" one."""
    found = _DECIMAL.findall(gold)
    if len(found) != 1 or _ROUNDED.search(prompt) or _EXACT.search(answer):
        return None
    about = tree[0] == "about" or _ABOUT.search(prompt)
    if not about and not is_measure(unit_of(tree) or asked(prompt)):
        return None
    decimals, exponent = found[0]
    return Fraction(10) ** (int(exponent or 0) - len(decimals)) / 2


def rounds(tree: Node, gold: Node, half: Fraction, prompt: str) -> bool:
    """Whether a number with more digits lies within `half` of the gold one."""
    one, two = unnamed(tree, gold, prompt)
    pairs = without_units(one, two, prompt) if one else []
    values = ((rational(a), rational(b)) for a, b in pairs)
    return any(None not in pair and abs(pair[0] - pair[1]) <= half for pair in values)


def same_asked(tree: Node, gold: Node, prompt: str) -> bool:
    """`same`, in the light of what is asked: integers, an order, factors, a direction."""
    if _FACTORS.search(prompt) and _factors(tree) < _factors(gold):
        return False
    if _DIRECTION.search(prompt) and _parallel(tree, gold):
        return True
    if "confidence" in prompt.lower():
        tree, gold = _interval(tree), _interval(gold)
    if (is_set(tree) or is_set(gold)) and (_WHOLE.search(prompt) or "\\Z" in repr((tree, gold))):
        bounded = "'inf'" not in repr((tree, gold))
        pair = [("set", t[1]) if t[0] == "list" and not is_set(t) else t for t in (tree, gold)]
        if bounded and (verdict := same_sets(*pair, whole=True)) is not None:
            return verdict
    if tree[0] == gold[0] == "list" and _ORDER.search(prompt):
        tree, gold = (("tuple", "(", ")", part[1]) for part in (tree, gold))
    return same(tree, gold)


def _factors(tree: Node) -> int:
    """How many factors with letters a product has."""
    if tree[0] == "*":
        return sum(map(_factors, tree[1]))
    count = rational(tree[2]) if tree[0] == "^" else Fraction(1)
    return int(count) if names(tree) and count and count > 0 else int(bool(names(tree)))


def _parallel(tree: Node, gold: Node) -> bool:
    """Whether two vectors have one direction, or opposite ones."""
    one, two = _cells(tree), _cells(gold)
    if one is None or two is None or len(one) != len(two):
        return False
    if all(same_value(cell, ("num", Fraction(0))) for cell in one):
        return False
    pairs = list(zip(one, two, strict=True))
    a, b = next(pair for pair in pairs if not same_value(pair[0], ("num", Fraction(0))))
    return all(same_value(times(x, b), times(y, a)) for x, y in pairs)


def _cells(tree: Node) -> list[Node] | None:
    flat = tree[3] if tree[0] == "tuple" else ()
    if tree[0] == "matrix" and (len(tree[1]) == 1 or all(len(row) == 1 for row in tree[1])):
        flat = [cell for row in tree[1] for cell in row]
    return list(flat) if flat and all(cell[0] in EXPRESSIONS for cell in flat) else None


def _interval(tree: Node) -> Node:
    r"""(4.2, 5.8) of [4.2, 5.8] and of 5 \pm 0.8."""
    ends = tree[3] if tree[0] == "tuple" else tree[1] if tree[0] == "list" else ()
    places = [place(end) if end[0] in EXPRESSIONS else None for end in ends]
    if len(ends) != 2 or None in places:
        return tree
    low, high = ends if places[0] < places[1] or tree[0] == "tuple" else ends[::-1]
    return ("tuple", "(", ")", (low, high))
