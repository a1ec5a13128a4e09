r"""Comparing: buys the verdicts on lists, sets, tuples, matrices, ratios and equations.

a list and a set hold their elements in any order, and each of them once in a set;
a tuple and an interval are ordered, and their brackets count: (1, 2) may be either, [1, 2) not;
a list is no tuple, an element is no set, and an equation no value.
"""

from collections.abc import Callable
from fractions import Fraction

from permix_jax.rewards.nodes import EXPRESSIONS, Node, inverse, names, negated, replaced, times
from permix_jax.rewards.sets import is_set, same_sets
from permix_jax.rewards.values import difference, ratio, rational, same_value, top

_BUNCHES = ("list", "set")
_AXES = ("i", "j", "k")


def kind(tree: Node) -> str:
    """The name of what a tree is, as verdicts name it."""
    if is_set(tree) or _is_interval(tree):
        return "set of reals"
    if tree[0] in EXPRESSIONS and rational(tree) is not None:
        return "number"
    named = {"rel": "equation", "qty": "quantity"} | dict.fromkeys(
        ("num", "inf", "about", "based", "mod"), "number"
    )
    of_letters = "expression" if names(tree) else "number"
    return named.get(tree[0]) or (of_letters if tree[0] in EXPRESSIONS else tree[0])


def _is_interval(tree: Node) -> bool:
    """[0, 1), which is no point, and (2, \\infty)."""
    pair = tree[0] == "tuple" and len(tree[3]) == 2
    return pair and (tree[1:3] != ("(", ")") or any(map(_has_infinity, tree[3])))


def same(one: Node, two: Node) -> bool:
    """Whether two answers are equal."""
    if one == two:
        return True
    if one[0] in EXPRESSIONS and two[0] in EXPRESSIONS:
        return not _has_infinity(one) and not _has_infinity(two) and same_value(one, two)
    if (is_set(one) or is_set(two)) and not (
        one[0] == two[0] == "rel" and names(one) != names(two)
    ):
        if (verdict := same_sets(one, two)) is not None:
            return verdict
    one, two = _shaped(one, two), _shaped(two, one)
    match one, two:
        case ("rel", signs, _), ("rel", gold_signs, _):
            return signs == gold_signs and _relation(one, two)
        case ("ratio", parts), ("ratio", golds):
            return _in_order(_quotients(parts), _quotients(golds))
        case ("ratio", (upper, lower)), _ if two[0] in EXPRESSIONS:
            return same(times(upper, inverse(lower)), two)
        case _, ("ratio", (upper, lower)) if one[0] in EXPRESSIONS:
            return same(one, times(upper, inverse(lower)))
        case ("tuple", *ends, parts), ("tuple", *gold_ends, golds):
            return (ends == gold_ends or len(parts) > 2) and _in_order(parts, golds)
        case ("matrix", rows), ("matrix", golds):
            return _in_order(rows, golds, _in_order)
        case ("qty", value, unit), ("qty", gold_value, gold_unit):
            return unit == gold_unit and same(value, gold_value)
        case ("mod", value, modulus), ("mod", gold_value, gold_modulus):
            steps = rational(times(("+", (value, negated(gold_value))), inverse(modulus)))
            whole = steps is not None and steps.denominator == 1
            return whole and same(modulus, gold_modulus)
        case ("builder", element, condition), ("builder", gold_element, gold_condition):
            return same(element, gold_element) and same(condition, gold_condition)
        case (("cup" | "cap" | "minus" as sign), parts), (other, golds) if sign == other:
            return (_in_order if sign == "minus" else _any_order)(parts, golds)
    if one[0] in _BUNCHES and two[0] in _BUNCHES:
        parts, golds = one[1], two[1]
        if "set" in (one[0], two[0]):
            parts, golds = _distinct(parts), _distinct(golds)
        return _any_order(parts, golds)
    return False


def _has_infinity(node: Node) -> bool:
    return node[0] == "inf" or (node[0] in ("*", "+") and any(map(_has_infinity, node[1])))


def _shaped(tree: Node, other: Node) -> Node:
    """[1, 2, 3] as the list that it is in code, (3, -5) as a column, 3i - 5j as a tuple, where the
    other one is that."""
    column = other[0] == "matrix" and all(len(row) == 1 for row in other[1])
    if tree[0] == "tuple" and other[0] in _BUNCHES and tree[1:3] == ("[", "]"):
        if len(tree[3]) > 2 or all(part[0] == "tuple" for part in tree[3]):
            return ("list", tree[3], "")
    if tree[0] == "matrix" and other[0] in _BUNCHES:
        return ("list", tuple(("tuple", "(", ")", row) for row in tree[1]), "")
    if tree[0] == "tuple" and other[0] == "matrix" and len(other[1]) == 1:
        return ("matrix", (tree[3],))
    if other[0] == "matrix" and tree[0] in EXPRESSIONS and "I" in {n[0] for n in names(tree)}:
        (name,) = [n for n in names(tree) if n[0] == "I"][:1]
        on, off = (replaced(tree, ("sym", name), ("num", Fraction(n))) for n in (1, 0))
        size = range(len(other[1]))
        return ("matrix", tuple(tuple(on if i == j else off for j in size) for i in size))
    if tree[0] in EXPRESSIONS and (column or other[0] == "tuple"):
        size = len(other[1] if column else other[3])
        if tree[:2] == ("f", "binomial") and column:
            parts = tree[2]
        elif size in (2, 3) and "('sym', 'j')" in repr(tree):
            axes = [("sym", axis) for axis in _AXES]
            parts = tuple(_coordinate(tree, axes, axis) for axis in axes[:size])
        else:
            return tree
        tree = ("tuple", "(", ")", parts)
    return ("matrix", tuple((part,) for part in tree[3])) if tree[0] == "tuple" and column else tree


def _coordinate(node: Node, axes: list[Node], axis: Node) -> Node:
    for other in axes:
        node = replaced(node, other, ("num", Fraction(int(other == axis))))
    return node


def _quotients(parts: tuple) -> list[Node]:
    """a : b : c has the quotients a/b and a/c."""
    return [times(parts[0], inverse(part)) for part in parts[1:]]


def _relation(one: Node, two: Node) -> bool:
    """Equations that are multiples of each other, inequalities with equal sides, in any writing."""
    _, signs, parts = one
    golds, equation = two[2], signs in (("=",), ("\\ne",))
    if _in_order(parts, golds) or (equation and _in_order(parts[::-1], golds)):
        return True
    sides = (*parts, *golds)
    if len(parts) != 2 or len(golds) != 2 or not all(side[0] in EXPRESSIONS for side in sides):
        return False
    rest, gold_rest = difference(one), difference(two)
    factor = ratio(rest, gold_rest)
    if factor is not None:
        return factor != 0 if equation else factor > 0
    tops = top(rest), top(gold_rest)
    return equation and None not in tops and bool(ratio(*tops))


def _in_order(parts, golds, equal: Callable[..., bool] = same) -> bool:
    return len(parts) == len(golds) and all(map(equal, parts, golds))


def _any_order(parts, golds) -> bool:
    """Pairs each gold part with an equal one; the first one does, for equality is transitive."""
    if len(parts) != len(golds):
        return False
    left = list(parts)
    for gold in golds:
        place = next((at for at, part in enumerate(left) if same(part, gold)), None)
        if place is None:
            return False
        left.pop(place)
    return True


def _distinct(parts: tuple) -> tuple:
    kept: list[Node] = []
    for part in parts:
        if not any(same(part, other) for other in kept):
            kept.append(part)
    return tuple(kept)
