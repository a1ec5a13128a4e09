r"""Algebra: buys the verdicts that no canonical sum shows, by sympy. Run in worker processes only.

The text of an answer never reaches sympy: its expressions are built here from the trees of our own
parser, with letters renamed and sizes limited. Letters are real, logarithms have positive arguments,
and odd roots of negative numbers are real.
"""

import sympy
from sympy.core.cache import clear_cache
from sympy.core.random import seed

from permix_jax.rewards.compare import Same, load, same
from permix_jax.rewards.expression import Node, children, names
from permix_jax.rewards.notation import read
from permix_jax.rewards.steps import counted
from permix_jax.rewards.tree import parse
from permix_jax.rewards.values import agree, rational, same_value

MAX_NODES = 150
MAX_BITS = 2000  # of numbers
MAX_DIGITS = 60

_NAMES = {"arcsin": "asin", "arccos": "acos", "arctan": "atan", "ln": "log", "ceil": "ceiling",
          "abs": "Abs", "arsinh": "asinh", "arcosh": "acosh", "artanh": "atanh", "arccot": "acot",
          "min": "Min", "max": "Max", "Re": "re", "Im": "im"}  # fmt: skip
_CALLS = {
    name: getattr(sympy, _NAMES.get(name, name))
    for name in (
        *_NAMES,
        *"sin cos tan cot sec csc sinh cosh tanh coth floor factorial binomial arg".split(),
    )
}


class _Untamed(Exception):
    """An expression too large to be handed to sympy, or undefined."""


def equivalent(answer: str, gold: str) -> bool:
    """Whether two answers, as `grade.py` writes them, are equal. May take for ever.

    Raises OutOfSteps where `steps.allow` was called and the algebra takes more than that.
    """
    clear_cache()
    seed(0)
    return same(_tree(answer), _tree(gold), _decide) is True


def _tree(text: str) -> Node:
    return load(text) if text.startswith("[") and '"' in text else parse(read(text) or ())


def _decide(node: Node, gold: Node, zero: bool) -> Same:
    if not zero and (verdict := same_value(node, gold)) is not None:
        return verdict
    try:
        letters = {
            name: sympy.Symbol(f"x{i}", real=True)
            for i, name in enumerate(sorted(names(node) | names(gold)))
        }
        one, two = (_expression(_tame(each), letters) for each in (node, gold))
    except (_Untamed, ZeroDivisionError):
        return False
    return counted(_same_zeros if zero else _equal, one, two) or (not zero and agree(node, gold))


def _equal(one: sympy.Expr, two: sympy.Expr) -> bool:
    difference = one - two
    if difference.has(sympy.zoo, sympy.nan):
        return False
    if _differ(difference):
        return False
    for rewrite in (sympy.expand, _logs, sympy.radsimp, sympy.simplify):
        if rewrite(difference) == 0:
            return True
    return False


def _logs(expression: sympy.Expr) -> sympy.Expr:
    return sympy.expand_log(sympy.expand(expression), force=True)


def _same_zeros(one: sympy.Expr, two: sympy.Expr) -> bool:
    """Whether one = 0 and two = 0 are the same equation, up to factors that are not 0."""
    tops = [sympy.numer(sympy.together(sympy.expand(each))) for each in (one, two)]
    ratio = sympy.cancel(tops[0] / tops[1]) if tops[1] != 0 else sympy.S.Zero
    return bool(ratio.is_number and ratio != 0)


def _differ(difference: sympy.Expr) -> bool:
    letters = sorted(difference.free_symbols, key=str)
    point = {letter: sympy.Rational(618 + 97 * i, 1000) for i, letter in enumerate(letters)}
    try:
        value = difference.subs(point).evalf(3, maxn=60, strict=True)
    except sympy.core.evalf.PrecisionExhausted:
        return False
    return any(part.is_Float and abs(part) > 1e-30 for part in value.as_real_imag())


def _tame(node: Node) -> Node:
    if _guard(node) > MAX_NODES:
        raise _Untamed
    return node


def _guard(node: Node) -> int:
    """The number of nodes; raises _Untamed where a number is huge."""
    if (
        node[0] == "num"
        and max(node[1].numerator.bit_length(), node[1].denominator.bit_length()) > MAX_BITS
    ):
        raise _Untamed
    if node[0] == "^":
        power, base = rational(node[2]), rational(node[1])
        if power is None and node[2][0] == "^" and node[2][2][0] == "^":
            raise _Untamed  # a tower
        if power is not None:
            bits = (
                2
                if base is None
                else max(base.numerator.bit_length(), base.denominator.bit_length())
            )
            if abs(power) * bits > (60 if base is None else MAX_BITS):
                raise _Untamed
    if node[0] == "f" and node[1] in ("factorial", "binomial"):
        for argument in node[2]:
            value = rational(argument)
            if value is not None and abs(value) > 1000:
                raise _Untamed
    return 1 + sum(map(_guard, children(node)))


def _expression(node: Node, letters: dict[str, sympy.Symbol]) -> sympy.Expr:
    match node:
        case ("num", value):
            return sympy.Rational(value.numerator, value.denominator)
        case ("sym", "\\pi"):
            return sympy.pi
        case ("sym", "e"):
            return sympy.E
        case ("sym", "i"):
            return sympy.I
        case ("sym", "\\circ"):
            return sympy.pi / 180
        case ("sym", name):
            return letters[name]
        case ("+", terms):
            return sympy.Add(*(_expression(term, letters) for term in terms))
        case ("*", factors):
            return sympy.Mul(*(_expression(factor, letters) for factor in factors))
        case ("^", base, exponent):
            return _power(_expression(base, letters), _expression(exponent, letters))
        case ("f", "log", arguments):
            value, base = [_expression(a, letters) for a in arguments] + [sympy.Integer(10)] * (
                2 - len(arguments)
            )
            return sympy.log(value) / sympy.log(base)
        case ("f", name, arguments):
            values = [_expression(argument, letters) for argument in arguments]
            return _CALLS[name](*values) if name in _CALLS else sympy.Function(f"f_{name}")(*values)
    raise _Untamed


def _power(base: sympy.Expr, exponent: sympy.Expr) -> sympy.Expr:
    if (
        exponent.is_Rational
        and exponent.q % 2
        and exponent.q > 1
        and base.is_extended_real
        and not base.is_nonnegative
    ):
        if base.is_negative:
            return (-1) ** exponent.p * (-base) ** exponent
        return sympy.sign(base) ** exponent.p * sympy.Abs(base) ** exponent
    return base**exponent
