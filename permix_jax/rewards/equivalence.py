r"""Comparing: buys the verdicts on lists, sets, tuples, matrices, ratios and equations.

    a list and a set hold their elements in any order, and each of them once in a set;
    a tuple and an interval are ordered, and their brackets count: (1, 2) may be either, [1, 2) not;
    a list is no tuple, an element is no set, and an equation no value.

Whether two expressions are equal is asked of a function, so that the thread and the processes
share these rules.
"""

import json
from collections.abc import Callable
from fractions import Fraction

from permix_jax.rewards.expression import (
    EXPRESSIONS,
    Node,
    inverse,
    names,
    negated,
    replaced,
    times,
)
from permix_jax.rewards.sets import is_set, same_sets
from permix_jax.rewards.values import difference, ratio, rational

Same = bool | None
# (expression, gold expression, whether they are sides that are 0) -> whether they are equal
Decide = Callable[[Node, Node, bool], Same]

_BUNCHES = ("list", "set")
_AXES = ("i", "j", "k")


def kind(tree: Node) -> str:
    """The name of what a tree is, as verdicts name it."""
    if is_set(tree):
        return "set of reals"
    if tree[0] in EXPRESSIONS and rational(tree) is not None:
        return "number"
    named = {"rel": "equation", "qty": "quantity"} | dict.fromkeys(
        ("num", "inf", "about", "based", "mod"), "number"
    )
    return named.get(tree[0]) or ("expression" if tree[0] in EXPRESSIONS else tree[0])


def same(tree: Node, gold: Node, decide: Decide) -> Same:
    """Whether two answers are equal; None where an expression that matters is undecided."""

    def equal(one: Node, two: Node) -> Same:
        if one == two:
            return True
        if one[0] in EXPRESSIONS and two[0] in EXPRESSIONS:
            return False if _has_infinity(one) or _has_infinity(two) else decide(one, two, False)
        if (is_set(one) or is_set(two)) and not (
            one[0] == two[0] == "rel" and names(one) != names(two)
        ):
            if (verdict := same_sets(one, two)) is not None:
                return verdict
        one, two = _shaped(one, two), _shaped(two, one)
        match one, two:
            case ("rel", signs, _), ("rel", gold_signs, _):
                return _relation(one, two, equal, decide) if signs == gold_signs else False
            case ("ratio", parts), ("ratio", golds):
                return _in_order(_quotients(parts), _quotients(golds), equal)
            case ("ratio", (top, bottom)), _ if two[0] in EXPRESSIONS:
                return equal(times(top, inverse(bottom)), two)
            case _, ("ratio", (top, bottom)) if one[0] in EXPRESSIONS:
                return equal(one, times(top, inverse(bottom)))
            case ("tuple", *ends, parts), ("tuple", *gold_ends, golds):
                return (ends == gold_ends or len(parts) > 2) and _in_order(parts, golds, equal)
            case ("matrix", rows), ("matrix", golds):
                return _in_order(rows, golds, lambda row, gold_row: _in_order(row, gold_row, equal))
            case ("qty", value, unit), ("qty", gold_value, gold_unit):
                return unit == gold_unit and equal(value, gold_value)
            case ("mod", value, modulus), ("mod", gold_value, gold_modulus):
                steps = rational(times(("+", (value, negated(gold_value))), inverse(modulus)))
                return (
                    equal(modulus, gold_modulus) is True
                    and steps is not None
                    and steps.denominator == 1
                )
            case ("builder", element, condition), ("builder", gold_element, gold_condition):
                return _all([equal(element, gold_element), equal(condition, gold_condition)])
            case (("cup" | "cap" | "minus" as sign), parts), (other, golds) if sign == other:
                return (_in_order if sign == "minus" else _any_order)(parts, golds, equal)
        if one[0] in _BUNCHES and two[0] in _BUNCHES:
            parts, golds = one[1], two[1]
            if "set" in (one[0], two[0]):
                parts, golds = _distinct(parts, equal), _distinct(golds, equal)
            return _any_order(parts, golds, equal)
        return False

    return equal(tree, gold)


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


def _relation(one: Node, two: Node, equal: Callable, decide: Decide) -> Same:
    """Equations that are multiples of each other, inequalities with equal sides, in any writing."""
    _, signs, parts = one
    golds, equation = two[2], signs in (("=",), ("\\ne",))
    sides = _in_order(parts, golds, equal)
    if sides or (equation and _in_order(parts[::-1], golds, equal)):
        return True
    if (
        len(parts) != 2
        or len(golds) != 2
        or not all(part[0] in EXPRESSIONS for part in (*parts, *golds))
    ):
        return sides
    rest, gold_rest = difference(one), difference(two)
    factor = ratio(rest, gold_rest)
    if factor is not None:
        return factor != 0 if equation else factor > 0
    return decide(rest, gold_rest, True) if equation else sides


def _all(verdicts: list[Same]) -> Same:
    return False if False in verdicts else None if None in verdicts else True


def _in_order(parts, golds, equal: Callable) -> Same:
    if len(parts) != len(golds):
        return False
    return _all([equal(part, gold) for part, gold in zip(parts, golds, strict=True)])


def _any_order(parts, golds, equal: Callable) -> Same:
    """Pairs each gold part with an equal one; the first one does, for equality is transitive."""
    if len(parts) != len(golds):
        return False
    left, undecided = list(parts), False
    for gold in golds:
        verdicts = [equal(part, gold) for part in left]
        if True in verdicts:
            left.pop(verdicts.index(True))
        elif None in verdicts:
            undecided = True
        else:
            return False
    return None if undecided else True


def _distinct(parts: tuple, equal: Callable) -> tuple:
    kept: list[Node] = []
    for part in parts:
        if not any(equal(part, other) for other in kept):
            kept.append(part)
    return tuple(kept)


def dump(tree: Node) -> str:
    """A tree as a text of JSON."""
    return json.dumps(tree, default=str, ensure_ascii=False)


def load(text: str) -> Node:
    """The tree of `dump`."""
    return _tuples(json.loads(text))


def _tuples(value):
    if not isinstance(value, list):
        return value
    return ("num", Fraction(value[1])) if value[:1] == ["num"] else tuple(map(_tuples, value))
