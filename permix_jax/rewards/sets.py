r"""Sets of reals: buys x > 2, (2, \infty), {x | x > 2}, |x| > 2 and x \ne 0 as one notion.

A set is where its pieces may begin and end, and whether a number belongs to it. Two sets are equal
if they hold the same of all these ends, and of numbers between, below and above them. Letters that
are not the variable of a condition have one value each, as in `values.py`.
"""

from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from math import floor
from typing import NamedTuple

from permix_jax.rewards.nodes import EXPRESSIONS, Node, is_name, names, negated, replaced
from permix_jax.rewards.tree import INFINITY
from permix_jax.rewards.values import digits

MAX_CONDITIONS = 4
MAX_ROOTS = 4  # of one condition
MAX_SIZE = 50  # of the sides of a condition

_SIGNS = {"<", "\\le", "\\ne", "\\in"}
_GRID = sorted(Fraction(sign * n * n * n, 190) for n in range(1, 29) for sign in (1, -1))
_FAR = Fraction(10**9)
_HALVINGS = 110


class RealSet(NamedTuple):
    """`ends`: where its pieces may begin or end; `has`: whether a number belongs to it."""

    ends: frozenset[Fraction]
    has: Callable[[Fraction], bool]


def is_set(tree: Node) -> bool:
    """Whether a tree is written as a set of reals and as nothing else ((1, 2) may be a pair)."""
    if tree[0] == "list":
        return any(map(is_set, tree[1]))
    return tree[0] in ("cup", "cap", "minus", "builder") or (
        tree[0] == "rel" and bool(set(tree[1]) & _SIGNS)
    )


def same_sets(tree: Node, gold: Node, whole: bool = False) -> bool | None:
    """Whether two sets are equal, or (`whole`) hold the same integers; None: one is no set, or
    neither holds an integer."""
    one, two = real_set(tree), real_set(gold)
    if one is None or two is None:
        return None
    ends = sorted(one.ends | two.ends)
    if whole:
        near = {Fraction(n) for end in ends for n in range(floor(end) - 1, floor(end) + 3)}
        held = [(one.has(n), two.has(n)) for n in (*near, Fraction(-(10**6)), Fraction(10**6))]
        return all(a == b for a, b in held) if any(map(any, held)) else None
    between = [(low + high) / 2 for low, high in pairwise(ends) if high - low > _tiny(low)]
    around = (ends[0] - 1, ends[-1] + 1) if ends else (Fraction(0),)
    return all(one.has(x) == two.has(x) for x in (*ends, *between, *around))


def real_set(tree: Node, name: Node | None = None) -> RealSet | None:
    """The set of reals that a tree says; None for what is none.

    `name`: the variable that a condition is about; None: the one that stands alone on a side.
    """
    match tree:
        case ("tuple", opening, closing, (low, high)) if _scalar(low) and _scalar(high):
            signs = tuple("\\le" if bracket in "[]" else "<" for bracket in (opening, closing))
            return _condition(signs, (low, ("sym", "\0"), high), ("sym", "\0"))
        case ("set", parts) if all(map(_scalar, parts)):
            return _any(
                [_condition(("=",), (("sym", "\0"), part), ("sym", "\0")) for part in parts]
            )
        case ("cup", parts):
            return _any([real_set(part, name) for part in parts])
        case ("cap", parts):
            return _all([real_set(part, name) for part in parts])
        case ("minus", (whole, part)):
            return _all([real_set(whole, name), _outside(real_set(part, name))])
        case ("builder", ("rel", ("\\in",), (variable, whole)), condition):
            inside = real_set(condition, variable)
            return inside if whole == ("sym", "\\Z") else _all([real_set(whole), inside])
        case ("builder", variable, condition) if is_name(variable):
            return real_set(condition, variable)
        case ("list", parts, mark):
            return _listed(parts, mark, name)
        case ("rel", ("\\in",), (variable, whole)):
            return real_set(whole, name) if is_name(variable) else None
        case ("rel", ("\\ne",), (subject, ("list" | "set", parts, *_))):
            return _all([real_set(("rel", ("\\ne",), (subject, part)), name) for part in parts])
        case ("rel", signs, parts) if all(map(_scalar, parts)):
            subjects = [part for part in parts if is_name(part)] or [
                ("sym", letter) for part in parts for letter in names(part)
            ]
            subject = name or (subjects[0] if subjects else None)
            return subject and _condition(signs, parts, subject)
    return None


def _listed(parts: tuple, mark: str, name: Node | None) -> RealSet | None:
    """ "x > 1, x < 3" is both; "x < 1, x > 3" is either."""
    first = parts[0]
    if len(parts) > MAX_CONDITIONS:
        return None
    if first[0] == "rel" and first[1] == ("\\ne",):  # "x \ne 0, 1"
        parts = tuple(("rel", ("\\ne",), (first[2][0], p)) if _scalar(p) else p for p in parts)
    found = [real_set(part, name) for part in parts]
    if None in found:
        return None
    both = _all(found)
    apart = mark != "and" and not _filled(both)
    if mark == "or" or any(part[0] == "tuple" for part in parts) or apart:
        return _any(found)
    return both


def _size(tree: Node) -> int:
    """How many numbers, names and operations a tree of any kind has; slow functions count more."""
    slow = 60 * (tree[:1] == ("f",) and tree[1] in ("zeta", "gamma", "binomial", "factorial"))
    return 1 + slow + sum(_size(part) for part in tree if isinstance(part, tuple))


def _filled(numbers: RealSet) -> bool:
    ends = sorted(numbers.ends | {-_FAR, _FAR})
    return any(map(numbers.has, (*ends, *((a + b) / 2 for a, b in pairwise(ends)))))


def _condition(signs: tuple, parts: tuple, subject: Node) -> RealSet | None:
    """The numbers for which a chain of relations holds."""
    moving = [part for part in parts if part != subject and subject[1] in names(part)]
    if not set(signs) <= {"<", "\\le", "=", "\\ne"} or _size(tuple(moving)) > MAX_SIZE:
        return None
    fixed = [None if subject[1] in names(part) else _value(part) for part in parts]

    def values(x: Fraction) -> list:
        return [
            known if subject[1] not in names(part) else _value(replaced(part, subject, ("num", x)))
            for part, known in zip(parts, fixed, strict=True)
        ]

    def has(x: Fraction) -> bool:
        sides = values(x)
        if None in sides:
            return False
        return all(_holds(sign, *pair) for sign, pair in zip(signs, pairwise(sides), strict=True))

    bounds = [x for part, x in zip(parts, fixed, strict=True) if subject[1] not in names(part)]
    if None in bounds:
        return None
    ends = set(bounds)
    if moving:
        for at in range(len(signs)):
            roots = _roots(values, at)
            if len(roots) > MAX_ROOTS:
                return None
            ends |= roots
    return RealSet(frozenset(end for end in ends if abs(end) < _FAR), has)


def _roots(values: Callable, at: int) -> set[Fraction]:
    """Where two neighbours in a chain are equal; a few too many where there are many."""

    def difference(x: Fraction) -> Fraction | None:
        left, right = values(x)[at : at + 2]
        return None if left is None or right is None else left - right

    found: set[Fraction] = set()
    for low, high in pairwise([*_GRID[:28], Fraction(0), *_GRID[28:]]):
        a, b = difference(low), difference(high)
        if len(found) > MAX_ROOTS:
            break
        if a is None or b is None or (a > 0) == (b > 0):
            continue
        for turn in range(_HALVINGS):
            middle = (low + high) / 2
            if turn == 30:  # most roots are small fractions
                near = middle.limit_denominator(10**4)
                middle = near if low < near < high else middle
            value = difference(middle)
            if value is None or value == 0:
                low = middle
                break
            low, high = (middle, high) if (value > 0) == (a > 0) else (low, middle)
        found.add(_rounded(low))
    return found


def _rounded(x: Fraction) -> Fraction:
    """A root without the error of halving: 2 and not 1.9999..."""
    near = x.limit_denominator(10**6)
    return near if abs(near - x) < _tiny(x) else x


def _tiny(x: Fraction) -> Fraction:
    return (1 + abs(x)) * Fraction(1, 10**25)


def _holds(sign: str, left: Fraction, right: Fraction) -> bool:
    equal = abs(left - right) < _tiny(left)
    return {
        "=": equal,
        "\\ne": not equal,
        "<": left < right and not equal,
        "\\le": left < right or equal,
    }[sign]


def _value(node: Node) -> Fraction | None:
    """A real number, to 30 digits; an infinite one as one that is far away."""
    if node in (INFINITY, negated(INFINITY)):
        return _FAR if node == INFINITY else -_FAR
    if node[0] == "num":
        return node[1]
    found = digits(node, "a")
    if isinstance(found, str) or abs(found[1].imag) > 1e-30 or abs(found[1]) > 1e9:
        return None
    return Fraction(int(found[1].real * 10**32), 10**32)


def _scalar(tree: Node) -> bool:
    return tree[0] in EXPRESSIONS


def _any(parts: list) -> RealSet | None:
    ends = None if None in parts else frozenset().union(*(part.ends for part in parts))
    return None if ends is None else RealSet(ends, lambda x: any(part.has(x) for part in parts))


def _all(parts: list) -> RealSet | None:
    ends = None if None in parts else frozenset().union(*(part.ends for part in parts))
    return None if ends is None else RealSet(ends, lambda x: all(part.has(x) for part in parts))


def _outside(numbers: RealSet | None) -> RealSet | None:
    return numbers and RealSet(numbers.ends, lambda x: not numbers.has(x))
