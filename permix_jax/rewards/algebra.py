"""Exact arithmetic on expressions, wide enough for most answers and far cheaper than sympy.

A value is a quotient of two sums of `sums.py`. What has no place there (sin 1, the root of a sum)
becomes an opaque generator of its own: equal forms then still prove equality, but unlike ones prove
nothing.
"""

from fractions import Fraction
from functools import lru_cache
from math import comb, factorial
from typing import NamedTuple

from permix_jax.rewards.expression import Node
from permix_jax.rewards.sums import (
    IMAGINARY,
    ONE,
    OPAQUE,
    Sum,
    TooHard,
    add,
    bounded,
    canonical,
    factors,
    is_opaque,
    mul,
    negative,
    start_work,
    without_denominators,
)

MAX_EXPONENT = 40  # of sums; numbers and monomials are bounded by their bits
MAX_FACTORIAL = 2100

_POSITIVE = ("#", "\\pi", "e")


class Undefined(TooHard):
    """A division by zero."""


class Value(NamedTuple):
    """`top` / `bottom`; `bottom` is {(): 1} wherever it would be one monomial."""

    top: Sum
    bottom: Sum


def same_value(node: Node, gold: Node) -> bool | None:
    """Whether two expressions are equal; None where this arithmetic cannot tell."""
    value, other = evaluate(node), evaluate(gold)
    if value is None or other is None:
        return None
    start_work()
    try:
        if value.bottom == other.bottom:
            rest = add(value.top, negative(other.top))
        else:
            rest = add(mul(value.top, other.bottom), negative(mul(other.top, value.bottom)))
    except TooHard:
        return None
    return True if not rest else None if is_opaque(rest) else False


def proportional(node: Node, gold: Node, equation: bool) -> Fraction | None:
    """The rational c with node = c gold; 0 where there is none, None where that is unknown.

    Where node = 0 and gold = 0 are an `equation` each, both are multiplied by their denominators
    first; the sign of a denominator, which an inequality would need, is not known.
    """
    value, other = evaluate(node), evaluate(gold)
    if value is None or other is None or (not equation and value.bottom != other.bottom):
        return None
    one, two = value.top, other.top
    if equation:
        one, two = without_denominators(one), without_denominators(two)
    if one and one.keys() == two.keys():
        ratios = {coefficient / two[monomial] for monomial, coefficient in one.items()}
        if len(ratios) == 1:
            return ratios.pop()
    return None if is_opaque(one) or is_opaque(two) else Fraction(0)


@lru_cache(8192)
def evaluate(node: Node) -> Value | None:
    """The canonical value of a tree; None where it is undefined or too large."""
    start_work()
    try:
        return _value(node)
    except (TooHard, RecursionError):
        return None


def is_undefined(node: Node) -> bool:
    """Whether an expression divides by zero."""
    start_work()
    try:
        _value(node)
    except Undefined:
        return True
    except (TooHard, RecursionError):
        pass
    return False


def rational(node: Node) -> Fraction | None:
    """The value of a tree that is a rational number; None for every other one."""
    value = evaluate(node)
    if value is None or value.bottom != ONE or any(value.top):
        return None
    return value.top.get((), Fraction(0))


def _value(node: Node) -> Value:
    match node:
        case ("number", number):
            return _rational(number)
        case ("symbol", name):
            return _generator(name)
        case ("infinity",):
            return _generator("\\infty")
        case ("sum", terms):
            return _sum([_value(term) for term in terms])
        case ("product", parts):
            product = _value(parts[0])
            for factor in parts[1:]:
                product = _times(product, _value(factor))
            return product
        case ("power", base, exponent):
            return _power(_value(base), _value(exponent))
        case ("root", degree, radicand):
            degree = _as_rational(_value(degree))
            if degree is None or degree.denominator != 1 or not 2 <= degree <= 20:
                raise TooHard
            return _root(_value(radicand), int(degree))
        case ("call", name, arguments):
            return _call(name, [_value(argument) for argument in arguments])
    raise TooHard


def _sum(values: list[Value]) -> Value:
    top, bottom = values[0]
    for value in values[1:]:
        if value.bottom == bottom:
            top = add(top, value.top)
        else:
            top = add(mul(top, value.bottom), mul(value.top, bottom))
            bottom = mul(bottom, value.bottom)
    return _reduced(top, bottom)


def _times(one: Value, two: Value) -> Value:
    return _reduced(mul(one.top, two.top), mul(one.bottom, two.bottom))


def _inverse(value: Value) -> Value:
    if not value.top:
        raise Undefined
    return _reduced(value.bottom, value.top)


def _reduced(top: Sum, bottom: Sum) -> Value:
    """A bottom of one monomial is divided out; a longer one is scaled to a leading 1."""
    if bottom == ONE:
        return Value(top, bottom)
    if len(bottom) == 1:
        ((monomial, coefficient),) = bottom.items()
        inverse = tuple((name, -exponent) for name, exponent in monomial)
        return Value(mul(top, canonical(inverse, 1 / coefficient)), ONE)
    if not bottom:
        raise TooHard
    lead = bottom[min(bottom)]
    return Value(
        {monomial: c / lead for monomial, c in top.items()},
        {monomial: c / lead for monomial, c in bottom.items()},
    )


def _power(base: Value, exponent: Value) -> Value:
    power = _as_rational(exponent)
    if power is None and base == _generator("e"):
        angle = _times(exponent, _power(_generator(IMAGINARY), _rational(-1)))
        cosine, sine = _trigonometric("cos", angle), _trigonometric("sin", angle)
        if cosine and sine:
            return _sum([cosine, _times(_generator(IMAGINARY), sine)])
    if power is None:
        return _opaque("pow", [base, exponent])
    if power.denominator == 1:
        return _integer_power(base, int(power))
    if power.denominator > 20:
        raise TooHard
    number = _as_rational(base)
    if number is not None and number < 0:
        raise TooHard  # which of the complex roots is meant is not said
    return _integer_power(_root(base, power.denominator), power.numerator)


def _integer_power(base: Value, power: int) -> Value:
    if power < 0:
        return _integer_power(_inverse(base), -power)
    if power > 1 and len(base.top) == 1 and base.bottom == ONE:
        ((monomial, coefficient),) = base.top.items()
        bounded(coefficient, power)
        raised = tuple((name, exponent * power) for name, exponent in monomial)
        return Value(canonical(raised, coefficient**power), ONE)
    if power > MAX_EXPONENT:
        raise TooHard
    result = Value(ONE, ONE)
    while power:
        if power % 2:
            result = _times(result, base)
        power //= 2
        base = _times(base, base) if power else base
    return result


def _root(radicand: Value, degree: int) -> Value:
    if not radicand.top:
        return radicand
    if len(radicand.top) > 1 or radicand.bottom != ONE:
        return _opaque_root(radicand, degree)
    ((monomial, coefficient),) = radicand.top.items()
    for name, exponent in monomial:
        # The root of x^2 is |x|; that of x, or of x^3, is real only where x is not negative.
        odd = exponent.denominator == 1 and (exponent.numerator % 2 or degree % 2)
        if name.startswith(OPAQUE) or not (name.startswith(_POSITIVE) or odd):
            return _opaque("root", [radicand, _rational(degree)])
        if name == IMAGINARY:
            raise TooHard
    sign: Sum = ONE
    if coefficient < 0:
        if degree % 2:
            sign = {(): Fraction(-1)}
        elif degree == 2 and not any(not n.startswith(_POSITIVE) for n, _ in monomial):
            sign = {((IMAGINARY, Fraction(1)),): Fraction(1)}
        else:
            return _opaque("root", [radicand, _rational(degree)])
    coefficient = abs(coefficient)
    primes = {**factors(coefficient.numerator)}
    for prime, count in factors(coefficient.denominator).items():
        primes[prime] = primes.get(prime, 0) - count
    names = dict(monomial)
    for prime, count in primes.items():
        names[f"#{prime}"] = names.get(f"#{prime}", Fraction(0)) + count
    rooted = tuple((name, exponent / degree) for name, exponent in sorted(names.items()))
    return Value(mul(sign, canonical(rooted, Fraction(1))), ONE)


def _opaque_root(radicand: Value, degree: int) -> Value:
    """The root of a sum: a positive rational factor of the sum is taken out first."""
    top, bottom = radicand
    if bottom == ONE:
        content = abs(top[min(top)])
        outside = _root(_rational(content), degree)
        inside = Value({monomial: c / content for monomial, c in top.items()}, ONE)
        return _times(outside, _opaque("root", [inside, _rational(degree)]))
    return _opaque("root", [radicand, _rational(degree)])


def _call(name: str, arguments: list[Value]) -> Value:
    numbers = [_as_rational(argument) for argument in arguments]
    if name in ("sin", "cos", "tan", "cot", "sec", "csc"):
        if known := _trigonometric(name, arguments[0]):
            return known
    if name == "exp":
        return _power(_generator("e"), arguments[0])
    if name == "abs" and numbers[0] is not None:
        return _rational(abs(numbers[0]))
    if name in ("factorial", "binomial") and all(
        n is not None and n.denominator == 1 and 0 <= n <= MAX_FACTORIAL for n in numbers
    ):
        counts = [int(n) for n in numbers if n is not None]
        result = factorial(counts[0]) if name == "factorial" else comb(*counts)
        return _rational(result)
    if name in ("floor", "ceil") and numbers[0] is not None:
        whole = numbers[0].__floor__() if name == "floor" else numbers[0].__ceil__()
        return _rational(whole)
    return _opaque(name, arguments)


def _trigonometric(name: str, angle: Value) -> Value | None:
    """sin, cos, tan and their inverses of multiples of pi / 12; None of other angles."""
    turn = _as_rational(_times(angle, _power(_generator("\\pi"), _rational(-1))))
    twelfths = None if turn is None else turn * 12
    if twelfths is None or twelfths.denominator != 1:
        return None
    sine, cosine = _cosine(int(twelfths) - 6), _cosine(int(twelfths))
    match name:
        case "sin":
            return sine
        case "cos":
            return cosine
        case "tan":
            return _times(sine, _inverse(cosine))
        case "cot":
            return _times(cosine, _inverse(sine))
        case "sec":
            return _inverse(cosine)
        case "csc":
            return _inverse(sine)
    return None


def _cosine(twelfths: int) -> Value:
    """The cosine of a multiple of pi / 12."""
    twelfths = abs(twelfths) % 24
    twelfths = min(twelfths, 24 - twelfths)
    sign = Fraction(-1 if twelfths > 6 else 1)
    two, three, six = (_root(_rational(n), 2).top for n in (2, 3, 6))
    quarter = {(): sign / 4}
    match min(twelfths, 12 - twelfths):
        case 0:
            return _rational(sign)
        case 1:
            return Value(mul(quarter, add(six, two)), ONE)
        case 2:
            return Value(mul({(): sign / 2}, three), ONE)
        case 3:
            return Value(mul({(): sign / 2}, two), ONE)
        case 4:
            return _rational(sign / 2)
        case 5:
            return Value(mul(quarter, add(six, negative(two))), ONE)
    return _rational(0)


def _opaque(name: str, arguments: list[Value]) -> Value:
    key = ";".join(
        "/".join(
            "+".join(f"{c.numerator:x}:{c.denominator:x}{m}" for m, c in sorted(part.items()))
            for part in argument
        )
        for argument in arguments
    )
    if len(key) > 2000:
        raise TooHard
    return _generator(f"{OPAQUE}{name}({key})")


def _rational(number: Fraction | int) -> Value:
    return Value({(): Fraction(number)} if number else {}, ONE)


def _generator(name: str) -> Value:
    return Value({((name, Fraction(1)),): Fraction(1)}, ONE)


def _as_rational(value: Value) -> Fraction | None:
    if value.bottom == ONE and not any(value.top):
        return value.top.get((), Fraction(0))
    return None
