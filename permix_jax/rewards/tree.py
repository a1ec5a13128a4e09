r"""Trees of answers: buys the verdicts on lists, tuples, relations, matrices and worded values.

`parse` takes tokens apart from the outside: lists, unions, relations, brackets, quantities, and at
last expressions (`expression.py`). What is no mathematics is a text. Beside expressions there are

    ("list", parts, mark)   mark is "or" or "and" where a word or a comma says so
    ("set", parts)   ("tuple", opening, closing, parts)   ("matrix", rows)   ("ratio", parts)
    ("rel", signs, parts)   ("cup" | "cap" | "minus", parts)   ("builder", name, condition)
    ("qty", value, unit)   ("text", words)   ("based", digits, base)
"""

import re
from fractions import Fraction
from functools import lru_cache

from permix_jax.rewards import units, words
from permix_jax.rewards.expression import (
    Node,
    call_name,
    has_call,
    is_name,
    negated,
    number,
    parse_expression,
    times,
)
from permix_jax.rewards.notation import Tokens, is_word

MAX_DEPTH = 6
MAX_PARTS = 60
MAX_TOKENS = 400

_OPEN = {"(", "[", "\\{", "{", "\\langle", "\\lfloor", "\\lceil"}
_CLOSE = {")", "]", "\\}", "}", "\\rangle", "\\rfloor", "\\rceil"}
_RELATIONS = {"=", "<", ">", "\\le", "\\ge", "\\ne", "\\in", "\\equiv", "\\approx", "\\sim"}
_FLIPPED = {">": "<", "\\ge": "\\le"}
_SETS = {"\\cup": "cup", "\\cap": "cap", "\\setminus": "minus"}
_JOINERS = {'"or': "or", '"and': "and", '"oder': "or", '"und': "and", '"ou': "or", '"et': "and",
            '"y': "and", ",": "", ";": "", '"или': "or", '"и': "and", '"或': "or", '"和': "and"}  # fmt: skip
EVERYTHING = ("tuple", "(", ")", (negated(("inf",)), ("inf",)))
EMPTY = ("set", ())
_BEFORE = {"", "\\cup", "\\cap", "\\in", "=", "(", "\\setminus", '"or'}
_BEHIND = {"", "\\cup", "\\cap", ")", "\\setminus", ",", '"or'}
_BASED = re.compile(r"[0-9A-Z]+")


@lru_cache(8192)
def parse(tokens: Tokens) -> Node:
    """The tree of an answer; a ("text", ...) where it is no mathematics, or nests too deeply."""
    return _parse(_turned(tokens), 0)


def _turned(tokens: Tokens) -> Tokens:
    """]0, 1[ of other countries as (0, 1)."""
    if "[" not in tokens:
        return tokens
    around = ("", *tokens, "")
    turned = list(tokens)
    for place, token in enumerate(tokens):
        if token == "]" and around[place] in _BEFORE:
            turned[place] = "("
        if token == "[" and around[place + 2] in _BEHIND:
            turned[place] = ")"
    return tuple(turned)


def _parse(tokens: Tokens, depth: int) -> Node:
    if not tokens or depth > MAX_DEPTH or len(tokens) > MAX_TOKENS:
        return text(tokens)
    if inner := _braced(tokens):
        return _parse(inner, depth + 1) if not _splits(inner) else ("set", _elements(inner, depth))
    parts, marks = split(tokens, _JOINERS)
    if 1 < len(parts) <= MAX_PARTS:
        parts = [part for part in parts if part]
        if len(parts) > 1:
            trees = tuple(tree for part in parts for tree in _both(part, depth + 1))
            if whole := _together(list(trees)):
                return whole
            named = {_JOINERS[mark] for mark in marks}
            return ("list", trees, "or" if "or" in named else "and" if "and" in named else "")
        return _parse(parts[0], depth + 1) if parts else text(tokens)
    parts, signs = split(tokens, _RELATIONS)
    if signs == ["\\approx"] and not parts[0]:
        return _parse(parts[1], depth + 1)
    if len(parts) > 1 and all(parts):
        return _relation(signs, parts, depth)
    parts, signs = split(tokens, _SETS)
    if len(parts) > 1 and all(parts) and len(set(signs)) == 1:
        return (_SETS[signs[0]], tuple(_parse(part, depth + 1) for part in parts))
    if tree := _enclosed(tokens, depth) or _based(tokens):
        return tree
    if "\\pm" in tokens or "\\mp" in tokens:
        both = tuple(_both(tokens, depth + 1))
        return ("list", both, "") if len(both) > 1 else text(tokens)
    parts, _ = split(tokens, (":", '"to'))
    if len(parts) > 1 and all(parts):
        trees = tuple(_parse(part, depth + 1) for part in parts)
        if not any(tree[0] == "text" for tree in trees):
            return ("ratio", trees)
    return _leaf(tokens, depth)


def _leaf(tokens: Tokens, depth: int) -> Node:
    """An expression, a quantity, a value among words, a multiple of a matrix, or a text."""
    found = units.split(tokens) if len(tokens) > 1 else None
    node = parse_expression(tokens)
    if node and (found is None or found[1] and units.is_noun(found[1])):
        return node
    if tree := _multiple_of_matrix(tokens, depth):
        return tree
    if found:
        value, unit = found
        inner = parse_expression(value)
        if node and inner and unit == units.DEGREE and has_call(inner):
            return node  # sin 30 degrees is not sin 30 with a unit
        if inner and inner[0] != "inf":
            return ("qty", inner, unit) if unit else inner
    if node:
        return node
    if tree := _compound(tokens):
        return tree
    if (inner := words.value(tokens)) != tokens:
        return _parse(inner, depth + 1)
    return text(tokens)


def _compound(tokens: Tokens) -> Node | None:
    """5 feet 3 inches as 63 inches."""
    starts = [
        i
        for i, token in enumerate(tokens)
        if i and token[0].isdigit() and tokens[i - 1] not in "^-/"
    ]
    if tokens and tokens[0][0].isdigit() and starts:
        edges = [0, *starts, len(tokens)]
        found = [units.split(tokens[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
        return _together([("qty", parse_expression(f[0]), f[1]) if f else None for f in found])
    return None


def _together(parts: list) -> Node | None:
    """The sum of quantities in other units of one kind; None for other parts."""
    if any(p is None or p[0] != "qty" or not p[1] or not p[2] for p in parts):
        return None
    last = parts[-1][2]
    factors = [units.conversion(unit, last) for _, _, unit in parts]
    if len({unit for _, _, unit in parts}) < len(parts) or None in factors:
        return None
    terms = tuple(
        times(number(f[0]), value) for f, (_, value, _) in zip(factors, parts, strict=True)
    )
    return ("qty", ("+", terms), last)


def text(tokens: Tokens) -> Node:
    """The ("text", ...) of tokens: equal for texts that people read alike."""
    said = words.said(tokens)
    if (number := words.numeral(said)) is not None:
        return ("num", Fraction(number))
    return EVERYTHING if said == "\\R" else EMPTY if said == "\\varnothing" else ("text", said)


def split(tokens: Tokens, separators) -> tuple[list[Tokens], list[str]]:
    """The parts between separators outside all brackets, and the separators."""
    parts: list[list[str]] = [[]]
    found = []
    level = 0
    for token in tokens:
        level += token in _OPEN or token[:7] == "\\begin{"
        level -= token in _CLOSE or token[:5] == "\\end{"
        if level <= 0 and (token in separators or (is_word(token) and token.lower() in separators)):
            parts.append([])
            found.append(token.lower() if is_word(token) else token)
        else:
            parts[-1].append(token)
    return [tuple(part) for part in parts], found


def _splits(tokens: Tokens) -> bool:
    return len(split(tokens, (",", ";"))[0]) > 1


def _braced(tokens: Tokens) -> Tokens:
    """What stands between braces that hold all of the tokens; () where there are none."""
    return tokens[1:-1] if tokens[0] == "{" and _closes_at_end(tokens) else ()


def _closes_at_end(tokens: Tokens) -> bool:
    level = 0
    for place, token in enumerate(tokens):
        level += (token in _OPEN) - (token in _CLOSE)
        if level == 0:
            return place == len(tokens) - 1
    return False


def _elements(tokens: Tokens, depth: int) -> tuple:
    tree = _parse(tokens, depth + 1)
    return tree[1] if tree[0] == "list" else (tree,)


def _both(tokens: Tokens, depth: int) -> list[Node]:
    r"""[1 + x, 1 - x] for 1 \pm x; one tree for what has no \pm."""
    count = tokens.count("\\pm") + tokens.count("\\mp")
    if count == 0 or count > 2:
        return [_parse(tokens, depth) if not count else text(tokens)]
    both = []
    for plus, minus in ("+-", "-+"):
        swap = {"\\pm": plus, "\\mp": minus}
        both.append(_parse(tuple(swap.get(token, token) for token in tokens), depth))
    return both


def _relation(signs: list[str], parts: list[Tokens], depth: int) -> Node:
    """A chain of relations; those that point left point right, so only < and \\le are left."""
    if "\\approx" in signs or "\\sim" in signs:
        # "sqrt 3 / 3 ≈ 0.577" states its first side, with the other as a help.
        place = min(i for i, sign in enumerate(signs) if sign in ("\\approx", "\\sim"))
        left = tuple(t for i, p in enumerate(parts[: place + 1]) for t in (*p, *signs[i:place][:1]))
        trees = (_parse(left, depth + 1), *(_parse(p, depth + 1) for p in parts[place + 1 :]))
        return ("about", trees)
    trees = [_parse(part, depth + 1) for part in parts]
    if signs[0] == "=" and (name := call_name(parts[0])):
        trees[0] = ("sym", name)
    if any(sign in _FLIPPED for sign in signs) and all(s in (*_FLIPPED, "=") for s in signs):
        signs, trees = [_FLIPPED.get(sign, sign) for sign in reversed(signs)], trees[::-1]
    return ("rel", tuple(signs), tuple(trees))


def _enclosed(tokens: Tokens, depth: int) -> Node | None:
    """The tree of tokens that are all between one pair of brackets; None where they are not."""
    first, last = tokens[0], tokens[-1]
    if tokens in (("\\R",), ("\\varnothing",)):
        return EVERYTHING if tokens[0] == "\\R" else EMPTY
    if first == "\\begin{matrix}" and last == "\\end{matrix}":
        return _matrix([split(row, ("&",))[0] for row in split(tokens[1:-1], ("\\\\",))[0]], depth)
    if len(tokens) < 2 or not _closes_at_end(tokens):
        return None
    inner = tokens[1:-1]
    if first == "\\{" and last == "\\}":
        parts, _ = split(inner, ("|", ":"))
        if len(parts) == 2 and all(parts):
            return _builder(parts, depth)
        return ("set", _elements(inner, depth) if inner else ())
    if first in ("(", "[") and inner[:1] == ("\\begin{matrix}",):
        return _parse(inner, depth + 1)
    if first == "[" and inner[:1] == ("[",) and last == "]":
        rows = split(inner, (",",))[0]
        if all(len(row) > 2 and row[0] == "[" and _closes_at_end(row) for row in rows):
            return _matrix([split(row[1:-1], (",",))[0] for row in rows], depth)
    parts, _ = split(inner, (",", ";"))
    if first in ("(", "[", "\\langle") and last in (")", "]", "\\rangle"):
        if 1 < len(parts) <= MAX_PARTS and all(parts):
            opening, closing = ("(", ")") if first == "\\langle" else (first, last)
            return ("tuple", opening, closing, tuple(_parse(part, depth + 1) for part in parts))
        if len(parts) == 1 and inner and (first, last) == ("(", ")"):
            tree = _parse(inner, depth + 1)
            return None if tree[0] == "text" and len(inner) > 1 else tree
        if len(parts) == 1 and inner and (first, last) == ("[", "]"):
            return ("set", _elements(inner, depth)) if not parse_expression(tokens) else None
    return None


def _matrix(rows: list[list[Tokens]], depth: int) -> Node | None:
    rows = [row for row in rows if row and row != [()]]
    if not rows or len(rows) * len(rows[0]) > MAX_PARTS:
        return None
    return ("matrix", tuple(tuple(_parse(cell, depth + 1) for cell in row) for row in rows))


def _builder(parts: list[Tokens], depth: int) -> Node:
    r"""{x | x > 1}, {x \in R : x > 1} and {x : x > 1}."""
    name, condition = parts
    if name[1:] == ("\\in", "\\R"):
        name = name[:1]
    variable = parse_expression(name)
    if variable is None or not is_name(variable):
        return text((*name, "|", *condition))
    return ("builder", variable, _parse(condition, depth + 1))


def _multiple_of_matrix(tokens: Tokens, depth: int) -> Node | None:
    """A number in front of a matrix, multiplied into its entries."""
    if "\\begin{matrix}" not in tokens[1:]:
        return None
    place = tokens.index("\\begin{matrix}")
    place -= tokens[place - 1] in ("(", "[")
    front, matrix = tokens[:place], _enclosed(tokens[place:], depth + 1)
    front = ("-", "1") if front == ("-",) else front[:-1] if front[-1:] == ("\\cdot",) else front
    factor = parse_expression(front)
    if not factor or not matrix or matrix[0] != "matrix":
        return None
    rows = tuple(tuple(("*", (factor, cell)) for cell in row) for row in matrix[1])
    return ("matrix", rows)


def _based(tokens: Tokens) -> Node | None:
    r"""1011_2 and \text{AB}_{16}; a letter with an index is none."""
    base = (
        tuple(token for token in tokens[tokens.index("_") :] if token not in "{}")
        if "_" in tokens
        else ()
    )
    digits = "".join(token.strip('"') for token in tokens[: tokens.index("_")]) if base else ""
    if len(base) == 2 and base[1].isdigit() and int(base[1]) <= 36 and _BASED.fullmatch(digits):
        if digits[0].isdigit() or base[1] == "16" and len(digits) > 1:
            return ("based", digits.lstrip("0") or "0", base[1])
    return None
