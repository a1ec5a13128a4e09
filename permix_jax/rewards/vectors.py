"""Vectors: buys the verdicts on sums of multiples of matrices and tuples, (1, 3) + t (2, -1)."""

import re
from collections.abc import Callable

from permix_jax.rewards.brackets import closing, split
from permix_jax.rewards.expression import parse_expression
from permix_jax.rewards.nodes import MINUS, Node, names, number, replaced, times
from permix_jax.rewards.notation import Tokens

_OPENING = {"\\begin{matrix}", "(", "\\langle"}


def combination(tokens: Tokens, enclosed: Callable[[Tokens], Node | None]) -> Node | None:
    """A sum of multiples of matrices or of tuples; `enclosed` reads one between its brackets."""
    if not _OPENING & set(tokens):
        return None
    parts, signs = split(tokens, ("+", "-"))
    parts, signs = (parts, ["+", *signs]) if parts[0] else (parts[1:], signs)
    found = [_multiple(part, enclosed) for part in parts]
    square = next((tree for tree in found if tree and tree[0] == "matrix"), None)
    whole = None
    for sign, part, tree in zip(signs, parts, found, strict=True):
        tree = tree or _unit_matrix(part, square)
        if tree is None:
            return None
        tree = scaled(tree, MINUS) if sign == "-" else tree
        whole = added(whole, tree) if whole else tree
        if whole is None:
            return None
    return whole


def _multiple(tokens: Tokens, enclosed: Callable) -> Node | None:
    """3 (1, 2), and (1, 2)^T e^t."""
    for at, token in enumerate(tokens):
        if token not in _OPENING:
            continue
        end = at + closing(tokens[at:]) + 1
        if end == at:
            return None
        end += 2 * (tokens[end : end + 2] == ("^", "T"))
        tree = enclosed(tokens[at:end])
        if tree and tree[0] in ("matrix", "tuple"):
            front = tokens[: at - (tokens[at - 1 : at] == ("\\cdot",))]
            behind = tokens[end + (tokens[end : end + 1] == ("\\cdot",)) :]
            factors = [parse_expression(side) for side in (front, behind) if side]
            return None if None in factors else scaled(tree, *factors)
    return None


def _unit_matrix(tokens: Tokens, beside: Node | None) -> Node | None:
    """3 I beside a square matrix."""
    factor = parse_expression(tokens) if beside else None
    units = [name for name in names(factor) if re.fullmatch("I(?:_.)?", name)] if factor else []
    if len(units) != 1 or len(beside[1]) != len(beside[1][0]):
        return None
    size = range(len(beside[1]))
    on, off = (replaced(factor, ("sym", units[0]), number(n)) for n in (1, 0))
    return ("matrix", tuple(tuple(on if i == j else off for j in size) for i in size))


def scaled(tree: Node, *factors: Node) -> Node:
    """A matrix or a tuple with `factors` multiplied into its entries."""
    return _each(lambda cell: times(*factors, cell), tree)


def added(one: Node, two: Node) -> Node | None:
    """The sum of two matrices, or of two tuples; None where their shapes differ."""
    if one[0] != two[0] or _shape(one) != _shape(two):
        return None
    return _each(lambda a, b: ("+", (a, b)), one, two)


def _rows(tree: Node) -> tuple:
    return tree[1] if tree[0] == "matrix" else (tree[3],)


def _shape(tree: Node) -> list[int]:
    return [len(row) for row in _rows(tree)]


def _each(change, tree: Node, *others: Node) -> Node:
    rows = zip(_rows(tree), *map(_rows, others), strict=True)
    new = tuple(tuple(map(change, *cells)) for cells in rows)
    return ("matrix", new) if tree[0] == "matrix" else (*tree[:3], new[0])
