r"""Sums of monomials with rational coefficients, in one canonical form.

A monomial is a product of generators with rational exponents: letters, \pi, e, the imaginary unit,
and prime numbers under roots ("#2", with exponents between 0 and 1). Products of distinct real
radicals of primes are linearly independent over the rationals (Besicovitch 1940), and letters and
\pi are taken as independent of them and of each other, so that a value is zero only where its sum
is empty. Opaque generators stand for everything else; of them nothing is known but their name.
"""

import threading
from fractions import Fraction
from functools import lru_cache

MAX_BITS = 24_000  # of a coefficient
MAX_TERMS = 200
MAX_WORK = 2_000  # products of two monomials in one evaluation

OPAQUE = "@"
IMAGINARY = "i"

Monomial = tuple[tuple[str, Fraction], ...]
Sum = dict[Monomial, Fraction]

ONE: Sum = {(): Fraction(1)}
_work = threading.local()


class TooHard(Exception):
    """Too large for this arithmetic, or not of one value."""


def start_work() -> None:
    """Allows this thread MAX_WORK from here on."""
    _work.left = MAX_WORK


def add(one: Sum, two: Sum) -> Sum:
    """Their sum; raises TooHard."""
    total = dict(one)
    _add_into(total, two)
    if len(total) > MAX_TERMS:
        raise TooHard
    return total


def negative(terms: Sum) -> Sum:
    """-1 times it."""
    return {monomial: -coefficient for monomial, coefficient in terms.items()}


def mul(one: Sum, two: Sum) -> Sum:
    """Their product; raises TooHard."""
    if one == ONE:
        return two
    if two == ONE:
        return one
    _spend(one, two)
    total: Sum = {}
    for monomial, coefficient in one.items():
        for other, factor in two.items():
            exponents = dict(monomial)
            for name, exponent in other:
                exponents[name] = exponents.get(name, 0) + exponent
            product = canonical(tuple(sorted(exponents.items())), coefficient * factor)
            _add_into(total, product)
    if len(total) > MAX_TERMS:
        raise TooHard
    return total


def _add_into(total: Sum, terms: Sum) -> None:
    for monomial, coefficient in terms.items():
        rest = total.get(monomial, 0) + coefficient
        if rest:
            total[monomial] = rest
        else:
            total.pop(monomial, None)


def _spend(one: Sum, two: Sum) -> None:
    """Takes a multiplication off the work that is left to this thread."""
    sizes = (max(c.numerator.bit_length() for c in terms.values()) for terms in (one, two) if terms)
    _work.left -= len(one) * len(two) * (1 + sum(sizes) // 500)
    if _work.left < 0:
        raise TooHard


def canonical(monomial: Monomial, coefficient: Fraction) -> Sum:
    """One monomial with whole powers of primes in its coefficient and i^2 = -1."""
    kept = []
    for name, exponent in monomial:
        if name.startswith("#"):
            whole = exponent.__floor__()
            bounded(Fraction(int(name[1:])), abs(whole))
            coefficient *= Fraction(int(name[1:])) ** whole
            exponent -= whole
        elif name == IMAGINARY and exponent.denominator == 1:
            turns = exponent.numerator % 4
            coefficient *= -1 if turns > 1 else 1
            exponent = Fraction(turns % 2)
        if exponent:
            kept.append((name, exponent))
    bounded(coefficient, 1)
    return {tuple(kept): coefficient} if coefficient else {}


def bounded(number: Fraction, power: int) -> None:
    """Raises TooHard where number**power has more than MAX_BITS."""
    bits = max(number.numerator.bit_length(), number.denominator.bit_length())
    if (bits - 1) * power > MAX_BITS:
        raise TooHard


def is_opaque(terms: Sum) -> bool:
    """Whether it holds a generator of which nothing is known."""
    return any(name.startswith(OPAQUE) for monomial in terms for name, _ in monomial)


def without_denominators(terms: Sum) -> Sum:
    """A sum multiplied by the smallest monomial of letters that leaves no negative exponent."""
    lowest: dict[str, Fraction] = {}
    for monomial in terms:
        for name, _ in monomial:
            lowest.setdefault(name, min(dict(m).get(name, Fraction(0)) for m in terms))
    divisor = {name: exponent for name, exponent in lowest.items() if exponent < 0}
    if not divisor:
        return terms
    divided = {}
    for monomial, coefficient in terms.items():
        exponents = dict(monomial)
        for name, exponent in divisor.items():
            exponents[name] = exponents.get(name, Fraction(0)) - exponent
        divided[tuple(sorted((n, e) for n, e in exponents.items() if e))] = coefficient
    return divided


@lru_cache(1024)
def factors(number: int) -> dict[int, int]:
    """The prime factors of a number whose second largest one is small; TooHard for others."""
    found: dict[int, int] = {}
    divisor = 2
    while divisor * divisor <= number and divisor < 5000:
        while number % divisor == 0:
            found[divisor] = found.get(divisor, 0) + 1
            number //= divisor
        divisor += 1 + divisor % 2
    if number > 1:
        if divisor * divisor <= number:
            raise TooHard
        found[number] = 1
    return found
