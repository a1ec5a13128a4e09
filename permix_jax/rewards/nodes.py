r"""Trees: buys no verdict itself, all modules make and change trees with it.

    ("num", Fraction)   ("sym", name)   ("inf",)   ("+", terms)   ("*", factors)
    ("^", base, exponent)   ("f", name, arguments)

are expressions. Trees of other kinds (`tree.py`) hold expressions.
"""

from fractions import Fraction
from functools import lru_cache

Node = tuple
ONE, MINUS, HALF = (("num", Fraction(n, d)) for n, d in ((1, 1), (-1, 1), (1, 2)))
EXPRESSIONS = frozenset(("num", "sym", "inf", "+", "*", "^", "f"))


def is_name(node: Node) -> bool:
    """Whether a node is a variable."""
    return node[0] == "sym" and node[1] not in ("\\pi", "e", "i", "\\circ")


@lru_cache(8192)
def names(tree: Node) -> frozenset[str]:
    """The variables in a tree of any kind."""
    inner = (names(part) for part in tree if isinstance(part, tuple) and part)
    return frozenset([tree[1]] if is_name(tree) else []).union(*inner)


def replaced(tree: Node, old: Node, new: Node) -> Node:
    """A tree of any kind with `new` wherever it has `old`."""
    if tree == old:
        return new
    return tuple(replaced(part, old, new) for part in tree) if isinstance(tree, tuple) else tree


def number(value: Fraction | int) -> Node:
    return ("num", Fraction(value))


def negated(node: Node) -> Node:
    return number(-node[1]) if node[0] == "num" else ("*", (MINUS, node))


def inverse(node: Node) -> Node:
    return ("^", node, MINUS)


def times(*factors: Node) -> Node:
    return factors[0] if len(factors) == 1 else ("*", factors)
