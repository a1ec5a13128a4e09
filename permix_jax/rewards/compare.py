r"""Comparing: buys the verdicts on lists, sets, tuples, matrices, ratios and equations, part by part.

    a list and a set hold their elements in any order, and each of them once in a set;
    a tuple and an interval are ordered, and their brackets count: (1, 2) may be either, [1, 2) not;
    a list is no tuple, an element is no set, and an equation no value.

Whether two expressions are equal is asked of a function, so that the verifier's thread and sympy
share these rules.
"""

import json
from collections.abc import Callable
from fractions import Fraction

from permix_jax.rewards.expression import Node, inverse, times
from permix_jax.rewards.sets import is_set, real_set
from permix_jax.rewards.values import difference, proportional

Same = bool | None
# (expression, gold expression, whether they are sides that are 0) -> whether they are equal
Decide = Callable[[Node, Node, bool], Same]

_EXPRESSIONS = {"num", "sym", "+", "*", "^", "f", "inf"}
_BUNCHES = {"list", "set"}


def kind(tree: Node) -> str:
    """The name of what a tree is, as verdicts name it."""
    if is_set(tree):
        return "set of reals"
    if tree[0] == "num":
        return "number"
    names = {
        "rel": "equation",
        "qty": "quantity",
        "about": "number",
        "based": "number",
        "inf": "number",
    }
    return "expression" if tree[0] in _EXPRESSIONS - {"inf"} else names.get(tree[0], tree[0])


def same(tree: Node, gold: Node, decide: Decide) -> Same:
    """Whether two answers are equal; None where an expression that matters is undecided."""

    def equal(one: Node, two: Node) -> Same:
        if one == two:
            return True
        if one[0] in _EXPRESSIONS and two[0] in _EXPRESSIONS:
            return _infinite(one, two) if _has_infinity(one, two) else decide(one, two, False)
        if (is_set(one) or is_set(two)) and not (one[0] == two[0] == "rel" and _unlike(one, two)):
            left, right = real_set(one), real_set(two)
            if left is not None and right is not None:
                return _any_order(left, right, lambda a, b: _interval(a, b, equal))
        one, two = _bracketed(one, two), _bracketed(two, one)
        match one, two:
            case ("rel", signs, parts), ("rel", gold_signs, gold_parts):
                return _relation(one, two, equal, decide) if signs == gold_signs else False
            case ("ratio", parts), ("ratio", gold_parts):
                pairs = zip(_quotients(parts), _quotients(gold_parts), strict=False)
                return (
                    _all([equal(*pair) for pair in pairs])
                    if len(parts) == len(gold_parts)
                    else False
                )
            case ("ratio", (_, _)), _ if two[0] in _EXPRESSIONS:
                return equal(*_quotients(one[1]), two)
            case _, ("ratio", (_, _)) if one[0] in _EXPRESSIONS:
                return equal(one, *_quotients(two[1]))
            case ("tuple", *ends, parts), ("tuple", *gold_ends, gold_parts):
                return _in_order(parts, gold_parts, equal) if ends == gold_ends else False
            case ("matrix", rows), ("matrix", gold_rows):
                if [len(row) for row in rows] != [len(row) for row in gold_rows]:
                    return False
                return _in_order(sum(rows, ()), sum(gold_rows, ()), equal)
            case ("builder", name, condition), ("builder", gold_name, gold_condition):
                return name == gold_name and equal(condition, gold_condition)
            case ("cup" | "cap" | "minus", parts), (other, gold_parts) if one[0] == other:
                return (_in_order if other == "minus" else _any_order)(parts, gold_parts, equal)
        if one[0] in _BUNCHES and two[0] in _BUNCHES:
            parts, golds = one[1], two[1]
            if "set" in (one[0], two[0]):
                parts, golds = _distinct(parts, equal), _distinct(golds, equal)
            return _any_order(parts, golds, equal)
        return False

    return equal(tree, gold)


def _has_infinity(*nodes: Node) -> bool:
    return any(
        node[0] == "inf" or (node[0] in ("*", "+") and _has_infinity(*node[1])) for node in nodes
    )


def _infinite(one: Node, two: Node) -> bool:
    """Infinite values are equal in the same writing only."""
    return one == two


def _unlike(one: Node, two: Node) -> bool:
    """Whether two relations are about other variables: x > 3 is not y > 3."""
    from permix_jax.rewards.expression import names

    left, right = (
        frozenset().union(*(names(p) for p in r[2] if p[0] in _EXPRESSIONS)) for r in (one, two)
    )
    return left != right


def _bracketed(tree: Node, other: Node) -> Node:
    """[1, 2, 3] as the list that it is in code, and (3, -5) as a column, where the other one is."""
    if tree[0] == "tuple" and other[0] in _BUNCHES and tree[1:3] == ("[", "]") and len(tree[3]) > 2:
        return ("list", tree[3], "")
    if tree[0] == "tuple" and other[0] == "matrix" and all(len(row) == 1 for row in other[1]):
        return ("matrix", tuple((part,) for part in tree[3]))
    return tree


def _quotients(parts: tuple) -> list[Node]:
    """a : b : c has the quotients a/b and a/c."""
    return [times(parts[0], inverse(part)) for part in parts[1:]]


def _interval(one: tuple, two: tuple, equal: Callable) -> Same:
    if one[1::2] != two[1::2]:
        return False
    return _all([equal(one[0], two[0]), equal(one[2], two[2])])


def _relation(one: Node, two: Node, equal: Callable, decide: Decide) -> Same:
    """Equations that are multiples of each other, inequalities with equal sides, in any writing."""
    _, signs, parts = one
    golds = two[2]
    if len(parts) != len(golds):
        return False
    sides = _all([equal(*pair) for pair in zip(parts, golds, strict=True)])
    if sides:
        return True
    equation = signs in (("=",), ("\\ne",))
    if equation and _all([equal(*pair) for pair in zip(parts[::-1], golds, strict=True)]):
        return True
    if len(parts) != 2 or not all(part[0] in _EXPRESSIONS for part in (*parts, *golds)):
        return sides
    rest, gold_rest = difference(one), difference(two)
    ratio = proportional(rest, gold_rest)
    if ratio is not None:
        return ratio != 0 if equation else ratio > 0
    return decide(rest, gold_rest, True) if equation else sides


def _all(verdicts: list[Same]) -> Same:
    return False if False in verdicts else None if None in verdicts else True


def _in_order(parts: tuple, golds: tuple, equal: Callable) -> Same:
    if len(parts) != len(golds):
        return False
    verdicts: list[Same] = []
    for part, gold in zip(parts, golds, strict=True):
        verdicts.append(equal(part, gold))
        if verdicts[-1] is False:
            return False
    return _all(verdicts)


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
    if isinstance(value, list):
        if len(value) == 2 and value[0] == "num":
            return ("num", Fraction(value[1]))
        return tuple(map(_tuples, value))
    return value
