r"""The "x =" in front of an answer, held against the problem's wording."""

import re
from functools import lru_cache

from permix_jax.rewards import exact, latex
from permix_jax.rewards.expression import children
from permix_jax.rewards.expression import parse as parse_expression
from permix_jax.rewards.structure import Leaf, Many, Pair, Relation, Tree

_ASKS = (
    r"(?i:\b(?:find|values?\s+of|compute|determine|evaluate|what\s+is|solve\s+for|give|calculate))"
)
_ASKED = re.compile(_ASKS + r"\s+\$([^$]{1,60}?)[.?]?\$(?!\s*(?:and\b|,))")
_OBJECT = re.compile(
    r"(?i)\b(?:equation|line|graph|curve|asymptotes?|functions?|parabola|formula)\b"
)
_SPACING = re.compile(r"\\(?:left|right|displaystyle|[,;:! ])|[\s${}]")
_CALL = re.compile(r"[A-Za-z](?:\^\{-1\})?\([A-Za-z0-9,]+\)")


def unnamed(tree: Tree, gold: Tree, prompt: str) -> tuple[Tree | None, Tree]:
    """Both without "x =" where one of them has none; None: the name is not what is asked for."""
    if isinstance(gold, Many) and isinstance(tree, Many):
        names, gold_names = _names(tree), _names(gold)
        if names and not any(isinstance(p, Relation) for p in gold.parts):
            return _values(tree), gold
        if gold_names and not any(isinstance(p, Relation) for p in tree.parts):
            return tree, _values(gold)
        return tree, gold
    if isinstance(gold, Pair) and isinstance(tree, Many) and tree.kind == "list":
        return _as_pair(tree, prompt) or tree, gold
    is_equation, gold_is_equation = _is_equation(tree), _is_equation(gold)
    if is_equation and not gold_is_equation:
        if isinstance(gold, Relation):
            return tree, gold
        if not _may_be_named(tree, prompt):
            return None, gold
        return tree.parts[-1], gold
    if gold_is_equation and not is_equation and not isinstance(tree, Relation):
        if _may_leave_out(gold, prompt) and _may_be_named(gold, prompt):
            return tree, gold.parts[-1]
        return None, gold
    if is_equation and gold_is_equation:
        return _first_and_last(tree), _first_and_last(gold)
    return tree, gold


def _is_equation(tree: Tree) -> bool:
    return isinstance(tree, Relation) and set(tree.signs) == {"="}


def _first_and_last(tree: Relation) -> Relation:
    return Relation(("=",), (tree.parts[0], tree.parts[-1]))


def _names(tree: Many) -> set[str]:
    """The one variable of "x = 2, x = 5" or "x = 2, 5"; empty where there are more or none."""
    names = {"".join(p.parts[0].tokens) for p in tree.parts if _is_assignment(p)}
    others = [p for p in tree.parts if isinstance(p, Relation) and not _is_assignment(p)]
    return names if len(names) == 1 and not others else set()


def _is_assignment(tree: Tree) -> bool:
    if not _is_equation(tree) or not isinstance(tree.parts[0], Leaf):
        return False
    return _is_variable(tree.parts[0].tokens)


def _is_variable(tokens: latex.Tokens) -> bool:
    node = parse_expression(tokens)
    return node is not None and node[0] == "symbol"


def _values(tree: Many) -> Many:
    parts = tuple(p.parts[-1] if isinstance(p, Relation) else p for p in tree.parts)
    return Many(tree.kind, parts)


def _as_pair(tree: Many, prompt: str) -> Pair | None:
    """(2, 3) of "x = 2, y = 3" where the problem asks for (x, y)."""
    if not all(_is_assignment(part) and len(part.parts) == 2 for part in tree.parts):
        return None
    names = ["".join(part.parts[0].tokens) for part in tree.parts]
    if "(" + ",".join(names) + ")" not in _SPACING.sub("", prompt):
        return None
    return Pair("(", ")", tuple(part.parts[1] for part in tree.parts))


def _may_be_named(tree: Relation, prompt: str) -> bool:
    """Whether the left of "x = 5" names what is asked for, or "2 + 3 = 5" is true."""
    for side in tree.parts[:-1]:
        if not isinstance(side, Leaf):
            return isinstance(side, Pair)  # (x, y) = (1, 2)
        node = parse_expression(side.tokens)
        if node is None:
            continue
        if not _has_variable(node):
            last = tree.parts[-1]
            if not isinstance(last, Leaf) or exact.same_leaf(side.tokens, last.tokens) is False:
                return False
        elif node[0] == "symbol":
            asked = _asked_names(prompt)
            if asked and latex.form(side.tokens) not in asked:
                return False
        elif not _is_call(side.tokens):
            if squeezed(latex.form(side.tokens)) not in squeezed(prompt[-8000:]):
                return False
    return True


def _has_variable(node: tuple) -> bool:
    if node[0] == "symbol":
        return node[1] not in ("\\pi", "e", "i") and node[1][0] not in ".0123456789"
    return any(map(_has_variable, children(node)))


def _is_call(tokens: latex.Tokens) -> bool:
    """Whether this is f(x), or a_n: a name of a value."""
    return _CALL.fullmatch("".join(tokens)) is not None


def _may_leave_out(gold: Relation, prompt: str) -> bool:
    if not isinstance(gold.parts[0], Leaf):
        return False
    name = latex.form(gold.parts[0].tokens)
    return name in _asked_names(prompt) or not _OBJECT.search(prompt)


@lru_cache(4096)
def _asked_names(prompt: str) -> frozenset[str]:
    """What the problem asks for by name: {"x"} of "Find $x$."."""
    asked = (latex.read(match[1]) for match in _ASKED.finditer(prompt[:4000]))
    return frozenset(latex.form(tokens) for tokens in asked if tokens)


def squeezed(text: str) -> str:
    """LaTeX without spacing and braces, to be looked for in other such text."""
    return _SPACING.sub("", text).replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac")
