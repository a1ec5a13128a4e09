r"""Expressions: buys the verdicts on everything that is computed, by reading it into a small tree.

    ("num", Fraction)   ("sym", name)   ("inf",)   ("+", terms)   ("*", factors)
    ("^", base, exponent)   ("f", name, arguments)

A root is a power; \infty is no number. What is no such expression gives None, never an error.
"""

import re
from fractions import Fraction
from functools import lru_cache

from permix_jax.rewards.nodes import HALF, MINUS, Node, inverse, negated, number, replaced, times
from permix_jax.rewards.notation import Tokens, is_word
from permix_jax.rewards.vocabulary import listed

MAX_DEPTH, MAX_DIGITS, MAX_TERMS = 24, 500, 30  # of nested groups, of a numeral, of a sum

_TRIGONOMETRIC = "sin cos tan cot sec csc".split()
FUNCTIONS, _SYMBOLS = listed("functions"), listed("letters")
_PAIRS = {"(": ")", "[": "]", "|": "|", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil", "{": "}"}
_CALLS = {"|": "abs", "\\lfloor": "floor", "\\lceil": "ceil"}
_CLOSING = {*_PAIRS.values(), "\\choose", "\\over", ",", ";"} - {"|"}
_NUMERAL = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+|~[0-9]+)?")
_NAMED_CALL = re.compile(
    r"[A-Za-z](?:'+|\^\{?(?:-1|\(?[0-9]\)?)\}?|_\{?\w+\}?)?\((?:\\?[A-Za-z0-9]+,?)*\)|\\frac\{?(?:\\partial|d).*"
)


class _Unknown(Exception):
    """The tokens are no expression of this grammar."""


@lru_cache(16384)
def parse_expression(tokens: Tokens) -> Node | None:
    """The tree of an expression; None where `tokens` are none, or nest too deeply."""
    if not tokens:
        return None
    try:
        parser = _Parser(tokens)
        node = parser.infix()
        return node if parser.at == len(parser.tokens) else None
    except (_Unknown, RecursionError):
        return None


def call_name(tokens: Tokens) -> str:
    """ "f(x)", "f^{-1}(x)", "P(A)" or "dy/dx" where the tokens name such a value, else ""."""
    joined = "".join(token.strip('"') for token in tokens)
    return joined if _NAMED_CALL.fullmatch(joined) else ""


class _Parser:
    """Recursive descent; `at` is the position of the next token."""

    def __init__(self, tokens: Tokens):
        self.tokens, self.at, self.depth = list(tokens), 0, 0
        self.bars = 0  # open ones of |x|: a further bar closes

    def peek(self, ahead: int = 0) -> str:
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else ""

    def took(self, *options: str) -> bool:
        found = self.peek() in options
        self.at += found
        return found

    def take(self, token: str) -> None:
        if not self.took(token):
            raise _Unknown

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Unknown

    def infix(self) -> Node:
        r"""A sum, or two around \choose or \over."""
        left = self.sum()
        if self.took("\\choose"):
            return ("f", "binomial", (left, self.sum()))
        return times(left, inverse(self.sum())) if self.took("\\over") else left

    def sum(self) -> Node:
        self.deeper()
        terms = [self.signed(self.product)]
        while self.peek() in ("+", "-"):
            terms.append(self.signed(self.product))
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("+", tuple(terms))

    def signed(self, part) -> Node:
        negative = False
        while self.peek() in ("+", "-"):
            negative ^= self.took("-") or not self.took("+")
        node = part()
        return negated(node) if negative else node

    def product(self) -> Node:
        start, factors = self.at, [self.factor()]
        while (token := self.peek()) and token not in ("+", "-"):
            if self.took("\\cdot"):
                factors.append(self.signed(self.factor))
            elif self.took("/", "\\div"):
                factors.append(inverse(self.signed(self.factor)))
            elif token in _CLOSING or (token == "|" and self.bars):
                break
            else:
                self.not_two_numbers(start)
                start = self.at
                factors.append(self.factor())
        return times(*factors)

    def not_two_numbers(self, start: int) -> None:
        """1 2 is no product; the factor before `at` begins at `start`."""
        if self.at - start == 1 and all(map(_NUMERAL.fullmatch, (self.peek(-1), self.peek()))):
            raise _Unknown

    def factor(self) -> Node:
        base = self.atom()
        while (token := self.peek()) in ("^", "!", "'"):
            self.at += 1
            if token == "'":
                if base[0] != "sym":
                    raise _Unknown
                base = ("sym", base[1] + "'")
            elif token == "!":
                if self.peek() == "!":
                    raise _Unknown  # a double factorial
                base = ("f", "factorial", (base,))
            elif self.took("\\circ"):
                base = times(base, ("sym", "\\circ"))
            else:
                base = ("^", base, self.script())
        return base

    def script(self) -> Node:
        """What stands behind ^: a group, or x^10, 10^-3 and 2^(1/3) as people write them."""
        if self.peek() in ("-", "+"):
            return self.signed(self.script)
        if self.peek() in ("{", "("):
            return self.group(self.peek())
        base = self.atom()
        return ("^", base, self.script()) if self.took("^") else base  # 2^2^3 is read from above

    def group(self, opening: str) -> Node:
        self.take(opening)
        outside, self.bars = self.bars, int(opening == "|")
        inner = self.infix()
        self.take(_PAIRS[opening])
        self.bars = outside
        return inner

    def listed(self) -> tuple[Node, ...]:
        """The arguments of binomial(10, 3)."""
        self.take("(")
        outside, self.bars, found = self.bars, 0, [self.sum()]
        while self.took(",", ";"):
            found.append(self.sum())
        self.take(")")
        self.bars = outside
        return tuple(found)

    def arguments_of(self, count: int) -> tuple[Node, ...]:
        r"""What TeX takes behind \frac, or frac(1, 2) in code."""
        found = (
            self.listed() if self.peek() == "(" else tuple(self.argument() for _ in range(count))
        )
        if len(found) != count:
            raise _Unknown
        return found

    def argument(self) -> Node:
        """A group, or one digit or letter."""
        token = self.peek()
        if token[:1].isdigit() and len(token) > 1:
            self.tokens[self.at : self.at + 1] = [token[0], token[1:]]
            self.at += 1
            return number(int(token[0]))
        return self.group("{") if token == "{" else self.atom()

    def atom(self) -> Node:
        token = self.peek()
        if _NUMERAL.fullmatch(token):
            return self.numeral()
        if token in ("(", "[", "{"):
            return self.group(token)
        if token in _CALLS:
            return ("f", _CALLS[token], (self.group(token),))
        self.at += 1
        name = token[1:] if token[:1] in ("\\", '"') else token
        if token[:1] == "\\" and name in FUNCTIONS:
            return self.call(name)
        if token in ("\\zeta", "\\Gamma") and self.peek() == "(":
            return ("f", name.lower().replace("\\", ""), self.listed())
        if token in ("\\sum", "\\prod"):
            return self.series(token)
        if token == "\\frac":
            top, bottom = self.arguments_of(2)
            return times(top, inverse(bottom))
        if token in ("\\sqrt", "\\cbrt"):
            degree = number(3 if token == "\\cbrt" else 2)
            degree = self.group("[") if self.peek() == "[" else degree
            radicand = self.group(self.peek()) if self.peek() in ("(", "{") else self.atom()
            whole = degree[0] == "num" and degree[1]
            return ("^", radicand, number(1 / degree[1]) if whole else inverse(degree))
        if token == "\\binom" or (token in ("C", '"C') and self.is_pair()):
            return self.coefficient()
        if token == "\\infty":
            return ("inf",)
        if token[:1] == "\\" and (name in _SYMBOLS or name == "circ"):
            return ("sym", token + self.subscript())
        if name in ("const", "constant"):
            return ("sym", "C")
        # \mathrm{e} and \text{i} are the numbers; AB is a segment, and not A times B.
        short = len(name) == 1 or (
            is_word(token) and name.isupper() and len(name) < 4 and name not in ("YES", "NO", "DNE")
        )
        if short and name.isalpha() and name.isascii():
            return ("sym", name + self.subscript())
        raise _Unknown

    def coefficient(self) -> Node:
        r"""\binom{4}{2}, or \binom{4}{2, 1, 1} with the sizes of all parts."""
        if self.peek() == "(":
            return ("f", "binomial", self.arguments_of(2))
        whole, start = self.argument(), self.at
        if self.peek() == "{" and "," in self.tokens[start:]:
            self.take("{")
            sizes = [self.sum()]
            while self.took(","):
                sizes.append(self.sum())
            self.take("}")
            below = [inverse(("f", "factorial", (size,))) for size in sizes]
            return times(("f", "factorial", (whole,)), *below)
        return ("f", "binomial", (whole, self.argument()))

    def series(self, sign: str) -> Node:
        r"""\sum_{k=1}^{3} k^2, written out."""
        self.take("_")
        self.take("{")
        name = self.peek()
        self.at += 1
        self.take("=")
        low = self.sum()
        self.take("}")
        self.take("^")
        high, body = self.argument(), self.product()
        ends = [int(end[1]) for end in (low, high) if end[0] == "num" and end[1].denominator == 1]
        if len(ends) < 2 or not 0 <= ends[1] - ends[0] < MAX_TERMS:
            raise _Unknown
        every = range(ends[0], ends[1] + 1)
        terms = tuple(replaced(body, ("sym", name), number(n)) for n in every)
        return ("+" if sign == "\\sum" else "*", terms)

    def is_pair(self) -> bool:
        """Whether (a, b) is next."""
        inner = self.tokens[self.at : [*self.tokens, ")"].index(")", self.at)]
        return inner[:1] == ["("] and inner.count("(") == inner.count(",") == 1

    def subscript(self) -> str:
        if not self.took("_"):
            return ""
        start = self.at
        if self.took("{"):
            while self.peek() not in ("}", ""):
                self.at += 1
            self.take("}")
        else:
            self.at += 1
        return "_" + "".join(token.strip('"') for token in self.tokens[start : self.at]).strip("{}")

    def numeral(self) -> Node:
        """A numeral, a repeating decimal, or a mixed number."""
        text = self.peek()
        self.at += 1
        if len(text) > MAX_DIGITS or self.peek() == "_":
            raise _Unknown  # too long, or in another base
        text, _, period = text.partition("~")
        value, decimals = Fraction(text.rstrip(".") or "0"), text.partition(".")[2]
        if period:
            nines = (10 ** len(period) - 1) * 10 ** len(decimals)
            return number(value + Fraction(int(period), nines))
        if (
            text.isdigit()
            and self.peek(1) == "/"
            and self.peek().isdigit()
            and self.peek(2).isdigit()
        ):
            top, bottom = int(self.peek()[:9]), int(self.peek(2)[:9])
            if 0 < top < bottom:  # 1 1/2
                self.at += 3
                return number(value + Fraction(top, bottom))
        if text.isdigit() and self.peek() == "\\frac":
            start, tokens = self.at, self.tokens[:]
            match self.atom():
                case ("*", (("num", top), ("^", ("num", bottom), ("num", -1)))) if (
                    self.peek() != "^"
                ):
                    if bottom and top < bottom:
                        return number(value + top / bottom)
                    raise _Unknown  # 1 9/8 is neither a mixed number nor a product
            self.at, self.tokens = start, tokens
        return number(value)

    def call(self, name: str) -> Node:
        r"""\sin x, \sin^{2} x, \sin(x), \log_{2} 8; an argument ends before a + or another call."""
        self.deeper()
        exponent = base = None
        if name in ("lg10", "lg2"):
            name, base = "log", number(int(name[2:]))
        for _ in range(2):
            if base is None and self.took("_"):
                base = self.argument()
            elif exponent is None and self.took("^"):
                exponent = self.script()
        if self.peek() == "(":
            arguments = self.listed()
        elif self.peek() in ("[", "{"):
            arguments = (self.group(self.peek()),)
        else:
            arguments = (self.signed(self.bare_argument),)
        self.depth -= 1
        if exponent == MINUS:
            if name in ("sinh", "cosh", "tanh"):
                return ("f", "ar" + name, arguments)
            if name not in _TRIGONOMETRIC:
                raise _Unknown
            return ("f", "arc" + name, arguments)
        if name == "arccot":
            right = ("*", (HALF, ("sym", "\\pi")))
            call = ("+", (right, negated(("f", "arctan", arguments))))
        elif name in ("exp", "cis"):
            power = arguments[0] if name == "exp" else times(("sym", "i"), arguments[0])
            call = ("^", ("sym", "e"), power)
        else:
            call = ("f", name, arguments if base is None else (arguments[0], base))
        return call if exponent is None else ("^", call, exponent)

    def bare_argument(self) -> Node:
        start, factors = self.at, [self.factor()]
        while token := self.peek():
            plain = _NUMERAL.fullmatch(token) or (len(token) == 1 and token.isalpha())
            if not plain and token not in ("\\frac", "\\sqrt") and token[1:] not in _SYMBOLS:
                break
            self.not_two_numbers(start)
            start = self.at
            factors.append(self.factor())
        return times(*factors)
