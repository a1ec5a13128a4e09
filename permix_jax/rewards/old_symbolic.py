r"""Equality that takes algebra: math-verify on sympy. Slow, and run in worker processes only.

The text of an answer never reaches sympy. It is parsed by `structure.py` and `expression.py`, whose
rules for lists, sets, tuples and intervals hold here as well, and what is left to math-verify is
pairs of expressions, written anew in LaTeX from their trees: numbers as exact
fractions, letters renamed, nothing else. So no attribute, import or file has a name here, and what
math-verify is lenient in cannot be used: it would round decimals, drop trailing units, ignore the
case of letters and the degree sign, take a value for an equation and any of several answers.

Every verdict is right or wrong. What neither `exact.py` nor math-verify can show to be equal is
wrong; so a gold answer that is too large for sympy is met by what is equal to it exactly.
"""

import logging
import math
from fractions import Fraction

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Basic, Expr, Rational
from sympy.core.cache import clear_cache
from sympy.core.evalf import PrecisionExhausted
from sympy.core.random import seed

from permix_jax.rewards import exact, latex, structure
from permix_jax.rewards.algebra import MAX_FACTORIAL, rational
from permix_jax.rewards.expression import Node, children, negated
from permix_jax.rewards.expression import parse as parse_expression
from permix_jax.rewards.steps import counted
from permix_jax.rewards.structure import Relation

MAX_CHARS = 4 * latex.MAX_ANSWER_CHARS  # a canonical spelling is longer
MAX_NODES = 120
MAX_BITS = 2000  # of numbers
MAX_SHIFT = 50  # in (n + shift)!, which sympy multiplies out

# Without normalization: it repairs what people write, and drops units; nothing here needs repair.
_LATEX_ONLY = [
    LatexExtractionConfig(
        boxed_match_priority=-1,
        normalization_config=NormalizationConfig(
            basic_latex=False,
            units=False,
            malformed_operators=False,
            nits=False,
            boxed="none",
            equations=False,
        ),
    )
]
_LETTERS = "abcfghjkmnpqrstuvwxyz"  # none that latex2sympy reads as a constant or a differential

logging.getLogger("math_verify").setLevel(logging.CRITICAL)


class _Untamed(Exception):
    """An expression too large to be handed to sympy, or undefined."""


def equivalent(answer: str, gold: str) -> bool:
    """Whether two answers, as `grade.py` writes them, are equal. May take for ever.

    Raises OutOfSteps where `steps.allow` was called and the algebra takes more than that.
    """
    tokens, gold_tokens = latex.read(answer, MAX_CHARS), latex.read(gold, MAX_CHARS)
    if not tokens or not gold_tokens:
        return False
    tree, gold_tree = structure.parse(tokens), structure.parse(gold_tokens)
    return structure.same(tree, gold_tree, _same_leaf, _same_relation) is True


def _same_leaf(tokens: latex.Tokens, gold: latex.Tokens) -> bool:
    verdict = exact.same_leaf(tokens, gold)
    if verdict is not None:
        return verdict
    return _verified(parse_expression(tokens), parse_expression(gold))


def _same_relation(one: Relation, two: Relation) -> bool:
    """Whether left - right is the same for both, for equations up to its sign.

    math-verify would solve both instead, which takes minutes where it ends at all.
    """
    verdict = exact.same_relation(one, two, _same_leaf)
    if verdict is not None or one.signs != two.signs:
        return verdict is True
    rest, gold_rest = exact.difference(one), exact.difference(two)
    either = [gold_rest, negated(gold_rest)] if one.signs[0] in ("=", "\\ne") else [gold_rest]
    return any(_verified(rest, other) for other in either)


def _verified(answer: Node, gold: Node) -> bool:
    """What math-verify says of two expressions; False for what it is not to see.

    It begins with empty caches and the same random numbers every time. So the steps that it takes
    hardly depend on what this process did before.
    """
    names: dict[str, str] = {}
    try:
        gold_parsed, parsed = (_parse(_latex(_tame(node), names)) for node in (gold, answer))
    except _Untamed:
        return False
    if not parsed or not gold_parsed:
        return False
    clear_cache()
    seed(0)
    return counted(_compare, parsed, gold_parsed)


def _compare(parsed: list, gold: list) -> bool:
    if _differ(parsed[0], gold[0]):
        return False
    return verify(
        gold,
        parsed,
        numeric_precision=30,
        strict=True,
        allow_set_relation_comp=False,
        timeout_seconds=None,
    )


def _differ(one: Basic, two: Basic) -> bool:
    """Whether two expressions certainly have other values at one point, by digits alone.

    sympy bounds the error of its digits: it computes with up to 60 of them to be sure of 3. That
    takes milliseconds, where algebra may find no end. Letters stand for positive numbers.
    """
    if not isinstance(one, Expr) or not isinstance(two, Expr):
        return False
    difference = one - two
    letters = sorted(difference.free_symbols, key=str)
    point = {letter: Rational(618 + 97 * i, 1000) for i, letter in enumerate(letters)}
    try:
        digits = difference.subs(point).evalf(3, maxn=60, strict=True)
    except PrecisionExhausted:
        return False
    return any(part.is_Float and abs(part) > 1e-30 for part in digits.as_real_imag())


def _parse(text: str) -> list:
    # math-verify's own timeouts are signals, which only the main thread of a process gets.
    return parse(
        f"${text}$",
        _LATEX_ONLY,
        fallback_mode="no_fallback",
        extraction_mode="first_match",
        parsing_timeout=None,
    )


def _tame(node: Node) -> Node:
    if _guard(node) > MAX_NODES:
        raise _Untamed
    return node


def _guard(node: Node) -> int:
    """The number of nodes; raises _Untamed where a number is huge or a divisor zero."""
    match node:
        case ("number", value):
            if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
                raise _Untamed
            return 1
        case ("symbol", _) | ("infinity",):
            return 1
        case ("sum" | "product", parts):
            return 1 + sum(map(_guard, parts))
        case ("power", base, exponent):
            count = 1 + _guard(base) + _guard(exponent)
            _guard_power(base, exponent)
            return count
        case ("root", degree, radicand):
            if not 2 <= (rational(degree) or 0) <= 100:
                raise _Untamed
            return 1 + _guard(degree) + _guard(radicand)
        case ("call", name, arguments):
            if name in ("factorial", "binomial") and not all(map(_is_countable, arguments)):
                raise _Untamed
            return 1 + sum(map(_guard, arguments))
    raise _Untamed


def _is_countable(node: Node) -> bool:
    """Whether sympy may expand the factorial of this: n + 2 and 20, but not n + 9!."""
    value = rational(node)
    if value is not None:
        return value.denominator == 1 and abs(value) <= MAX_FACTORIAL
    parts = children(node)
    if any((rational(part) or 0) > MAX_SHIFT for part in parts):
        return False
    return node[0] in ("symbol", "sum", "product") and all(map(_is_countable, parts))


def _guard_power(base: Node, exponent: Node) -> None:
    power, number = rational(exponent), rational(base)
    if number == 0 and power is not None and power < 0:
        raise _Untamed  # a division by zero
    if power is None:
        if exponent[0] == "power" and exponent[2][0] == "power":
            raise _Untamed  # a tower
        return
    if abs(power) > MAX_BITS or (number is None and abs(power) > 60):
        raise _Untamed
    if (
        number
        and abs(power) * math.log2(max(2, abs(number.numerator), number.denominator)) > MAX_BITS
    ):
        raise _Untamed


def _latex(node: Node, names: dict[str, str]) -> str:
    match node:
        case ("number", value):
            return _fraction(value)
        case ("infinity",):
            return "\\infty"
        case ("symbol", "i"):
            return "I"
        case ("symbol", "\\pi" | "e" as name):
            return name
        case ("symbol", name):
            if name not in names and len(names) == len(_LETTERS):
                raise _Untamed
            return names.setdefault(name, _LETTERS[min(len(names), len(_LETTERS) - 1)])
        case ("sum", terms):
            return " + ".join(f"({_latex(term, names)})" for term in terms)
        case ("product", factors):
            return " \\cdot ".join(f"({_latex(factor, names)})" for factor in factors)
        case ("power", base, ("number", Fraction(numerator=-1, denominator=1))):
            return f"\\frac{{1}}{{{_latex(base, names)}}}"
        case ("power", ("symbol", "e"), exponent):
            return f"e^{{{_latex(exponent, names)}}}"
        case ("power", base, exponent):
            return f"({_latex(base, names)})^{{{_latex(exponent, names)}}}"
        case ("root", degree, radicand):
            return f"\\sqrt[{_latex(degree, names)}]{{{_latex(radicand, names)}}}"
        case ("call", name, arguments):
            return _call(name, [_latex(argument, names) for argument in arguments])
    raise _Untamed


def _call(name: str, arguments: list[str]) -> str:
    first = arguments[0]
    match name:
        case "abs":
            return f"\\lvert {first} \\rvert"
        case "floor" | "ceil":
            return f"\\l{name} {first} \\r{name}"
        case "factorial":
            return f"({first})!"
        case "binomial":
            return f"\\binom{{{first}}}{{{arguments[1]}}}"
        case "exp":
            return f"e^{{{first}}}"
        case "log" if len(arguments) == 2:
            return f"\\log_{{{arguments[1]}}}({first})"
    return f"\\{name}({first})"


def _fraction(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    sign = "-" if value < 0 else ""
    return f"{sign}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"
