r"""A parser of the expressions that answers are made of: tokens of `latex.py` to a small tree.

Nodes are tuples whose first item names them:

    ("number", Fraction)   ("symbol", name)   ("infinity",)
    ("sum", terms)         ("product", factors)
    ("power", base, exponent)   ("root", degree, radicand)   ("call", name, arguments)

Nothing is evaluated here. What is no such expression gives None, never an error.
"""

import re
from fractions import Fraction
from functools import lru_cache

from permix_jax.rewards.latex import Tokens

MAX_DEPTH = 24  # of nested groups

FUNCTIONS = {
    "\\sin", "\\cos", "\\tan", "\\cot", "\\sec", "\\csc", "\\arcsin", "\\arccos", "\\arctan",
    "\\sinh", "\\cosh", "\\tanh", "\\ln", "\\log", "\\exp",
}  # fmt: skip
_GREEK = {
    "\\alpha", "\\beta", "\\gamma", "\\delta", "\\epsilon", "\\varepsilon", "\\theta", "\\lambda",
    "\\mu", "\\nu", "\\rho", "\\sigma", "\\tau", "\\phi", "\\varphi", "\\omega", "\\pi", "\\xi",
    "\\psi", "\\eta", "\\zeta", "\\kappa", "\\Delta", "\\Omega", "\\Gamma", "\\ell", "\\triangle",
    "\\angle", "\\varnothing",
}  # fmt: skip
_PAIRS = {"(": ")", "[": "]", "|": "|", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil", "{": "}"}
_BRACKET_CALLS = {"|": "abs", "\\lfloor": "floor", "\\lceil": "ceil"}
_CLOSING = {")", "]", "\\rfloor", "\\rceil", "}"}
_TIMES = {"\\cdot", "\\times"}
_OVER = {"/", "\\div"}
_NUMERAL = re.compile(r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]*)?|\.[0-9]+")
_THOUSANDS = re.compile(r"[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])")
_SCIENTIFIC = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?[eE][-+]?[0-9]{1,3}")
_WITH_SLASH = re.compile(r" ([0-9]{1,9})/([0-9]{1,9})(?![0-9])")  # the rest of "1 1/2"
_DIGITS = frozenset("0123456789")
_NUMERIC = _DIGITS | {"."}

Node = tuple


class _Unknown(Exception):
    """The tokens are no expression of this grammar."""


@lru_cache(8192)
def parse(tokens: Tokens) -> Node | None:
    """The tree of an expression; None where `tokens` are none, or nest too deeply."""
    if match := _SCIENTIFIC.fullmatch("".join(tokens)):
        return number(Fraction(match[0].replace(",", "")))
    try:
        parser = _Parser(tokens)
        node = parser.sum()
        return node if parser.at == len(tokens) else None
    except (_Unknown, ZeroDivisionError):
        return None


class _Parser:
    """Recursive descent; `at` is the position of the next token."""

    def __init__(self, tokens: Tokens):
        self.tokens, self.at, self.depth = tokens, 0, 0
        self.bars = 0  # open ones of |x|: a further bar closes

    def peek(self, ahead: int = 0) -> str:
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else ""

    def take(self, token: str) -> None:
        if self.peek() != token:
            raise _Unknown
        self.at += 1

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Unknown
        terms = [self.signed()]
        while self.peek() in ("+", "-"):
            terms.append(self.signed())
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("sum", tuple(terms))

    def signed(self) -> Node:
        negative = False
        while self.peek() in ("+", "-"):
            negative ^= self.peek() == "-"
            self.at += 1
        product = self.product()
        return negated(product) if negative else product

    def product(self) -> Node:
        factors = [self.factor()]
        while True:
            token = self.peek()
            if token in _TIMES or token in _OVER:
                self.at += 1
                negative = self.peek() == "-"
                self.at += negative
                factor = self.factor()
                factor = negated(factor) if negative else factor
                factors.append(_inverse(factor) if token in _OVER else factor)
            elif token and not self.closes(token) and token not in ("+", "-"):
                if token == " " or (token in _NUMERIC and self.tokens[self.at - 1] in _NUMERIC):
                    raise _Unknown  # two numbers side by side
                factors.append(self.factor())
            else:
                return factors[0] if len(factors) == 1 else ("product", tuple(factors))

    def closes(self, token: str) -> bool:
        return token in _CLOSING or (token == "|" and self.bars > 0)

    def factor(self) -> Node:
        base = self.atom()
        while self.peek() in ("^", "!", "\\%", "%"):
            token = self.peek()
            if token == "!":
                self.at += 1
                if self.peek() == "!":
                    raise _Unknown  # a double factorial
                base = ("call", "factorial", (base,))
            elif token == "^":
                base = self.powered(base)
            else:
                raise _Unknown
        return base

    def powered(self, base: Node) -> Node:
        self.take("^")
        if self.tokens[self.at : self.at + 3] == ("{", "\\circ", "}"):
            self.at += 3
            return ("product", (base, ("symbol", "\\pi"), number(Fraction(1, 180))))
        return ("power", base, self.group("{"))

    def group(self, opening: str) -> Node:
        self.take(opening)
        outside, self.bars = self.bars, int(opening == "|")
        inner = self.sum()
        self.take(_PAIRS[opening])
        self.bars = outside
        return inner

    def atom(self) -> Node:
        token = self.peek()
        if token in _DIGITS or token == ".":
            return self.numeral()
        if token in ("(", "["):
            return self.group(token)
        if token in _BRACKET_CALLS:
            return ("call", _BRACKET_CALLS[token], (self.group(token),))
        if token in FUNCTIONS:
            return self.call()
        self.at += 1
        if token == "\\frac":
            top, bottom = self.group("{"), self.group("{")
            return ("product", (top, _inverse(bottom)))
        if token == "\\sqrt":
            degree = self.group("[") if self.peek() == "[" else number(2)
            return ("root", degree, self.group("{"))
        if token == "\\binom":
            return ("call", "binomial", (self.group("{"), self.group("{")))
        if token == "\\infty":
            return ("infinity",)
        if (len(token) == 1 and token.isascii() and token.isalpha()) or token in _GREEK:
            return ("symbol", token + self.subscript())
        raise _Unknown

    def subscript(self) -> str:
        if self.peek() != "_":
            return ""
        self.at += 1
        start = self.at
        self.take("{")
        while self.peek() and self.peek() not in ("{", "}"):
            self.at += 1
        self.take("}")
        return "_" + "".join(self.tokens[start : self.at])

    def numeral(self) -> Node:
        """A numeral, one in another base, a repeating decimal, or a mixed number."""
        rest = "".join(t if len(t) == 1 else "\0" for t in self.tokens[self.at : self.at + 400])
        grouped = _THOUSANDS.match(rest)
        text = _NUMERAL.match(rest if grouped else rest.partition(",")[0])
        if text is None or text[0] == ".":
            raise _Unknown
        self.at += len(text[0])
        if self.peek() == "_":
            return ("symbol", text[0].lstrip("0") + self.subscript())
        if self.peek() == "\\overline" and "." in text[0]:
            return number(_fraction(text[0]) + self.period(text[0]))
        value = number(_fraction(text[0]))
        slashed = _WITH_SLASH.match(rest, len(text[0]))
        if slashed and text[0].isdigit() and int(slashed[1]) < int(slashed[2]):
            self.at += len(slashed[0])
            return number(value[1] + Fraction(int(slashed[1]), int(slashed[2])))
        if text[0].isdigit() and self.peek() == "\\frac":
            start = self.at
            fraction = self.atom()
            top, bottom = _digits(fraction)
            if bottom and top < bottom and self.peek() != "^":
                return ("sum", (value, fraction))
            self.at = start
        return value

    def period(self, before: str) -> Fraction:
        self.take("\\overline")
        self.take("{")
        digits = ""
        while self.peek() in _DIGITS and self.peek():
            digits += self.peek()
            self.at += 1
        self.take("}")
        if not digits or len(digits) > 60:
            raise _Unknown
        places = len(before.partition(".")[2])
        return Fraction(int(digits), (10 ** len(digits) - 1) * 10**places)

    def call(self) -> Node:
        r"""\sin x, \sin^{2} x, \sin(x), \log_{2} 8; an argument ends before a + or another call."""
        name = self.peek()[1:]
        self.at += 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Unknown
        exponent = base = None
        if self.peek() == "_":
            self.at += 1
            base = self.group("{")
        if self.peek() == "^":
            self.at += 1
            exponent = self.group("{")
        if self.peek() in ("(", "["):
            argument = self.group(self.peek())
        else:
            negative = self.peek() == "-"
            self.at += negative
            factors = [self.factor()]
            while (t := self.peek()) and (
                t in ("\\frac", "\\sqrt", "(") or t in _GREEK or (len(t) == 1 and t.isalnum())
            ):
                factors.append(self.factor())
            argument = factors[0] if len(factors) == 1 else ("product", tuple(factors))
            argument = negated(argument) if negative else argument
        self.depth -= 1
        if exponent == number(-1):
            if name not in ("sin", "cos", "tan"):
                raise _Unknown
            return ("call", "arc" + name, (argument,))
        call = ("call", name, (argument,) if base is None else (argument, base))
        return call if exponent is None else ("power", call, exponent)


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right below one."""
    match node:
        case ("sum" | "product", parts) | ("call", _, parts):
            return parts
        case ("power" | "root", one, two):
            return (one, two)
    return ()


def number(value: Fraction | int) -> Node:
    return ("number", Fraction(value))


def negated(node: Node) -> Node:
    return number(-node[1]) if node[0] == "number" else ("product", (number(-1), node))


def _inverse(node: Node) -> Node:
    return ("power", node, number(-1))


def _digits(node: Node) -> tuple[int, int]:
    """(1, 2) of the tree of \\frac{1}{2}; (0, 0) of every other one."""
    match node:
        case ("product", (("number", top), ("power", ("number", bottom), ("number", minus)))):
            if minus == -1 and top.denominator == bottom.denominator == 1 and top >= 0:
                return int(top), int(bottom)
    return 0, 0


def _fraction(numeral: str) -> Fraction:
    return Fraction(numeral.replace(",", "").rstrip(".") or "0")
