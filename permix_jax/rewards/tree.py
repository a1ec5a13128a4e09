r"""Trees of answers: buys the verdicts on lists, tuples, relations, matrices and worded values.

`parse` takes tokens apart from the outside: lists, unions, relations, brackets, quantities, and at
last expressions (`expression.py`). What is no mathematics is a text. Beside expressions there are

    ("list", parts, mark)   mark is "or" or "and" where a word says so
    ("set", parts)   ("tuple", opening, closing, parts)   ("matrix", rows)   ("ratio", parts)
    ("rel", signs, parts)   ("cup" | "cap" | "minus", parts)   ("builder", element, condition)
    ("qty", value, unit)   ("about", parts)   ("mod", value, modulus)   ("based", digits, base)
    ("text", words)
"""

import re
from fractions import Fraction
from functools import lru_cache

from permix_jax.rewards import units, vectors, words
from permix_jax.rewards.brackets import closes_at_end, split
from permix_jax.rewards.expression import FUNCTIONS, call_name, parse_expression
from permix_jax.rewards.integers import enumerated, filled, indexed, spoken, with_one_modulus
from permix_jax.rewards.nodes import Node, negated, number, replaced
from permix_jax.rewards.notation import Tokens, is_word, straightened
from permix_jax.rewards.quantity import compound, together

MAX_DEPTH = 6
MAX_PARTS = 60
MAX_TOKENS = 400
INFINITY = ("inf",)
EVERYTHING = ("tuple", "(", ")", (negated(INFINITY), INFINITY))
EMPTY = ("set", ())

_WHOLE = ("sym", "\\Z")
_NOT_ZERO = ("minus", (EVERYTHING, ("set", (number(0),))))
_ABOVE, _NOT_BELOW = (("tuple", opening, ")", (number(0), INFINITY)) for opening in "([")
_HALVES = dict.fromkeys(("positive", "\\R^+", "\\R_+", "\\R_>0"), _ABOVE)
_HALVES |= dict.fromkeys(("\\R^\\cdot", "\\R^*", "nonzero"), _NOT_ZERO)
_HALVES |= dict.fromkeys(("nonnegative", "non negative", "\\R_\\ge0"), _NOT_BELOW)

_RELATIONS = {"=", "<", ">", "\\le", "\\ge", "\\ne", "\\in", "\\equiv", "\\approx", "\\sim"}
_FLIPPED = {">": "<", "\\ge": "\\le"}
_SETS = {"\\cup": "cup", "\\cap": "cap", "\\setminus": "minus"}
_JOINERS = dict.fromkeys((",", ";", "\\\\"), "")
_JOINERS |= dict.fromkeys(('"or', '"oder', '"ou', '"или', '"或'), "or")
_JOINERS |= dict.fromkeys(('"and', '"und', '"et', '"и', '"和', '"且'), "and")
_OR = {mark for mark, said in _JOINERS.items() if said == "or"} | {";"}
_SYSTEMS = {"\\begin{cases}", "\\begin{dcases}", "\\begin{aligned}", "\\begin{align}"}


@lru_cache(8192)
def parse(tokens: Tokens) -> Node:
    """The tree of an answer; a ("text", ...) where it is no mathematics, or nests too deeply."""
    return _parse(words.value(straightened(indexed(tokens))), 0)


def _parse(tokens: Tokens, depth: int) -> Node:
    if not tokens or depth > MAX_DEPTH or len(tokens) > MAX_TOKENS:
        return text(tokens)
    if tokens[0] == "{" and closes_at_end(tokens):
        inner = tokens[1:-2] if tokens[-2] in (".", ",") else tokens[1:-1]
        listed = len(split(inner, (",", ";"))[0]) > 1
        return ("set", _elements(inner, depth)) if listed else _parse(inner, depth + 1)
    worded = any(is_word(token) or token in ("|", "\\Z") for token in tokens[:3])
    if listed := spoken(tokens) if worded else None:
        return listed
    if all(map(is_word, tokens)) and (said := text(tokens))[0] != "text":
        return said
    if tree := _substituted(tokens, depth):
        return tree
    if solutions := _solutions(tokens, depth):
        return solutions
    parts, marks = split(tokens, _JOINERS)
    if 1 < len(parts) <= MAX_PARTS:
        return _list([part for part in parts if part], {_JOINERS[mark] for mark in marks}, depth)
    parts, signs = split(tokens, _RELATIONS)
    if len(parts) > 1 and not parts[0] and signs[0] in ("\\approx", "="):
        return _parse(tokens[1:], depth + 1)
    if len(parts) > 1 and all(parts):
        return _relation(signs, parts, depth)
    parts, signs = split(tokens, _SETS)
    if len(parts) == 1 and tokens[0] in ("\\R", "\\Z") and tokens[1:2] == ("-",):
        parts, signs = [tokens[:1], tokens[2:]], ["\\setminus"]
    if len(parts) > 1 and all(parts) and len(set(signs)) == 1:
        return (_SETS[signs[0]], tuple(_parse(part, depth + 1) for part in parts))
    inside = tokens[1:-1] if tokens[0] in "({[" else ()
    if not ("\\pm" in inside and "," in inside) and (tree := _enclosed(tokens, depth)):
        return tree
    if "\\pm" in tokens or "\\mp" in tokens:
        both = tuple(_both(tokens, depth + 1))
        return ("list", both, "") if len(both) > 1 else text(tokens)
    parts, _ = split(tokens, (":", '"to'))
    if len(parts) > 1 and all(parts):
        trees = tuple(_parse(part, depth + 1) for part in parts)
        if not any(tree[0] in ("text", "qty") for tree in trees):
            return ("ratio", trees)
    return _based(tokens) or _modulo(tokens, depth) or _leaf(tokens, depth)


def _leaf(tokens: Tokens, depth: int) -> Node:
    """An expression, a quantity, a value among words, a multiple of a matrix, or a text."""
    if tree := compound(tokens):
        return tree
    node, found = parse_expression(tokens), units.split(tokens)
    if node and (found is None or found[1] and units.is_noun(found[1])):
        return node
    if tree := vectors.combination(tokens, lambda part: _enclosed(part, depth + 1)):
        return tree
    if found:
        value, unit = found
        inner = parse_expression(value)
        if node and unit == units.DEGREE and any(token[1:] in FUNCTIONS for token in value):
            return node  # sin 30 degrees is not sin 30 with a unit
        if inner and inner != INFINITY:
            return ("qty", inner, unit) if unit else inner
    if node:
        return node
    if '"except' in tokens:
        at = tokens.index('"except')
        but = _parse(tuple(t for t in tokens[at + 1 :] if not is_word(t)), depth + 1)
        return (
            "minus",
            (
                _parse(tokens[:at], depth + 1),
                but if but[0] == "set" else ("set", but[1] if but[0] == "list" else (but,)),
            ),
        )
    spoken = [token for token in tokens if token != "-"]
    for size in (2, 1) if words.numeral(words.said(tokens)) is None else ():  # two real roots
        count = words.numeral(" ".join(t[1:].casefold() for t in spoken[:size] if is_word(t)))
        if count is not None and len(spoken) > size:
            return _parse((str(count), *spoken[size:]), depth + 1)
    inner = words.value(tokens)
    return _parse(inner, depth + 1) if inner != tokens else text(tokens)


def text(tokens: Tokens) -> Node:
    """What words say: a number, everything, nothing, or a ("text", ...) equal for texts alike."""
    said = words.said(tokens)
    if (value := words.numeral(said)) is not None:
        return number(value)
    if half := _HALVES.get(
        said.removeprefix("all ").removesuffix(" numbers").removesuffix(" reals")
    ):
        return half
    return {
        "integers": _WHOLE,
        "all integers": _WHOLE,
        "\\R": EVERYTHING,
        "\\varnothing": EMPTY,
        "\\infty": INFINITY,
    }.get(said) or (negated(INFINITY) if said == "negative \\infty" else ("text", said))


def _elements(tokens: Tokens, depth: int) -> tuple:
    tree = _parse(tokens, depth + 1)
    return filled(tree[1]) if tree[0] == "list" else (tree,)


def _list(parts: list[Tokens], marks: set[str], depth: int) -> Node:
    if len(parts) < 2:
        return _parse(parts[0], depth + 1) if parts else text(())
    trees = tuple(tree for part in parts for tree in _both(part, depth + 1))
    if whole := together(list(trees)):
        return whole
    trees = with_one_modulus(filled(enumerated(trees)))
    return ("list", trees, "or" if "or" in marks else "and" if "and" in marks else "")


def _solutions(tokens: Tokens, depth: int) -> Node | None:
    """ "x = 1, y = 2 or x = 2, y = 1" as a list of lists; None for what has no such parts."""
    parts, _ = split(tokens, _OR)
    parts = [part[:-1] if part[-1:] == (",",) else part for part in parts]
    if 1 < len(parts) <= MAX_PARTS and all("=" in part for part in parts):
        trees = [_parse(part, depth + 1) for part in parts]
        if all(t[0] == "list" and all(p[0] == "rel" for p in t[1]) for t in trees):
            return ("list", tuple(trees), "or")
    return None


def _substituted(tokens: Tokens, depth: int) -> Node | None:
    """n p (1 - p) of "n p q, where q = 1 - p"."""
    at = next((at for at, token in enumerate(tokens) if token in ('"where', '"with')), 0)
    front = tokens[: at - (tokens[at - 1 : at] == (",",))]
    if not at or len(tokens) < at + 4 or tokens[at + 2] != "=" or tokens[at + 1] not in front:
        return None
    value = parse_expression(tokens[at + 3 :])
    return value and replaced(_parse(front, depth + 1), ("sym", tokens[at + 1]), value)


def _both(tokens: Tokens, depth: int) -> list[Node]:
    r"""[1 + x, 1 - x] for 1 \pm x; one tree for what has no \pm."""
    count = tokens.count("\\pm") + tokens.count("\\mp")
    if count == 0 or count > 2 or set(tokens) & _RELATIONS:
        return [_parse(tokens, depth) if count < 3 else text(tokens)]
    swaps = ({"\\pm": a, "\\mp": b} for a, b in ("+-", "-+"))
    return [_parse(tuple(swap.get(token, token) for token in tokens), depth) for swap in swaps]


def _relation(signs: list[str], parts: list[Tokens], depth: int) -> Node:
    """A chain of relations; those that point left point right, so only < and \\le are left."""
    for at, sign in enumerate(signs):
        if sign in ("\\approx", "\\sim"):  # "sqrt 3 / 3 ≈ 0.577" states its first side
            first = (
                _relation(signs[:at], parts[: at + 1], depth) if at else _parse(parts[0], depth + 1)
            )
            return ("about", (first, *(_parse(part, depth + 1) for part in parts[at + 1 :])))
    trees = [
        ("sym", name) if (name := call_name(part)) else _parse(part, depth + 1)
        for part in parts[:-1]
    ]
    trees.append(_parse(parts[-1], depth + 1))
    if (name := call_name(parts[-1])) and signs[0] != "=":
        trees[-1] = ("sym", name)
    if signs == ["\\equiv"] and trees[1][0] != "mod":
        signs = ["="]
    if any(sign in _FLIPPED for sign in signs) and all(s in (*_FLIPPED, "=") for s in signs):
        signs, trees = [_FLIPPED.get(sign, sign) for sign in reversed(signs)], trees[::-1]
    return ("rel", tuple(signs), tuple(trees))


def _enclosed(tokens: Tokens, depth: int) -> Node | None:
    """The tree of tokens that are all between one pair of brackets; None where they are not."""
    if half := _HALVES.get(
        "".join(t for t in tokens if t not in ("{", "}")) if tokens[0] == "\\R" else ""
    ):
        return half
    if tokens in (("\\R",), ("\\varnothing",)):
        return EVERYTHING if tokens[0] == "\\R" else EMPTY
    if tokens[-2:] == ("^", "T") and (tree := _enclosed(tokens[:-2], depth)):
        if tree[0] == "matrix":
            return ("matrix", tuple(zip(*tree[1], strict=False)))
        return ("matrix", tuple((part,) for part in tree[3])) if tree[0] == "tuple" else None
    first, last, inner = tokens[0], tokens[-1], tokens[1:-1]
    if first.startswith("\\begin{") and last == first.replace("begin", "end"):
        rows = [split(row, ("&",))[0] for row in split(inner, ("\\\\",))[0] if row]
        if first == "\\begin{matrix}":
            return _matrix(rows, depth)
        return _cases(rows, depth) if first in _SYSTEMS else None
    if (
        len(tokens) > 3
        and first.strip('"').isupper()
        and len(first.strip('"')) == 1
        and first != "C"
    ):
        behind = tokens[1 + (tokens[1] == "'") :]  # the point M(2; 3) or M'(2; 3)
        tree = _enclosed(behind, depth) if behind[0] == "(" else None
        return tree if tree and tree[0] == "tuple" else None
    if first == '"diag' and (tree := _enclosed(tokens[1:], depth)) and tree[0] == "tuple":
        size = range(len(tree[3]))
        return (
            "matrix",
            tuple(tuple(tree[3][i] if i == j else number(0) for j in size) for i in size),
        )
    if len(tokens) < 2 or not closes_at_end(tokens):
        return None
    if first == "\\{" and last == "\\}":
        parts, _ = split(inner, ("|", ":"))
        condition = inner[len(parts[0]) + 1 :]
        if parts[0] and condition:
            return ("builder", _parse(parts[0], depth + 1), _parse(condition, depth + 1))
        return ("set", _elements(inner, depth) if inner else ())
    if first in ("(", "[") and inner[:1] == ("\\begin{matrix}",):
        return _parse(inner, depth + 1)
    parts, _ = split(inner, (",", ";"))
    if first == last == "[" or (
        first == "[" and all(p[:1] == ("[",) and closes_at_end(p) for p in parts)
    ):
        return _matrix([split(row[1:-1], (",",))[0] for row in parts], depth)
    if first in ("(", "[", "\\langle") and last in (")", "]", "\\rangle") and inner:
        if 1 < len(parts) <= MAX_PARTS and all(parts):
            opening, closing = ("(", ")") if first == "\\langle" else (first, last)
            return ("tuple", opening, closing, tuple(_parse(part, depth + 1) for part in parts))
        if len(parts) == 1 and (first, last) == ("(", ")"):
            tree = _parse(inner, depth + 1)
            return None if tree[0] == "text" and len(inner) > 1 else tree
    return None


def _matrix(rows: list[list[Tokens]], depth: int) -> Node | None:
    if not rows or len(rows) * len(rows[0]) > MAX_PARTS:
        return None
    return ("matrix", tuple(tuple(_parse(cell, depth + 1) for cell in row) for row in rows))


def _cases(rows: list[list[Tokens]], depth: int) -> Node:
    """A system of equations as a list; a function in cases as the set of (value, condition)."""
    if all(len(row) == 1 and len(split(row[0], (",",))[0]) == 1 for row in rows):
        return ("list", tuple(_parse(row[0], depth + 1) for row in rows), "and")
    pairs = []
    for row in rows:
        flat = tuple(t for cell in row for t in (*cell, ",") if t not in ('"if', '"for', '"when'))
        parts = [part for part in split(flat, (",",))[0] if part]
        pairs.append(("tuple", "(", ")", tuple(_parse(part, depth + 1) for part in parts)))
    return ("set", tuple(pairs))


def _based(tokens: Tokens) -> Node | None:
    r"""1011_2 and \text{AB}_{16}; a letter with an index is none."""
    bare = [token.strip('"') for token in tokens if token not in ("{", "}", "(", ")")]
    if "_" not in bare or tokens[0] == "\\frac":
        return None
    at = bare.index("_")
    digits, base = "".join(bare[:at]).upper(), "".join(bare[at + 1 :])
    base = str(words.numeral(base.lower()) or base)
    if base.isdigit() and 1 < int(base) <= 36 and re.fullmatch("[0-9A-Z]+([.][0-9A-Z]+)?", digits):
        fits = all(int(digit, 36) < int(base) for digit in digits.replace(".", ""))
        if fits and base == "10":
            return number(Fraction(digits))
        if fits and (digits[0].isdigit() or base == "16" and len(digits) > 1):
            return ("based", words.digits(digits), base)
    return None


def _modulo(tokens: Tokens, depth: int) -> Node | None:
    flat = tuple(t for t in tokens if t not in ("\\bmod", "\\pmod", "\\mod", '"mod'))
    at = next((i for i, token in enumerate(tokens) if i and token[-3:] == "mod"), 0)
    if not at or len(flat) != len(tokens) - 1:
        return None
    value, modulus = tokens[:at], tuple(t for t in tokens[at + 1 :] if t not in ("(", ")"))
    value = value[:-1] if value[-1] == "(" else value
    found = parse_expression(value), parse_expression(modulus)
    return ("mod", *found) if all(found) else None
