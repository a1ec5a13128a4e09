"""Values: buys the cheap verdicts, right ones by exact arithmetic and wrong ones by 30 digits.

`exact` evaluates a tree in rational numbers, with a large random number for each letter and each
part that is no rational number (sin x, the root of 2), chosen by that part's own value. Two trees
that meet there are equal, but for a chance of about 2^-50. That they do not meet proves something
only where no such part was met; else unlike digits do.
"""

import hashlib
import zlib
from fractions import Fraction
from functools import lru_cache
from math import comb, factorial, gcd, isqrt, lcm

from mpmath import MPContext

from permix_jax.rewards.nodes import ONE, Node, inverse, names, negated, times

MAX_BITS = 20_000
MAX_OWN_DIGITS = 100
MAX_FRACTIONS = 6  # that are put over one denominator
CONSTANTS = ("\\pi", "e", "i", "\\circ")

_CALLS = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arsinh": "asinh", "ln": "log",
          "arcosh": "acosh", "artanh": "atanh", "abs": "fabs", "Re": "re", "Im": "im"}  # fmt: skip
_CALLS |= {
    name: name
    for name in "sin cos tan cot sec csc sinh cosh tanh coth arg floor ceil factorial binomial "
    "zeta gamma".split()
}
_LARGEST = dict.fromkeys(("gamma", "factorial", "binomial"), 1e6) | dict.fromkeys(
    ("tanh", "coth"), 50
)
_LARGEST["zeta"] = 100
_POINTS = ("a", "b", "-a", "-b", "c")  # letters are positive, some negative, or large odd numbers


class _TooHard(Exception):
    """Too large for this arithmetic, or not of one value."""


@lru_cache(8192)
def exact(node: Node, seed: int = 0) -> tuple[Fraction, bool] | None:
    """(value at a random point, whether all of it was rational); None: undefined or too large."""
    met: list[Node] = []
    try:
        return _exact(node, seed, met), not met
    except (_TooHard, ZeroDivisionError, OverflowError, RecursionError):
        return None


def rational(node: Node) -> Fraction | None:
    """The value of a tree that is a rational number; None for every other one."""
    found = None if names(node) else exact(node)
    return found[0] if found and found[1] else None


def same_value(node: Node, gold: Node) -> bool:
    """Whether two expressions are equal."""
    one, two = exact(node), exact(gold)
    if node == gold or (one and two and (one[0] == two[0] or one[1] and two[1])):
        return node == gold or one[0] == two[0]
    return not differ(node, gold) and agree(node, gold)


def ratio(node: Node, gold: Node) -> Fraction | None:
    """The rational c with node = c gold; 0 for unlike polynomials; None where that is not shown."""
    points = [(exact(node, seed), exact(gold, seed)) for seed in (0, 1)]
    if not all(one and two and two[0] for one, two in points):
        return None
    first, second = (one[0] / two[0] for one, two in points)
    plain = all(side[1] for pair in points for side in pair) and "Fraction(-" not in _powers(
        (node, gold)
    )
    return first if first == second else Fraction(0) if plain else None


def top(node: Node) -> Node | None:
    """The numerator of a node as one fraction, for y = 1/x is x y = 1; None for many fractions."""
    return _fraction(node)[0] if _powers(node).count("Fraction(-") <= MAX_FRACTIONS else None


def _fraction(node: Node) -> tuple[Node, Node]:
    match node:
        case ("+", terms):
            tops, bottoms = zip(*map(_fraction, terms), strict=True)
            others = [
                times(ONE, *(b for j, b in enumerate(bottoms) if j != i)) for i in range(len(tops))
            ]
            return ("+", tuple(times(t, o) for t, o in zip(tops, others, strict=True))), times(
                ONE, *bottoms
            )
        case ("*", factors):
            tops, bottoms = zip(*map(_fraction, factors), strict=True)
            return times(ONE, *tops), times(ONE, *bottoms)
        case ("^", base, ("num", power)) if power < 0 and power.denominator == 1:
            numerator, bottom = _fraction(base)
            return ("^", bottom, ("num", -power)), ("^", numerator, ("num", -power))
    return node, inverse(inverse(ONE))


def _powers(tree: tuple) -> str:
    """The exponents of a tree, written out."""
    inner = "".join(_powers(part) for part in tree if isinstance(part, tuple))
    return inner + (repr(tree[2]) if tree[0] == "^" else "")


def difference(relation: Node) -> Node:
    """left - right of a relation of two expressions."""
    left, right = relation[2]
    return ("+", (left, negated(right)))


def _random(key: object) -> Fraction:
    digest = hashlib.blake2b(repr(key).encode(), digest_size=7).digest()
    return Fraction(int.from_bytes(digest) | 1)


def _exact(node: Node, seed: int, met: list) -> Fraction:
    match node:
        case ("num", value):
            return value
        case ("sym", name):
            met += [node] if name in CONSTANTS else []
            return _random((name, 0 if name in CONSTANTS else seed))
        case ("+" | "*" as sign, parts):
            total = Fraction(sign == "*")
            for part in parts:
                value = _exact(part, seed, met)
                total = total + value if sign == "+" else total * value
                if max(total.numerator.bit_length(), total.denominator.bit_length()) > MAX_BITS:
                    raise _TooHard
            return total
        case ("^", ("^", base, inner), outer) if (rational(base) or 0) > 0 and rational(inner):
            return _exact(("^", base, ("*", (inner, outer))), seed, met)  # 1 / sqrt 10
        case ("^", base, exponent):
            return _power(_exact(base, seed, met), _exact(exponent, seed, met), node, met)
        case ("f", name, arguments):
            values = [_exact(argument, seed, met) for argument in arguments]
            known = _known(name, values) if None not in map(rational, arguments) else None
            if known is None:
                met.append(node)
                return _random((name, [abs(v) if name == "abs" else v for v in values]))
            return known
    raise _TooHard


def _power(base: Fraction, exponent: Fraction, node: Node, met: list) -> Fraction:
    known = rational(node[1]) is not None
    if exponent.denominator == 1:
        bits = max(base.numerator.bit_length(), base.denominator.bit_length()) - 1
        if abs(exponent.numerator) * bits <= MAX_BITS:
            return base**exponent.numerator
        if known:
            raise _TooHard
    elif exponent.denominator == 2 and base > 0 and known:
        # the root of 8/9 is 2/9 times that of 18; of large numbers only small squares go out
        inside, outside = base.numerator * base.denominator, Fraction(1, base.denominator)
        for divisor in (isqrt(inside), *range(min(isqrt(inside), 1000), 1, -1)):
            if divisor and inside % divisor**2 == 0:
                inside, outside = inside // divisor**2, outside * divisor
                break
        met += [node] if inside > 1 else []
        root = outside * (_random(("root", inside)) if inside > 1 else 1)
        return root * base ** (exponent.numerator // 2)
    met.append(node)
    return _random(("^", base, exponent))


def _known(name: str, values: list[Fraction]) -> Fraction | None:
    """The value of a function of rational numbers, where it is rational and small."""
    if name in ("min", "max"):
        return (min if name == "min" else max)(values)
    if name in ("abs", "floor", "ceil") and len(values) == 1:
        return Fraction(getattr(values[0], f"__{name}__")())
    if name in ("gcd", "lcm") and all(value.denominator == 1 for value in values):
        return Fraction((gcd if name == "gcd" else lcm)(*map(int, values)))
    whole = all(value.denominator == 1 and 0 <= value <= 1000 for value in values)
    if whole and (name, len(values)) in (("factorial", 1), ("binomial", 2)):
        return Fraction((factorial if name == "factorial" else comb)(*map(int, values)))
    return None


def _context(places: int) -> MPContext:
    context = MPContext()
    context.dps = places
    return context


# The same tree in two precisions: what the two agree in is its value.
_SHORT, _LONG = (_context(40), _context(80)), (_context(170), _context(200))


def differ(node: Node, gold: Node) -> bool:
    """Whether two expressions surely have other values at a point."""
    constant = not (names(node) | names(gold))
    for point in _POINTS[: 1 if constant else 3]:
        one, two = digits(node, point), digits(gold, point)
        if isinstance(one, str) or isinstance(two, str):
            # a division by zero is no number, and a huge number none that can be written out
            if constant and not isinstance(two, str) and one in ("undefined", "huge"):
                return True
            continue
        error = abs(one[0] - one[1]) + abs(two[0] - two[1])
        if abs(one[1] - two[1]) > 10 * error + 1e-30 * max(abs(one[1]), abs(two[1])):
            return True
    return False


def agree(node: Node, gold: Node) -> bool:
    """Whether two expressions have 150 equal digits wherever the gold one is real.

    Where only the gold one is, roots and logarithms of the other one have arguments that are not
    positive; that is let pass, but not where the gold one says |x|.
    """
    if sum(c.isdigit() for c in repr((node, gold))) > MAX_OWN_DIGITS:
        return False
    met, strict = 0, "'abs'" in repr(gold)
    for point in _POINTS if names(node) | names(gold) else _POINTS[:1]:
        one, two = digits(node, point, _LONG), digits(gold, point, _LONG)
        passed = point == "c" or (point[0] == "-" and not strict)
        if isinstance(two, str) or (one == "unclear" and passed):
            continue
        if isinstance(one, str) or abs(one[1] - two[1]) > _LONG[1].mpf("1e-150") * (
            1 + abs(two[1])
        ):
            return False
        met += 1
    return met > 0


@lru_cache(8192)
def digits(node: Node, point: str, contexts: tuple = _SHORT) -> tuple | str:
    """The value at a point in each of two precisions; else "undefined", "huge" or "unclear"."""
    try:
        return tuple(context.mpc(_digits(node, point, context)) for context in contexts)
    except ZeroDivisionError:
        return "undefined"
    except OverflowError:
        return "huge"
    except Exception:  # mpmath raises errors of many kinds where a function is not defined
        return "unclear"


def place(node: Node):
    """Where a constant lies on the real line; None for what is none."""
    found = "" if names(node) else digits(node, "a")
    return None if isinstance(found, str) or abs(found[1].imag) > 1e-30 else found[1].real


def _digits(node: Node, point: str, context: MPContext):
    match node:
        case ("num", number):
            return context.mpf(number.numerator) / number.denominator
        case ("sym", "\\pi" | "e" | "i" | "\\circ" as name):
            known = {"\\pi": context.pi, "e": context.e, "i": context.j, "\\circ": context.pi / 180}
            return known[name] + 0
        case ("sym", name):
            crc = zlib.crc32((name + point[-1]).encode())
            if point == "c":
                return context.mpf(2 * (crc % 89) + 701)
            return context.mpf(crc % 9973 + 2000) / (-4999 if point[0] == "-" and crc % 3 else 4999)
        case ("+", terms):
            values = [_digits(term, point, context) for term in terms]
            smallest = max(map(abs, values)) * context.mpf("1e-60")
            if any(value and abs(value) < smallest for value in values):
                raise ValueError("too small to be told from 0")
            return context.fsum(values)
        case ("*", factors):
            return context.fprod(_digits(factor, point, context) for factor in factors)
        case ("^", base, exponent):
            return _raised(base, exponent, point, context)
        case ("f", name, arguments):
            values = [_digits(argument, point, context) for argument in arguments]
            if name in ("log", "ln") and point[0] == "-" and context.re(values[0]) <= 0:
                raise ValueError("not real")
            if name == "log":
                return context.log(values[0]) / context.log(values[1] if values[1:] else 10)
            if name in ("min", "max"):
                return (min if name == "min" else max)(values)
            if any(abs(value) > _LARGEST.get(name, 1e15) for value in values):
                raise (
                    OverflowError if name in ("factorial", "sinh", "cosh", "gamma") else ValueError
                )
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
    size = context.re(power * context.log(value))
    if abs(size) > 10**6:
        raise OverflowError if size > 0 else ValueError
    number = rational(exponent)
    if number is not None and number.denominator % 2 and not context.im(value):
        odd = number.numerator % 2 and context.re(value) < 0  # the real cube root of -8 is -2
        return (-1 if odd else 1) * context.power(abs(value), power)
    if point[0] == "-" and names(base) and not context.im(value) and context.re(value) < 0:
        raise ValueError("not real")
    return context.power(value, power)
