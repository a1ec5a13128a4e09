r"""What answers consist of beside expressions: lists, sets, tuples, intervals, matrices, relations.

`parse` takes the tokens of an answer apart, `same` compares two such trees. Whether two leaves are
equal is asked of a function, so that the exact path and sympy share the rules of this module:

    a list and a set hold their elements in any order, and each of them once in a set;
    a tuple and an interval are ordered, and their brackets count: (1, 2) may be either, [1, 2) not;
    a list is no tuple, an element is no set, and an equation no value.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

from permix_jax.rewards.latex import Tokens, is_word, word

MAX_DEPTH = 6
MAX_PARTS = 60

_OPEN = {"(", "[", "\\{", "{", "\\langle", "\\lfloor", "\\lceil"}
_CLOSE = {")", "]", "\\}", "}", "\\rangle", "\\rfloor", "\\rceil"}
_RELATIONS = {"=", "<", ">", "\\le", "\\ge", "\\ne", "\\in", "\\equiv", "\\approx"}
_FLIPPED = {">": "<", "\\ge": "\\le"}
_BRACKETS = {"(": ")", "[": "]", "\\langle": "\\rangle"}


class Leaf(NamedTuple):
    tokens: Tokens


class Many(NamedTuple):
    """`kind` is list, set, union or matrix (whose parts are rows); `mark` is "or" in "x or y"."""

    kind: str
    parts: tuple
    mark: str = ""


class Pair(NamedTuple):
    """A tuple or an interval: two or more parts between brackets."""

    opening: str
    closing: str
    parts: tuple


class Relation(NamedTuple):
    """parts[0] signs[0] parts[1] ...; only < and \\le, never > or \\ge."""

    signs: tuple[str, ...]
    parts: tuple


Tree = Leaf | Many | Pair | Relation
Same = bool | None
SameLeaf = Callable[[Tokens, Tokens], Same]
SameRelation = Callable[[Relation, Relation], Same]


@lru_cache(8192)
def parse(tokens: Tokens) -> Tree:
    """The tree of an answer; what has no structure, or too deep a one, is a Leaf."""
    return _parse(tokens, 0)


def _parse(tokens: Tokens, depth: int) -> Tree:
    if depth > MAX_DEPTH or len(tokens) > 400:
        return Leaf(tokens)
    # "or" between relations binds less than a comma, and and/or within a list are commas.
    for is_separator, kind in (
        (lambda t: t in (",", ";") or (is_word(t) and word(t) in ("or", "and")), "list"),
        (lambda t: t == "\\cup", "union"),
    ):
        parts, marks = _split(tokens, is_separator)
        if 1 < len(parts) <= MAX_PARTS and not _is_thousands(parts, marks):
            parts = [part for part in parts if part]
            if len(parts) == 1:
                return _parse(parts[0], depth + 1)
            trees = tuple(tree for part in parts for tree in _expanded(part, depth + 1))
            return Many(kind, trees, "or" if any("or" in mark for mark in marks) else "")
    parts, signs = _split(tokens, lambda t: t in _RELATIONS)
    if len(parts) > 1 and all(parts):
        return _relation(tuple(signs), tuple(_parse(part, depth + 1) for part in parts))
    if tree := _enclosed(tokens, depth):
        return tree
    if any(token in ("\\pm", "\\mp") for token in tokens):
        both = _expanded(tokens, depth + 1)
        return Many("list", tuple(both)) if len(both) > 1 else Leaf(tokens)
    parts, _ = _split(tokens, lambda t: t == ":" or (is_word(t) and word(t) == "to"))
    if len(parts) > 1 and all(parts):
        return _ratio(parts)
    return _multiple_of_matrix(tokens, depth) or Leaf(tokens)


def _ratio(parts: list[Tokens]) -> Tree:
    """a : b is the fraction a/b; a : b : c has two of them."""
    first = parts[0]
    quotients = [("\\frac", "{", *first, "}", "{", *part, "}") for part in parts[1:]]
    if len(quotients) == 1:
        return Leaf(quotients[0])
    return Pair(":", ":", tuple(Leaf(quotient) for quotient in quotients))


def _multiple_of_matrix(tokens: Tokens, depth: int) -> Tree | None:
    """A number in front of a matrix, multiplied into its entries."""
    if "\\begin{matrix}" not in tokens[1:]:
        return None
    place = tokens.index("\\begin{matrix}")
    place -= tokens[place - 1] in ("(", "[")
    factor, matrix = tokens[:place], _enclosed(tokens[place:], depth + 1)
    while factor[-1:] and factor[-1] in ("\\cdot", "\\times"):
        factor = factor[:-1]
    factor = ("-", "1") if factor == ("-",) else factor
    if not factor or not isinstance(matrix, Many) or matrix.kind != "matrix":
        return None
    cells = [cell for row in matrix.parts for cell in row]
    if not all(isinstance(cell, Leaf) for cell in cells):
        return None
    scaled = tuple(
        tuple(Leaf(("(", *factor, ")", "(", *cell.tokens, ")")) for cell in row)
        for row in matrix.parts
    )
    return Many("matrix", scaled)


def _enclosed(tokens: Tokens, depth: int) -> Tree | None:
    """The tree of tokens that are all between one pair of brackets; None where they are not."""
    if len(tokens) < 2:
        return None
    first, last = tokens[0], tokens[-1]
    if first == "\\begin{matrix}" and last == "\\end{matrix}":
        rows = [part for part in _split(tokens[1:-1], lambda t: t == "\\\\")[0] if part]
        cells = [_split(row, lambda t: t == "&")[0] for row in rows]
        if rows and len(rows) * len(cells[0]) <= MAX_PARTS:
            trees = tuple(tuple(_parse(cell, depth + 1) for cell in row) for row in cells)
            return Many("matrix", trees)
        return None
    if not _closes_at_end(tokens):
        return None
    inner = tokens[1:-1]
    if first == "\\{" and last == "\\}" and (tree := _set_builder(inner, depth)):
        return tree
    if first in ("(", "[") and inner[:1] == ("\\begin{matrix}",):
        return _enclosed(inner, depth)
    parts, _ = _split(inner, lambda t: t in (",", ";"))
    if first == "\\{" and last == "\\}" and not any(t in ("|", ":") for t in inner):
        if not inner:
            return Many("set", ())
        whole = _parse(inner, depth + 1)
        parts = whole.parts if isinstance(whole, Many) and whole.kind == "list" else (whole,)
        return Many("set", parts)
    if first in ("(", "[", "\\langle") and last in (")", "]", "\\rangle"):
        if 1 < len(parts) <= MAX_PARTS and all(parts):
            angled = first == "\\langle"
            trees = tuple(_parse(part, depth + 1) for part in parts)
            return Pair("(" if angled else first, ")" if angled else last, trees)
        if len(parts) == 1 and first == "(" and last == ")":
            inside = _parse(inner, depth + 1)
            if not isinstance(inside, Leaf):
                return inside
    return None


def _set_builder(inner: Tokens, depth: int) -> Tree | None:
    r"""The interval {x : 1 < x < 2} as one; other conditions as they are written, after a bar."""
    ends = 4 if inner[1:4] == ("\\in", "\\mathbb", "R") else 1
    if not _is_variable(Leaf(inner[:1])) or inner[ends : ends + 1] not in (("|",), (":",)):
        return None
    condition = inner[ends + 1 :]
    tree = as_interval(_parse(condition, depth + 1), inner[0])
    if isinstance(tree, Pair) or (isinstance(tree, Many) and tree.kind == "union"):
        return tree
    return Leaf(("\\{", *inner[:ends], "|", *condition, "\\}"))


def _closes_at_end(tokens: Tokens) -> bool:
    level = 0
    for place, token in enumerate(tokens):
        level += (token in _OPEN) - (token in _CLOSE)
        if level == 0:
            return place == len(tokens) - 1
    return False


def _split(tokens: Sequence[str], is_separator) -> tuple[list[Tokens], list[str]]:
    """The parts between separators outside all brackets, and the separators."""
    parts: list[list[str]] = [[]]
    separators = []
    level = 0
    for token in tokens:
        if token in _OPEN or token.startswith("\\begin{"):
            level += 1
        elif token in _CLOSE or token.startswith("\\end{"):
            level -= 1
        if level == 0 and is_separator(token):
            parts.append([])
            separators.append(word(token) if is_word(token) else token)
        else:
            parts[-1].append(token)
    return [tuple(part) for part in parts], separators


def _is_thousands(parts: list[Tokens], marks: list[str]) -> bool:
    """Whether the commas separate thousands: "1,234" but not "1, 23" or "123, 0"."""
    if any(mark != "," for mark in marks):
        return False
    first = "".join(parts[0]).lstrip("+-\\$")
    whole, _, decimals = "".join(parts[-1]).partition(".")
    middle = [*("".join(part) for part in parts[1:-1]), whole[:3]]
    rest = whole[3:]
    return (
        first.isdigit()
        and len(first) <= 3
        and first[0] != "0"
        and all(len(part) == 3 and part.isdigit() for part in middle)
        and not rest[:1].isdigit()
        and (not decimals or decimals[0].isdigit())
    )


def _expanded(tokens: Tokens, depth: int) -> list[Tree]:
    r"""[1 + x, 1 - x] for 1 \pm x; one tree for what has no \pm."""
    signs = [place for place, token in enumerate(tokens) if token in ("\\pm", "\\mp")]
    if not signs:
        return [_parse(tokens, depth)]
    if len(signs) > 2:
        return [Leaf(tokens)]
    both = []
    for plus in ("+", "-"):
        other = "-" if plus == "+" else "+"
        swap = {"\\pm": plus, "\\mp": other}
        both.append(_parse(tuple(swap.get(token, token) for token in tokens), depth))
    return both


def _relation(signs: tuple[str, ...], parts: tuple) -> Relation:
    if signs[0] in _FLIPPED and all(sign in (*_FLIPPED, "=") for sign in signs):
        signs, parts = tuple(_FLIPPED.get(s, s) for s in reversed(signs)), parts[::-1]
    return Relation(signs, parts)


def as_interval(tree: Tree, letter: str = "") -> Tree:
    r"""x \in (1, 2), 1 < x < 2 and x > 1 as sets; every other tree as it is.

    `letter`: what x has to be called; "": any variable will do.
    """
    if isinstance(tree, Many) and tree.kind == "list" and tree.mark:
        parts = tuple(as_interval(part, letter) for part in tree.parts)
        if all(isinstance(part, Pair) for part in parts):
            return Many("union", parts)
    if not isinstance(tree, Relation):
        return tree
    if tree.signs == ("\\in",):
        return as_interval(tree.parts[1])
    if not all(sign in ("<", "\\le") for sign in tree.signs):
        return tree
    infinite = Leaf(("\\infty",)), Leaf(("-", "\\infty"))
    closed = [sign == "\\le" for sign in tree.signs]
    if len(tree.parts) == 3 and _is_variable(tree.parts[1], letter):
        low, _, high = tree.parts
        return Pair("[" if closed[0] else "(", "]" if closed[1] else ")", (low, high))
    if len(tree.parts) == 2 and _is_variable(tree.parts[0], letter):
        return Pair("(", "]" if closed[0] else ")", (infinite[1], tree.parts[1]))
    if len(tree.parts) == 2 and _is_variable(tree.parts[1], letter):
        return Pair("[" if closed[0] else "(", ")", (tree.parts[0], infinite[0]))
    return tree


def _is_variable(tree: Tree, letter: str = "") -> bool:
    if not isinstance(tree, Leaf) or len(tree.tokens) != 1 or tree.tokens[0] in ("e", "i"):
        return False
    if letter:
        return tree.tokens[0] == letter
    return tree.tokens[0].isalpha() or tree.tokens[0] in ("\\theta", "\\alpha", "\\lambda")


def same(tree: Tree, gold: Tree, same_leaf: SameLeaf, same_relation: SameRelation) -> Same:
    """Whether two answers are equal; None where a leaf that matters is undecided."""

    def equal(one: Tree, two: Tree) -> Same:
        if type(one) is not type(two) or _kind(one) != _kind(two):
            one, two = as_interval(one), as_interval(two)
        if isinstance(one, Leaf) and isinstance(two, Leaf):
            return same_leaf(one.tokens, two.tokens)
        if isinstance(one, Relation) and isinstance(two, Relation):
            return same_relation(one, two)
        if isinstance(one, Pair) and isinstance(two, Pair):
            if (one.opening, one.closing) != (two.opening, two.closing):
                return False
            return _in_order(one.parts, two.parts, equal)
        if isinstance(one, Many) and isinstance(two, Many):
            if one.kind == two.kind == "matrix":
                if [len(row) for row in one.parts] != [len(row) for row in two.parts]:
                    return False
                return _in_order(sum(one.parts, ()), sum(two.parts, ()), equal)
            if "matrix" in (one.kind, two.kind) or (one.kind == "union") != (two.kind == "union"):
                return False
            once = "set" in (one.kind, two.kind)
            return _in_any_order(
                _distinct(one.parts, equal) if once else one.parts,
                _distinct(two.parts, equal) if once else two.parts,
                equal,
            )
        return False

    return equal(tree, gold)


def _kind(tree: Tree) -> str:
    if isinstance(tree, Relation):
        return " ".join(tree.signs)
    return ("set" if tree.kind == "list" else tree.kind) if isinstance(tree, Many) else ""


def _in_order(parts: tuple, golds: tuple, equal: Callable) -> Same:
    if len(parts) != len(golds):
        return False
    verdicts = []
    for part, gold in zip(parts, golds, strict=True):
        verdicts.append(equal(part, gold))
        if verdicts[-1] is False:
            return False
    return None if None in verdicts else True


def _in_any_order(parts: tuple, golds: tuple, equal: Callable) -> Same:
    """Pairs each gold part with an equal one; the first one does, for equality is transitive."""
    if len(parts) != len(golds):
        return False
    left, undecided = list(parts), []
    for gold in golds:
        verdicts = [equal(part, gold) for part in left]
        if True in verdicts:
            left.pop(verdicts.index(True))
        elif None in verdicts:
            undecided.append(gold)
        else:
            return False
    return None if undecided else True


def _distinct(parts: tuple, equal: Callable) -> tuple:
    kept: list[Tree] = []
    for part in parts:
        if not any(equal(part, other) for other in kept):
            kept.append(part)
    return tuple(kept)
