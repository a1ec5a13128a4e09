r"""Expressions: buys the verdicts on everything that is computed, by reading it into a small tree.

    ("num", Fraction)   ("sym", name)   ("inf",)   ("+", terms)   ("*", factors)
    ("^", base, exponent)   ("f", name, arguments)

A root is a power; \infty is no number. Nothing is evaluated here. What is no such expression gives
None, never an error.
"""

import re
from fractions import Fraction
from functools import lru_cache

from permix_jax.rewards.notation import Tokens, is_word

MAX_DEPTH = 24  # of nested groups
MAX_DIGITS = 500

Node = tuple

_TRIGONOMETRIC = ("sin", "cos", "tan", "cot", "sec", "csc")
FUNCTIONS = {
    f"\\{name}": name
    for name in (
        *_TRIGONOMETRIC, "arcsin", "arccos", "arctan", "sinh", "cosh", "tanh", "ln", "log", "exp",
        "abs", "floor", "ceil", "gcd", "lcm", "min", "max", "factorial", "arsinh", "arcosh",
        "artanh", "arccot", "arcsec", "arccsc", "coth", "Re", "Im", "arg", "det", "deg", "lg10", "lg2",
    )
}  # fmt: skip
_SYMBOLS = {
    f"\\{name}"
    for name in (
        "alpha beta gamma delta varepsilon theta lambda mu nu rho sigma tau varphi omega pi xi psi "
        "eta zeta kappa iota upsilon chi vartheta Delta Omega Gamma Theta Lambda Xi Pi Sigma Phi Psi "
        "triangle angle varnothing hbar nabla partial R Z N Q C infty ldots perp parallel square"
    ).split()
}
_PAIRS = {"(": ")", "[": "]", "|": "|", "\\lfloor": "\\rfloor", "\\lceil": "\\rceil", "{": "}"}
_CALLS = {"|": "abs", "\\lfloor": "floor", "\\lceil": "ceil"}
_CLOSING = {")", "]", "\\rfloor", "\\rceil", "}", "\\choose", "\\over", ",", ";"}
_NUMERAL = re.compile(r"[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?")
_NAMED_CALL = re.compile(r"[A-Za-z](?:'+|\^\{?-1\}?|_\{?\w\}?)?\([A-Za-z0-9,]*\)|\\frac\{?d.*")
_CIRCLE = (("^", "{", "\\circ", "}"), ("^", "\\circ"))
ONE, MINUS = ("num", Fraction(1)), ("num", Fraction(-1))
HALF = ("num", Fraction(1, 2))


class _Unknown(Exception):
    """The tokens are no expression of this grammar."""


@lru_cache(16384)
def parse_expression(tokens: Tokens) -> Node | None:
    """The tree of an expression; None where `tokens` are none, or nest too deeply."""
    if not tokens or len(tokens) > 600:
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


def is_name(node: Node) -> bool:
    """Whether a node is a variable."""
    return node[0] == "sym" and node[1] not in ("\\pi", "e", "i", "\\circ")


def children(node: Node) -> tuple[Node, ...]:
    """The nodes right below one of an expression."""
    if node[0] in ("+", "*"):
        return node[1]
    return node[1:] if node[0] == "^" else node[2] if node[0] == "f" else ()


def names(node: Node) -> frozenset[str]:
    """The variables in an expression."""
    if node[0] == "sym":
        return frozenset([node[1]] if is_name(node) else [])
    return frozenset().union(*map(names, children(node)))


def has_call(node: Node) -> bool:
    """Whether an expression has a function in it."""
    return node[0] == "f" or any(map(has_call, children(node)))


def number(value: Fraction | int) -> Node:
    return ("num", Fraction(value))


def negated(node: Node) -> Node:
    return number(-node[1]) if node[0] == "num" else ("*", (MINUS, node))


def inverse(node: Node) -> Node:
    return ("^", node, MINUS)


def times(*factors: Node) -> Node:
    return factors[0] if len(factors) == 1 else ("*", factors)


class _Parser:
    """Recursive descent; `at` is the position of the next token."""

    def __init__(self, tokens: Tokens):
        self.tokens, self.at, self.depth = list(tokens), 0, 0
        self.bars = 0  # open ones of |x|: a further bar closes

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def take(self, token: str) -> None:
        if self.peek() != token:
            raise _Unknown
        self.at += 1

    def infix(self) -> Node:
        r"""A sum, or two around \choose or \over."""
        left = self.sum()
        if (command := self.peek()) in ("\\choose", "\\over"):
            self.at += 1
            right = self.sum()
            return (
                ("f", "binomial", (left, right)) if "c" in command else times(left, inverse(right))
            )
        return left

    def sum(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Unknown
        terms = [self.signed()]
        while self.peek() in ("+", "-"):
            terms.append(self.signed())
        self.depth -= 1
        return terms[0] if len(terms) == 1 else ("+", tuple(terms))

    def signed(self) -> Node:
        negative = False
        while self.peek() in ("+", "-"):
            negative ^= self.peek() == "-"
            self.at += 1
        product = self.product()
        return negated(product) if negative else product

    def product(self) -> Node:
        factors = [self.factor()]
        while (token := self.peek()) and token not in ("+", "-"):
            if token in ("\\cdot", "/", "\\div"):
                self.at += 1
                negative = False
                while self.peek() in ("+", "-"):
                    negative ^= self.peek() == "-"
                    self.at += 1
                factor = self.factor()
                factor = negated(factor) if negative else factor
                factors.append(factor if token == "\\cdot" else inverse(factor))
            elif token in _CLOSING or (token == "|" and self.bars):
                break
            else:
                if _NUMERAL.fullmatch(token) and _NUMERAL.fullmatch(self.tokens[self.at - 1]):
                    raise _Unknown  # two numbers side by side
                factors.append(self.factor())
        return times(*factors)

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
            elif self.circle():
                base = times(base, ("sym", "\\circ"))
            else:
                base = ("^", base, self.script())
        return base

    def circle(self) -> bool:
        r"""Whether \circ or {\circ} is next, which is then taken."""
        for sign in (["{", "\\circ", "}"], ["\\circ"]):
            if self.tokens[self.at : self.at + len(sign)] == sign:
                self.at += len(sign)
                return True
        return False

    def script(self) -> Node:
        """What stands behind ^: a group, or x^10, 10^-3 and 2^(1/3) as people write them."""
        if self.peek() in ("-", "+"):
            negative = self.peek() == "-"
            self.at += 1
            inner = self.script()
            return negated(inner) if negative else inner
        if self.peek() in ("{", "("):
            return self.group(self.peek())
        base = self.atom()
        if self.peek() == "^":  # 2^2^3 is read from above
            self.at += 1
            base = ("^", base, self.script())
        return base

    def group(self, opening: str) -> Node:
        self.take(opening)
        outside, self.bars = self.bars, int(opening == "|")
        inner = self.infix()
        self.take(_PAIRS[opening])
        self.bars = outside
        return inner

    def argument(self) -> Node:
        r"""What TeX takes behind \frac: a group, or one digit or letter."""
        token = self.peek()
        if token == "{":
            return self.group("{")
        if token[:1].isdigit() and len(token) > 1:
            self.tokens[self.at : self.at + 1] = [token[0], token[1:]]
            self.at += 1
            return number(int(token[0]))
        return self.atom()

    def atom(self) -> Node:
        token = self.peek()
        if _NUMERAL.fullmatch(token):
            return self.numeral()
        if token in ("(", "[", "{"):
            return self.group(token)
        if token in _CALLS:
            return ("f", _CALLS[token], (self.group(token),))
        self.at += 1
        if token in FUNCTIONS:
            return self.call(FUNCTIONS[token])
        if token == "\\frac":
            if self.peek() == "(":  # frac(1, 2)
                top, bottom = self.listed(2)
            else:
                top, bottom = self.argument(), self.argument()
            return times(top, inverse(bottom))
        if token in ("\\sqrt", "\\cbrt"):
            return self.root(token)
        if token == "\\binom":
            pair = self.listed(2) if self.peek() == "(" else (self.argument(), self.argument())
            return ("f", "binomial", tuple(pair))
        if token == "\\overline":
            return ("f", "bar", (self.argument(),))
        if token == "\\infty":
            return ("inf",)
        if token == "\\circ":
            return ("sym", token)
        if token in _SYMBOLS or (len(token) == 1 and token.isalpha()):
            return ("sym", token + self.subscript())
        if is_word(token) and (len(token) == 2 or token[1:].isupper()):
            name = token[1:]
            # \mathrm{e} and \text{i} are the numbers; AB is a segment, and not A times B.
            return ("sym", name + self.subscript())
        raise _Unknown

    def root(self, command: str) -> Node:
        degree = number(3 if command == "\\cbrt" else 2)
        if self.peek() == "[":
            degree = self.group("[")
        if self.peek() == "(":
            radicand = self.group("(")
        elif self.peek() == "{":
            radicand = self.group("{")
        else:
            radicand = self.atom()
        exponent = number(1 / degree[1]) if degree[0] == "num" and degree[1] else inverse(degree)
        return ("^", radicand, exponent)

    def listed(self, count: int) -> tuple[Node, ...]:
        """The arguments of binomial(10, 3)."""
        self.take("(")
        outside, self.bars = self.bars, 0
        found = [self.sum()]
        while self.peek() in (",", ";"):
            self.at += 1
            found.append(self.sum())
        self.take(")")
        self.bars = outside
        if count and len(found) != count:
            raise _Unknown
        return tuple(found)

    def subscript(self) -> str:
        if self.peek() != "_":
            return ""
        self.at += 1
        if self.peek() != "{":
            self.at += 1
            return "_" + self.tokens[self.at - 1].strip('"') if self.at <= len(self.tokens) else "_"
        start = self.at + 1
        while self.peek() not in ("}", ""):
            self.at += 1
        self.take("}")
        return "_" + "".join(token.strip('"') for token in self.tokens[start : self.at - 1])

    def numeral(self) -> Node:
        """A numeral, a repeating decimal, or a mixed number."""
        text = self.peek()
        if len(text) > MAX_DIGITS:
            raise _Unknown
        self.at += 1
        if self.peek() == "_":
            raise _Unknown  # a number in another base
        value = Fraction(text.rstrip(".") or "0")
        if (
            text[-1] == "."
            and self.peek() == "("
            and self.tokens[self.at + 2 : self.at + 3] == [")"]
        ):
            self.at += 1  # 0.(3), as some countries write repeating decimals
            digits = self.argument_digits()
            self.take(")")
            return number(value + Fraction(int(digits), 10 ** len(digits) - 1))
        if self.peek() == "\\overline" and "." in text:
            self.at += 1
            digits = self.argument_digits()
            places = len(text.partition(".")[2])
            return number(value + Fraction(int(digits), (10 ** len(digits) - 1) * 10**places))
        if text.isdigit():
            rest = self.tokens[self.at : self.at + 3]
            if len(rest) == 3 and rest[1] == "/" and rest[0].isdigit() and rest[2].isdigit():
                if int(rest[0][:9]) < int(rest[2][:9]):
                    self.at += 3  # 1 1/2
                    return number(value + Fraction(int(rest[0]), int(rest[2])))
            if rest[:1] == ["\\frac"]:
                start, tokens = self.at, self.tokens[:]
                top, bottom = _digits(self.atom())
                if bottom and top < bottom and self.peek() != "^":
                    return number(value + Fraction(top, bottom))
                self.at, self.tokens = start, tokens
        return number(value)

    def argument_digits(self) -> str:
        inner = self.argument()
        place = self.tokens[self.at - 2] if self.tokens[self.at - 1] == "}" else ""
        digits = place if place.isdigit() else str(inner[1]) if inner[0] == "num" else ""
        if not digits.isdigit() or len(digits) > 60:
            raise _Unknown
        return digits

    def call(self, name: str) -> Node:
        r"""\sin x, \sin^{2} x, \sin(x), \log_{2} 8; an argument ends before a + or another call."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise _Unknown
        exponent = base = None
        if name in ("lg10", "lg2"):
            name, base = "log", number(int(name[2:]))
        for _ in range(2):
            if self.peek() == "_" and base is None:
                self.at += 1
                base = self.argument_of_base()
            if self.peek() == "^" and exponent is None:
                self.at += 1
                exponent = self.script()
        arguments = self.arguments(name)
        self.depth -= 1
        if exponent == MINUS:
            if name not in _TRIGONOMETRIC:
                raise _Unknown
            return ("f", "arc" + name, arguments)
        if name == "exp":
            call = ("^", ("sym", "e"), arguments[0])
        elif name == "log" and len(arguments) == 2:
            call = ("f", name, arguments)  # log(8, 2)
        else:
            call = ("f", name, arguments if base is None else (arguments[0], base))
        return call if exponent is None else ("^", call, exponent)

    def argument_of_base(self) -> Node:
        return self.group("{") if self.peek() == "{" else self.argument()

    def arguments(self, name: str) -> tuple[Node, ...]:
        if self.peek() == "(":
            return self.listed(0)
        if self.peek() in ("[", "{"):
            return (self.group(self.peek()),)
        negative = self.peek() == "-"
        self.at += negative
        factors = [self.factor()]
        while token := self.peek():
            one = (
                token in _SYMBOLS
                or _NUMERAL.fullmatch(token)
                or (len(token) == 1 and token.isalpha())
            )
            if not (one or token in ("\\frac", "\\sqrt")):
                break
            if _NUMERAL.fullmatch(token) and _NUMERAL.fullmatch(self.tokens[self.at - 1]):
                raise _Unknown
            factors.append(self.factor())
        argument = times(*factors)
        return (negated(argument) if negative else argument,)


def _digits(node: Node) -> tuple[int, int]:
    """(1, 2) of the tree of \\frac{1}{2}; (0, 0) of every other one."""
    if node[0] == "*" and len(node[1]) == 2:
        top, under = node[1]
        if top[0] == "num" and under[0] == "^" and under[1][0] == "num" and under[2] == MINUS:
            if top[1].denominator == under[1][1].denominator == 1 and top[1] >= 0:
                return int(top[1]), int(under[1][1])
    return 0, 0
