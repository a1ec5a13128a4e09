r"""Floating-point estimates: two expressions with unlike values are certainly unequal.

The estimate only ever rejects. Letters stand for positive numbers; where anything is undefined or
huge, or has more than one complex value, there is no estimate.
"""

import cmath
import math
import sys
from functools import lru_cache

from permix_jax.rewards.algebra import rational
from permix_jax.rewards.expression import Node

_POINTS = (0.618, 1.732, 4.669)
_RELATIVE = 1e-7
_CANCELLED = 1e-11  # so much smaller than what it was computed from, a number is mostly rounding
_MAX_ANGLE = 1e6
_CALLS = {
    "sin": math.sin, "cos": math.cos, "tan": math.tan, "arcsin": math.asin, "arccos": math.acos,
    "arctan": math.atan, "sinh": math.sinh, "cosh": math.cosh, "tanh": math.tanh, "ln": math.log,
    "log": math.log10,  # as symbolic.py's parser reads it
    "exp": math.exp, "abs": abs,
    "cot": lambda x: 1 / math.tan(x), "sec": lambda x: 1 / math.cos(x),
    "csc": lambda x: 1 / math.sin(x),
}  # fmt: skip


def certainly_unequal(node: Node, gold: Node) -> bool:
    """Whether the two differ, beyond any rounding, at a point where both are defined."""
    for one, two in zip(estimates(node), estimates(gold), strict=True):
        if one is not None and two is not None:
            if one[1] == math.inf or two[1] == math.inf:
                return one[1] != two[1]
            difference = abs(one[0] - two[0])
            if difference > _RELATIVE * max(one[1], two[1], 1e-30):
                return True
    return False


@lru_cache(8192)
def estimates(node: Node) -> tuple[tuple[complex, float] | None, ...]:
    """(value, largest size on the way to it) at each sample point; None where undefined.

    Both are infinite for a rational number that is too large for a float.
    """
    number = rational(node)
    if number is not None and abs(number) > sys.float_info.max:
        return ((math.inf, math.inf),) * len(_POINTS)
    return tuple(_at(node, point) for point in _POINTS)


def _at(node: Node, point: float) -> tuple[complex, float] | None:
    sizes = [0.0]
    try:
        value = _value(node, point, sizes)
        size = max(sizes)
    except (ValueError, ArithmeticError, TypeError, AttributeError, RecursionError):
        return None
    return (value, size) if cmath.isfinite(value) and math.isfinite(size) else None


def _value(node: Node, point: float, sizes: list[float]) -> complex:
    match node:
        case ("number", number):
            value = float(number)
        case ("symbol", "\\pi"):
            value = math.pi
        case ("symbol", "e"):
            value = math.e
        case ("symbol", "i"):
            value = 1j
        case ("symbol", name):
            if name[0] in ".0123456789":
                raise ValueError("a number in another base")
            # Any fixed spread does; letters must not get values that are simply related.
            spread = sum((place + 1) * ord(c) for place, c in enumerate(name))
            value = point * (1 + math.sin(spread) ** 2)
        case ("sum", terms):
            value = sum(_value(term, point, sizes) for term in terms)
        case ("product", factors):
            value = math.prod(_value(factor, point, sizes) for factor in factors)
        case ("power", ("symbol", "e"), exponent):
            exponent = _value(exponent, point, sizes)
            sizes.append(abs(exponent))
            value = cmath.exp(exponent) if isinstance(exponent, complex) else math.exp(exponent)
        case ("power", base, exponent):
            base, exponent = _value(base, point, sizes), _value(exponent, point, sizes)
            if not exponent.is_integer() and (isinstance(base, complex) or base < 0):
                raise ValueError("complex")
            if exponent < 1:
                _not_cancelled(base, sizes)
            # The error of the exponent is multiplied by the logarithm of the base.
            sizes.append(abs(exponent) * abs(math.log(abs(base))) if base else 0.0)
            value = base**exponent
        case ("root", degree, radicand):
            degree, radicand = _value(degree, point, sizes), _value(radicand, point, sizes)
            if radicand < 0 and degree % 2 != 1:
                raise ValueError("complex")
            _not_cancelled(radicand, sizes)
            value = math.copysign(abs(radicand) ** (1 / degree), radicand)
        case ("call", "log", (argument, base)):
            value = math.log(_value(argument, point, sizes)) / math.log(_value(base, point, sizes))
        case ("call", name, (argument,)) if name in _CALLS:
            argument = _value(argument, point, sizes)
            if abs(argument) > _MAX_ANGLE:
                raise ValueError("too large an angle")
            _not_cancelled(argument, sizes)
            value = _CALLS[name](argument)
        case _:
            raise ValueError("no estimate")
    sizes.append(abs(value))
    return value


def _not_cancelled(value: float, sizes: list[float]) -> None:
    if value and abs(value) < _CANCELLED * max(sizes):
        raise ValueError("mostly rounding")
