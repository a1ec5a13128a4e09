"""Leaves and relations that are decided exactly, without sympy."""

from collections.abc import Callable
from fractions import Fraction

from permix_jax.rewards import structure
from permix_jax.rewards.algebra import is_undefined, proportional, rational, same_value
from permix_jax.rewards.estimate import certainly_unequal
from permix_jax.rewards.expression import Node, negated, parse
from permix_jax.rewards.latex import Tokens, form
from permix_jax.rewards.structure import Leaf, Relation, Same
from permix_jax.rewards.words import has_words, same_words


def same_leaf(tokens: Tokens, gold: Tokens) -> Same:
    """Whether two expressions, or two texts, are equal; None where that takes more algebra."""
    if tokens == gold or form(tokens) == form(gold):
        return True
    node, other = parse(tokens), parse(gold)
    if node and other:
        return same_expression(node, other)
    if has_words(gold) or has_words(tokens):
        return same_words(tokens, gold)
    # One of them is no expression: then they are compared as texts, and these differ.
    return False


def same_expression(node: Node, gold: Node) -> Same:
    verdict = same_value(node, gold)
    if verdict is None and (certainly_unequal(node, gold) or is_undefined(node)):
        return False
    return verdict


def same_relation(
    one: Relation, two: Relation, leaf: Callable[[Tokens, Tokens], Same] = same_leaf
) -> Same:
    """Equations that are multiples of each other, inequalities with equal sides, in any writing."""

    def equal(part: structure.Tree, gold: structure.Tree) -> Same:
        return structure.same(part, gold, leaf, same_relation)

    if one.signs == two.signs:
        sides = [equal(p, g) for p, g in zip(one.parts, two.parts, strict=True)]
        if all(sides):
            return True
        if one.signs in (("=",), ("\\ne",)) and all(
            equal(p, g) for p, g in zip(one.parts[::-1], two.parts, strict=True)
        ):
            return True
    rest, gold_rest = difference(one), difference(two)
    if one.signs != two.signs:
        return False
    if rest is None or gold_rest is None:
        return False if False in sides else None
    equation = one.signs[0] not in ("<", "\\le")
    ratio = proportional(rest, gold_rest, equation)
    if ratio is None:
        return None
    return ratio != 0 if equation else ratio > 0


def difference(relation: Relation) -> Node | None:
    """left - right of a relation between two expressions."""
    if len(relation.parts) != 2 or not all(isinstance(part, Leaf) for part in relation.parts):
        return None
    left, right = (parse(part.tokens) for part in relation.parts)
    return ("sum", (left, negated(right))) if left and right else None


def number(tokens: Tokens) -> Fraction | None:
    """The rational number that `tokens` state, worked out or not; None for all else."""
    node = parse(tokens)
    return None if node is None else rational(node)
