"""Vectors: buys the verdicts on sums of multiples of matrices and tuples, (1, 3) + t (2, -1)."""

from permix_jax.rewards.expression import Node, times


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
