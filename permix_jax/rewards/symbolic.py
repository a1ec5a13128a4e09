r"""Identities: buys the verdicts that no exact value shows, in worker processes only.

\sin 2x and 2 \sin x \cos x are taken as equal if they have 150 equal digits at points of many sizes
and signs. Small expressions do not agree in so many by chance; what has as many digits itself is
refused. Letters are real numbers, roots and logarithms have positive arguments where that matters,
and odd roots of negative numbers are real. This needs no algebra, and always ends in milliseconds.
"""

from permix_jax.rewards.equivalence import Same, load, same
from permix_jax.rewards.expression import ONE, Node, inverse, times
from permix_jax.rewards.notation import read
from permix_jax.rewards.steps import counted
from permix_jax.rewards.tree import parse
from permix_jax.rewards.values import agree, ratio, same_value


def equivalent(answer: str, gold: str) -> bool:
    """Whether two answers, as `grade.py` writes them or as people do, are equal.

    Raises OutOfSteps where `steps.allow` was called and the digits take more than that.
    """
    return counted(same, _tree(answer), _tree(gold), _decide) is True


def _tree(text: str) -> Node:
    return load(text) if text.startswith('["') else parse(read(text) or ())


def _decide(node: Node, gold: Node, zero: bool) -> Same:
    if zero:
        return bool(ratio(_top(node)[0], _top(gold)[0]))
    verdict = same_value(node, gold)
    return agree(node, gold) if verdict is None else verdict


def _top(node: Node) -> tuple[Node, Node]:
    """(top, bottom) of a node as one fraction, for y = 1/x is x y = 1."""
    match node:
        case ("+", terms):
            tops, bottoms = zip(*map(_top, terms), strict=True)
            others = [
                times(ONE, *(b for j, b in enumerate(bottoms) if j != i)) for i in range(len(tops))
            ]
            return ("+", tuple(times(t, o) for t, o in zip(tops, others, strict=True))), times(
                ONE, *bottoms
            )
        case ("*", factors):
            tops, bottoms = zip(*map(_top, factors), strict=True)
            return times(ONE, *tops), times(ONE, *bottoms)
        case ("^", base, ("num", power)) if power < 0 and power.denominator == 1:
            top, bottom = _top(base)
            return ("^", bottom, ("num", -power)), ("^", top, ("num", -power))
    return node, inverse(inverse(ONE))
