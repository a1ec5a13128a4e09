r"""Names: buys the verdicts on "x =", "f(x) =" and "(p, q) =", held against the problem's wording."""

import re
from functools import lru_cache

from permix_jax.rewards.expression import Node, is_name, names, parse_expression
from permix_jax.rewards.notation import read, squeezed
from permix_jax.rewards.values import same_value

_ASKS = (
    r"(?i:\b(?:find|values?\s+of|compute|determine|evaluate|what\s+is|solve\s+for|give|calculate))"
)
_ASKED = re.compile(_ASKS + r"\s+\$([^$]{1,60}?)[.?]?\$(?!\s*(?:and\b|,))")
_OBJECT = re.compile(
    r"(?i)\b(?:equation|line|graph|curve|asymptotes?|parabola|plane|circle|locus|directrix|axis)\b"
)
_VALUES = {"num", "sym", "+", "*", "^", "f", "inf"}


def unnamed(tree: Node, gold: Node, prompt: str) -> tuple[Node | None, Node]:
    """Both without "x =" where one of them has none; None: what is named is not what is asked."""
    if _contradicts_itself(tree):
        return None, gold
    if gold[0] == "tuple" and tree[0] == "list" or tree[0] == "tuple" and gold[0] == "list":
        return _as_tuple(tree, prompt, gold), _as_tuple(gold, prompt, tree)
    if tree[0] in ("list", "set") or gold[0] in ("list", "set"):
        values, gold_values = _values(tree), _values(gold)
        if (values is None) != (gold_values is None) or _one_letter(tree) and _one_letter(gold):
            return values or tree, gold_values or gold
        return tree, gold
    named, gold_named = _is_equation(tree), _is_equation(gold)
    if named and gold_named:
        return _both_named(tree, gold)
    if named and gold[0] != "rel":
        return (tree[2][-1] if _may_be_named(tree, prompt) else None), gold
    if gold_named and tree[0] != "rel":
        if _may_leave_out(gold, prompt) and _may_be_named(gold, prompt):
            return tree, gold[2][-1]
        return None, gold
    return tree, gold


def _is_equation(tree: Node) -> bool:
    return tree[0] == "rel" and set(tree[1]) <= {"=", "\\equiv"} and "=" in tree[1]


def _contradicts_itself(tree: Node) -> bool:
    """Whether a chain as x = 5 + 6 = 7 holds two values that surely differ."""
    if not _is_equation(tree):
        return False
    parts = [part for part in tree[2] if part[0] in _VALUES]
    parts = [part for part in parts if not names(part)] if len(tree[2]) == 2 else parts[1:]
    return any(same_value(one, two) is False for one, two in zip(parts, parts[1:], strict=False))


def _both_named(tree: Node, gold: Node) -> tuple[Node, Node]:
    """f(x) = 2x and y = 2x by their values; other equations by their first and last sides."""
    (name, *_, value), (gold_name, *_, gold_value) = tree[2], gold[2]
    called = [n[0] == "sym" and ("(" in n[1] or n == ("sym", "y")) for n in (name, gold_name)]
    if all(called) and name != gold_name and ("sym", "y") in (name, gold_name):
        return value, gold_value
    if name == gold_name and _is_label(name):
        return value, gold_value
    return ("rel", ("=",), (name, value)), ("rel", ("=",), (gold_name, gold_value))


def _is_label(node: Node) -> bool:
    """Whether a left side names a value: x, f(x), Area, |AB|, (p, q), V_1 : V_2."""
    if node[0] in ("tuple", "ratio"):
        return all(map(_is_label, node[-1]))
    if node[0] == "f" and node[1] in ("bar", "abs"):
        return node[2][0][0] == "sym" and len(node[2][0][1]) > 1
    if node[0] == "*":  # \angle ABC
        return node[1][0] in (("sym", "\\angle"), ("sym", "\\triangle"), ("sym", "\\Delta"))
    return node[0] in ("text", "set") or (node[0] == "sym" and is_name(node))


def _assigned(tree: Node) -> bool:
    return _is_equation(tree) and _is_label(tree[2][0])


def _one_letter(tree: Node) -> bool:
    """Whether a list is "x = 2, x = 3", "x = 2, 3", or x_1 and x_2."""
    parts = tree[1] if tree[0] in ("list", "set") else (tree,)
    labels = {repr(part[2][0]).partition("_")[0].rstrip("')") for part in parts if _assigned(part)}
    plain = all(_assigned(part) or part[0] != "rel" for part in parts)
    return len(labels) == 1 and plain


def _values(tree: Node) -> Node | None:
    """The values of "x = 2, x = 3"; None where a list names nothing, or different things."""
    if not _one_letter(tree):
        return None
    if tree[0] not in ("list", "set"):
        return tree[2][-1]
    return (tree[0], tuple(p[2][-1] if _assigned(p) else p for p in tree[1]), *tree[2:])


def _as_tuple(tree: Node, prompt: str, other: Node) -> Node:
    """(2, 3) of "x = 2, y = 3", in the order in which the problem has (x, y), or the alphabet."""
    if tree[0] != "list" or not all(map(_assigned, tree[1])):
        return tree
    found = {part[2][0][1]: part[2][-1] for part in tree[1] if part[2][0][0] == "sym"}
    if len(found) != len(tree[1]) or len(found) != len(other[-1]):
        return tree
    for match in re.finditer(r"\(([^()]{3,40})\)", squeezed(prompt)):
        order = match[1].split(",")
        if set(order) == set(found):
            return ("tuple", "(", ")", tuple(found[name] for name in order))
    if list(found) == sorted(found):
        return ("tuple", "(", ")", tuple(found.values()))
    return tree


def _may_be_named(tree: Node, prompt: str) -> bool:
    """Whether the left of "x = 5" names what is asked for, or "2 + 3 = 5" is true."""
    left = tree[2][0]
    if left[0] == "sym" and is_name(left):
        asked = _asked_names(prompt)
        return "(" in left[1] or not asked or left[1] in asked
    if _is_label(left) or left[0] not in _VALUES:
        return True
    if not names(left):
        return True  # _contradicts_itself has seen to it
    return _written(left) in squeezed(prompt[-8000:]) or _in_prompt(left, prompt)


def _written(node: Node) -> str:
    """A plain sum or product as people write it."""
    match node:
        case ("num", value):
            return str(value)
        case ("sym", name):
            return name
        case ("+", terms):
            return "+".join(map(_written, terms)).replace("+-", "-")
        case ("*", (("num", -1), rest)):
            return "-" + _written(rest)
        case ("*", factors):
            return "".join(map(_written, factors))
        case ("^", base, exponent):
            return f"{_written(base)}^{_written(exponent)}"
    return "\0"


@lru_cache(1024)
def _formulas(prompt: str) -> frozenset[Node]:
    found = re.findall(r"\$([^$]{1,200})\$", prompt[-8000:])
    trees = (parse_expression(read(text.rstrip(".,?")) or ()) for text in found)
    return frozenset(tree for tree in trees if tree)


def _in_prompt(node: Node, prompt: str) -> bool:
    return node in _formulas(prompt)


def _may_leave_out(gold: Node, prompt: str) -> bool:
    left = gold[2][0]
    if not _is_label(left):
        return False
    name = left[1] if left[0] == "sym" else ""
    return name in _asked_names(prompt) or not _OBJECT.search(prompt) or "(" in name


@lru_cache(4096)
def _asked_names(prompt: str) -> frozenset[str]:
    """What the problem asks for by name: {"x"} of "Find $x$."."""
    asked = (read(match[1]) for match in _ASKED.finditer(prompt[:4000]))
    return frozenset("".join(t for t in tokens if t not in "{}") for tokens in asked if tokens)
