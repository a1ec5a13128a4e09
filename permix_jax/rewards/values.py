"""Values: buys the cheap verdicts, exact ones by a canonical sum and wrong ones by 30 digits.

A value is a sum of monomials with rational coefficients: {monomial: coefficient}. A monomial is a
sorted tuple of (generator, exponent): letters, prime numbers under roots (exponents between 0 and
1), and whatever has no place here (sin x, 1 / (x + 1)) as a generator of its own, named by its
canonical argument. Equal sums are equal values. Unlike sums prove nothing; unlike digits do.
"""

import zlib
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial, gcd, lcm

from mpmath import MPContext

from permix_jax.rewards.expression import Node, names, negated

MAX_BITS = 8000  # of a coefficient
MAX_TERMS = 60
MAX_WORK = 3000  # products of two monomials in one evaluation
MAX_EXPONENT = 24  # of sums

Sum = dict[tuple, Fraction]

_ONE: Sum = {(): Fraction(1)}
_POSITIVE = ("\\pi", "e", "\\circ")


class TooHard(Exception):
    """Too large for this arithmetic, or not of one value."""


class Undefined(Exception):
    """A division by zero."""


@lru_cache(8192)
def canonical(node: Node) -> frozenset | None:
    """The items of the canonical sum of a tree; None where it is undefined or too large."""
    try:
        return frozenset(_Sums().value(node).items())
    except (TooHard, Undefined, RecursionError, OverflowError):
        return None


def rational(node: Node) -> Fraction | None:
    """The value of a tree that is a rational number; None for every other one."""
    if node[0] == "num":
        return node[1]
    return _rational(canonical(node))


def _rational(items: frozenset | None) -> Fraction | None:
    if not items:
        return None if items is None else Fraction(0)
    ((monomial, coefficient),) = list(items)[:1]
    return coefficient if len(items) == 1 and not monomial else None


def same_value(node: Node, gold: Node) -> bool | None:
    """Whether two expressions are equal; None where that takes algebra."""
    if node == gold:
        return True
    one, two = canonical(node), canonical(gold)
    if one is not None and one == two:
        return True
    if _rational(one) is not None and _rational(two) is not None:
        return False
    return False if differ(node, gold) else None


def proportional(node: Node, gold: Node) -> Fraction | None:
    """The rational c with node = c gold, where canonical sums show it; 0: there is surely none."""
    one, two = canonical(node), canonical(gold)
    if one and two:
        one, two = dict(one), dict(two)
        ratios = {c / two[m] for m, c in one.items()} if one.keys() == two.keys() else ()
        if len(ratios) == 1:
            return ratios.pop()
        if all(_is_polynomial(part) for part in (one, two)) and differ(node, gold, ratio=True):
            return Fraction(0)
    return None


def _is_polynomial(terms: Sum) -> bool:
    generators = [pair for monomial in terms for pair in monomial]
    return all(
        isinstance(name, int) or (isinstance(name, str) and e > 0 and e.denominator == 1)
        for name, e in generators
    )


class _Sums:
    """One evaluation, with its bounded work."""

    def __init__(self):
        self.work = 0

    def value(self, node: Node) -> Sum:
        match node:
            case ("num", number):
                return {(): _bounded(number)} if number else {}
            case ("sym", name):
                return {((name, Fraction(1)),): Fraction(1)}
            case ("+", terms):
                total: Sum = {}
                for term in terms:
                    total = _added(total, self.value(term))
                return total
            case ("*", factors):
                product = _ONE
                for factor in factors:
                    product = self.times(product, self.value(factor))
                return product
            case ("^", base, exponent):
                return self.power(self.value(base), self.value(exponent))
            case ("f", name, arguments):
                return self.call(name, [self.value(argument) for argument in arguments])
        raise TooHard

    def times(self, one: Sum, two: Sum) -> Sum:
        self.work += len(one) * len(two)
        if self.work > MAX_WORK:
            raise TooHard
        total: Sum = {}
        for monomial, coefficient in one.items():
            for other, factor in two.items():
                exponents = dict(monomial)
                for name, exponent in other:
                    exponents[name] = exponents.get(name, 0) + exponent
                total = _added(total, _monomial(exponents, coefficient * factor))
        return total

    def power(self, base: Sum, exponent: Sum) -> Sum:
        number = _rational(frozenset(exponent.items()))
        if number is None:
            return self.symbolic_power(base, exponent)
        if not base:
            if number < 0:
                raise Undefined
            return _ONE if number == 0 else {}
        if len(base) == 1:
            ((monomial, coefficient),) = base.items()
            if number.denominator == 1:
                _bounded(coefficient, abs(number.numerator))
                raised = {name: e * number for name, e in monomial}
                return _monomial(raised, coefficient**number.numerator)
            return self.root(monomial, coefficient, number)
        if 0 <= number <= MAX_EXPONENT and number.denominator == 1:
            product = _ONE
            for _ in range(number.numerator):
                product = self.times(product, base)
            return product
        outside, inside = _content(base)
        if outside < 0 and number.denominator != 1:
            outside, inside = -outside, {m: -c for m, c in inside.items()}
        return self.times(
            self.power({(): outside}, exponent), {((("+", _key(inside)), number),): Fraction(1)}
        )

    def root(self, monomial: tuple, coefficient: Fraction, power: Fraction) -> Sum:
        """A monomial to a power that is no whole number."""
        if abs(power.numerator) > 500 or power.denominator > 40:
            raise TooHard
        even, exponents, sign = power.denominator % 2 == 0, {}, Fraction(1)
        for name, e in monomial:
            plain = isinstance(name, int) or name in _POSITIVE or name[0] == "pow"
            # The root of x^2 is |x|; that of x, or of x^3, is real only where x is not negative.
            if name == "i" or not (plain or (e.denominator == 1 and (e.numerator % 2 or not even))):
                return _named("root", {monomial: coefficient}, {(): power})
            exponents[name] = e * power
        if coefficient < 0:
            if not even:
                sign = Fraction((-1) ** (power.numerator % 2))
            elif power.denominator == 2 and not any(
                names for names in exponents if isinstance(names, str) and names not in _POSITIVE
            ):
                exponents["i"] = Fraction(power.numerator)
            else:
                return _named("root", {monomial: coefficient}, {(): power})
        for prime, count in _factors(abs(coefficient)).items():
            exponents[prime] = exponents.get(prime, 0) + count * power
        return _monomial(exponents, sign)

    def symbolic_power(self, base: Sum, exponent: Sum) -> Sum:
        """e^(2x + 1) as (e^x)^2 e, for a positive base."""
        if len(base) != 1:
            return _named("power", base, exponent)
        ((monomial, coefficient),) = base.items()
        if coefficient <= 0 or any(name == "i" for name, _ in monomial):
            return _named("power", base, exponent)
        powers = dict(monomial)
        for prime, count in _factors(coefficient).items():
            powers[prime] = powers.get(prime, 0) + Fraction(count)
        exponents: dict = {}
        for name, e in powers.items():
            for term, factor in exponent.items():
                generator = ("pow", name, term) if term else name
                exponents[generator] = exponents.get(generator, 0) + e * factor
        return _monomial(exponents, Fraction(1))

    def call(self, name: str, arguments: list[Sum]) -> Sum:
        numbers = [_rational(frozenset(argument.items())) for argument in arguments]
        if None not in numbers and (known := _known_call(name, numbers)) is not None:
            return {(): known} if known else {}
        if name == "abs" and arguments[0]:
            outside, inside = _content(arguments[0])
            return self.times({(): abs(outside)}, _named("abs", inside))
        if name == "ln" and arguments[0] == {(("e", Fraction(1)),): Fraction(1)}:
            return _ONE
        return _named(name, *arguments)


def _known_call(name: str, numbers: list[Fraction]) -> Fraction | None:
    """The value of a function of rational numbers, where it is rational and small."""
    whole = all(n.denominator == 1 and 0 <= n <= 1000 for n in numbers)
    match name, len(numbers):
        case "abs", 1:
            return abs(numbers[0])
        case "floor", 1:
            return Fraction(numbers[0].__floor__())
        case "ceil", 1:
            return Fraction(numbers[0].__ceil__())
        case "factorial", 1 if whole:
            return _bounded(Fraction(factorial(int(numbers[0]))))
        case "binomial", 2 if whole:
            return _bounded(Fraction(comb(*map(int, numbers))))
        case "gcd" | "lcm", _ if whole:
            return Fraction((gcd if name == "gcd" else lcm)(*map(int, numbers)))
        case "min" | "max", _:
            return (min if name == "min" else max)(numbers)
    return None


def _added(one: Sum, two: Sum) -> Sum:
    total = dict(one)
    for monomial, coefficient in two.items():
        rest = total.get(monomial, 0) + coefficient
        if rest:
            total[monomial] = rest
        else:
            total.pop(monomial, None)
    if len(total) > MAX_TERMS:
        raise TooHard
    return total


def _monomial(exponents: dict, coefficient: Fraction) -> Sum:
    """One monomial with whole powers of primes in its coefficient and i^2 = -1."""
    kept = []
    for name, exponent in exponents.items():
        if isinstance(name, int):
            whole = exponent.__floor__()
            _bounded(Fraction(name), abs(whole))
            coefficient, exponent = coefficient * Fraction(name) ** whole, exponent - whole
        elif name == "i" and exponent.denominator == 1:
            turns = exponent.numerator % 4
            coefficient, exponent = coefficient * (-1 if turns > 1 else 1), Fraction(turns % 2)
        if exponent:
            kept.append((name, exponent))
    return {tuple(sorted(kept, key=repr)): _bounded(coefficient)} if coefficient else {}


def _named(name: str, *arguments: Sum) -> Sum:
    return {(((name, *map(_key, arguments)), Fraction(1)),): Fraction(1)}


def _key(terms: Sum) -> tuple:
    key = tuple(sorted(terms.items(), key=repr))
    if len(repr(key)) > 4000:
        raise TooHard
    return key


def _content(terms: Sum) -> tuple[Fraction, Sum]:
    """The coefficient of one fixed monomial, and the sum divided by it."""
    lead = terms[min(terms, key=repr)]
    return lead, {monomial: c / lead for monomial, c in terms.items()}


def _bounded(number: Fraction, power: int = 1) -> Fraction:
    bits = max(number.numerator.bit_length(), number.denominator.bit_length())
    if (bits - 1) * power > MAX_BITS:
        raise TooHard
    return number


def _factors(number: Fraction) -> dict[int, int]:
    """Prime factors with their exponents; TooHard where the second largest one is not small."""
    found: dict[int, int] = {}
    for part, sign in ((number.numerator, 1), (number.denominator, -1)):
        if part.bit_length() > 300:
            raise TooHard
        divisor = 2
        while divisor * divisor <= part and divisor < 3000:
            while part % divisor == 0:
                found[divisor] = found.get(divisor, 0) + sign
                part //= divisor
            divisor += 1 + divisor % 2
        if part > 1:
            if divisor * divisor <= part:
                raise TooHard
            found[part] = found.get(part, 0) + sign
    return found


# Digits: the same tree with 40 and with 80 digits; what the two agree in is its value.


def _context(digits: int) -> MPContext:
    context = MPContext()
    context.dps = digits
    return context


_LOW, _HIGH = _context(40), _context(80)
_CALLS = {
    "arcsin": "asin", "arccos": "acos", "arctan": "atan", "factorial": "factorial", "ceil": "ceil",
    "binomial": "binomial", "arsinh": "asinh", "arcosh": "acosh", "artanh": "atanh", "arccot": "acot",
    "abs": "fabs", "ln": "log", "Re": "re", "Im": "im", "arccsc": "acsc", "arcsec": "asec",
    **{name: name for name in "sin cos tan cot sec csc sinh cosh tanh coth arg floor".split()},
}  # fmt: skip
_HUGE = 10**6  # of an exponent of e


def differ(node: Node, gold: Node, ratio: bool = False) -> bool:
    """Whether two expressions surely have other values somewhere (with `ratio`: other ratios)."""
    constant = not names(node) | names(gold)
    ratios = []
    for point in ("a",) if constant else ("a", "b", "-"):
        one, two = digits(node, point), digits(gold, point)
        if one == "undefined" and constant and two != "undefined":
            return True
        if isinstance(one, str) or isinstance(two, str):
            if (
                constant
                and {one, two} & {"huge"}
                and not (isinstance(one, str) and isinstance(two, str))
            ):
                return True
            continue
        if point == "-" and (abs(one[1].imag) > 1e-30 or abs(two[1].imag) > 1e-30):
            continue
        if not ratio and _apart(one, two):
            return True
        if ratio and abs(two[1]) > 1e-20:
            ratios.append(tuple(a / b for a, b in zip(one, two, strict=True)))
            if _apart(ratios[0], ratios[-1]):
                return True
    return False


def _apart(one: tuple, two: tuple) -> bool:
    error = abs(one[0] - one[1]) + abs(two[0] - two[1])
    distance = abs(one[1] - two[1])
    return distance > 10 * error + _HIGH.mpf("1e-30") * max(abs(one[1]), abs(two[1]))


@lru_cache(8192)
def digits(node: Node, point: str) -> tuple | str:
    """(value with 40 digits, with 80 digits) at a point; else "undefined", "huge" or "unclear"."""
    try:
        return tuple(context.mpc(_digits(node, point, context)) for context in (_LOW, _HIGH))
    except ZeroDivisionError:
        return "undefined"
    except OverflowError:
        return "huge"
    except (
        ValueError,
        TypeError,
        AttributeError,
        ArithmeticError,
        NotImplementedError,
        RecursionError,
        TooHard,
    ):
        return "unclear"


def _digits(node: Node, point: str, context: MPContext):
    match node:
        case ("num", number):
            return context.mpf(number.numerator) / number.denominator
        case ("sym", "\\pi"):
            return +context.pi
        case ("sym", "e"):
            return +context.e
        case ("sym", "i"):
            return context.mpc(0, 1)
        case ("sym", "\\circ"):
            return context.pi / 180
        case ("sym", name):
            if name in ("\\varnothing", "\\ldots", "\\R"):
                raise ValueError("no number")
            crc = zlib.crc32((name + point).encode())
            value = context.mpf(crc % 9973 + 2000) / 4999
            return -value if point == "-" and crc % 3 else value
        case ("+", terms):
            return context.fsum(_digits(term, point, context) for term in terms)
        case ("*", factors):
            return context.fprod(_digits(factor, point, context) for factor in factors)
        case ("^", base, exponent):
            return _raised(base, exponent, point, context)
        case ("f", "log", arguments):
            values = [_digits(argument, point, context) for argument in arguments]
            return context.log(values[0]) / context.log(values[1] if len(values) > 1 else 10)
        case ("f", name, arguments):
            values = [_digits(argument, point, context) for argument in arguments]
            if name not in _CALLS or any(abs(value) > 1e15 for value in values):
                raise OverflowError if name in ("factorial", "sinh", "cosh") else ValueError
            if name in ("floor", "ceil") and abs(values[0] - context.nint(values[0])) < 1e-30:
                raise ValueError("at a jump")
            return getattr(context, _CALLS[name])(*values)
    raise ValueError("no number")


def _raised(base: Node, exponent: Node, point: str, context: MPContext):
    power, value = _digits(exponent, point, context), _digits(base, point, context)
    if value == 0:
        if power == 0 or context.im(power):
            raise ValueError("0^0")
        return value**power
    if abs(power) * abs(context.log(value)) > _HUGE:
        if context.re(power * context.log(value)) > _HUGE:
            raise OverflowError
        raise ValueError("too small")
    number = None if names(exponent) else rational(exponent)
    if number is not None and number.denominator % 2 and not context.im(value):
        # -2 is the real cube root of -8.
        odd = number.numerator % 2 and context.re(value) < 0
        return (-1 if odd else 1) * context.power(abs(value), power)
    return context.power(value, power)


def difference(relation: Node) -> Node:
    """left - right of a relation of two expressions."""
    left, right = relation[2]
    return ("+", (left, negated(right)))
