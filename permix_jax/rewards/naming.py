r"""Names: buys the verdicts on "x =", "f(x) =" and "(p, q) =", in the light of the wording."""

import re
from functools import lru_cache
from itertools import permutations

from permix_jax.rewards.equivalence import same
from permix_jax.rewards.expression import parse_expression
from permix_jax.rewards.integers import families
from permix_jax.rewards.nodes import (
    EXPRESSIONS,
    HALF,
    MINUS,
    Node,
    is_name,
    names,
    negated,
    replaced,
)
from permix_jax.rewards.notation import read, squeezed
from permix_jax.rewards.tree import EVERYTHING
from permix_jax.rewards.values import rational, same_value

_ASKS = (
    r"(?i:\b(?:find|values?\s+of|compute|determine|evaluate|what\s+is|solve\s+for|give|calculate))"
)
_ASKED = re.compile(_ASKS + r"\s+\$([^$]{1,60}?)[.?]?\$(?!\s*(?:and\b|,))")
_OBJECT = re.compile(
    r"(?i)\b(?:line|graph|curve|asymptotes?|parabola|plane|circle|ellipse|hyperbola|locus|directrix|axis|tangent)\b"
)
_FREE = re.compile(
    r"(?i)general solution|all (?:\w+ )?functions|all (?:\w+ )?polynomials|integral|antiderivative|"
    r"\\int\b|integrate|parametri|primitive|d\w+/d\w"
)
_CONSTANT = re.compile(r"(?:[CcKkAaBbDstr]|const)(?:_?[0-9])?")
_DERIVATIVE = re.compile(r"\\frac\{?d.*|d\w/d\w|\w'(?:\(\w\))?")
_TUPLE = re.compile(r"\(([^()]{3,40})\)")
_MATHS = re.compile(r"\$([^$]{2,80})\$")
_SIGNS = {"cup": "\\cup", "cap": "\\cap", "minus": "\\setminus"}
_CODE = {"E": "e", "I": "i", "j": "i"}


def unnamed(tree: Node, gold: Node, prompt: str) -> tuple[Node | None, Node]:
    """Both without "x =" where one of them has none; None: what is named is not what is asked."""
    left = tree[2][0] if _is_equation(tree) else ("",)
    named = left[0] not in _SIGNS or not prompt or _written(left) in squeezed(prompt)
    if contradicts_itself(tree) or not named:
        return None, gold
    tree, gold = _pairs(tree, gold, prompt), _pairs(gold, tree, prompt)
    if found := families(tree, gold, prompt):
        return found
    tree, gold = _unchained(tree, gold), _unchained(gold, tree)
    tree, gold = _element(tree, gold), _element(gold, tree)
    if (
        gold[0] in ("list", "tuple")
        and tree[0] == "rel"
        and set(tree[1]) == {"<"}
        and not names(tree)
    ):
        tree = ("list", tree[2], "")  # 4 < 6 < 14 in increasing order
    tree, gold = _spread(tree), _spread(gold)
    if {tree[0], gold[0]} == {"tuple", "list"}:
        return _as_tuple(tree, prompt, gold), _as_tuple(gold, prompt, tree)
    if tree[0] == gold[0] == "list" and len(tree[1]) == len(gold[1]) and _all_named(gold):
        if not any(part[0] == "rel" for part in tree[1]):  # 5, 2 of \mu = 5, \sigma = 2
            return ("tuple", "(", ")", tree[1]), ("tuple", "(", ")", _ends(gold))
    if tree[0] in ("list", "set") or gold[0] in ("list", "set"):
        values, gold_values = _values(tree), _values(gold)
        if (values is None) != (gold_values is None) or (values and gold_values):
            return values or tree, gold_values or gold
        return tree, gold
    named, gold_named = _is_equation(tree), _is_equation(gold)
    if named and gold_named:
        return _both_named(tree, gold)
    if named and gold[0] != "rel":
        return (tree[2][-1] if _may_be_named(tree, prompt, gold) else None), gold
    if gold_named and tree[0] != "rel":
        left = gold[2][0]
        bare = "num" not in repr(left) and not prompt  # m + n = 204
        worked_out = left[0] in EXPRESSIONS and (bare or not names(left))  # 10^2 = 100
        asked = not _OBJECT.search(prompt) or left[1] in _asked(prompt)
        return (tree, gold[2][-1]) if worked_out or (_is_label(left) and asked) else (None, gold)
    return tree, gold


def _unchained(tree: Node, other: Node) -> Node:
    """ "x = 1, y = 1" of "x = y = 1", where the other one has a part for each."""
    bunch = tree[0] == "list"
    parts = tree[1] if bunch else (tree,)
    if other[0] not in ("list", "set", "tuple") or not any(map(_is_chain, parts)):
        return tree
    pairs = [
        ("rel", ("=",), (label, part[2][-1]))
        for part in parts
        for label in (part[2][:-1] if _is_chain(part) else ())
    ] + [part for part in parts if not _is_chain(part)]
    fits = len(pairs) == len(other[-1] if other[0] == "tuple" else other[1])
    return ("list", tuple(pairs), tree[2] if bunch else "and") if fits else tree


def _is_chain(tree: Node) -> bool:
    return _is_equation(tree) and len(tree[2]) > 2 and all(map(_is_label, tree[2][:-1]))


def _element(tree: Node, other: Node) -> Node:
    r"""{2, 6} of x \in {2, 6}, and 3 of x \in {3}, where the other one is no set of reals."""
    if tree[0] == "builder" and other[0] in ("rel", *EXPRESSIONS):
        match tree[2]:  # {x + a : a \in R}
            case ("rel", ("\\in",), (letter, whole)) if whole == EVERYTHING and letter != tree[1]:
                return tree[1]
    if tree[0] == "rel" and tree[1] == ("\\in",) and _is_label(tree[2][0]):
        whole = tree[2][1]
        if other[0] == "num" and whole[0] == "set" and len(whole[1]) == 1:
            return whole[1][0]
        return whole if other[0] in ("tuple", "list", "set", "num") else tree
    return tree


def _is_equation(tree: Node) -> bool:
    return tree[0] == "rel" and set(tree[1]) == {"="}


def contradicts_itself(tree: Node) -> bool:
    """Whether a chain as x = 5 + 6 = 7 holds two unequal values."""
    if tree[0] == "rel" and set(tree[1]) == {"\\equiv"} and tree[2][-1][0] == "mod":
        _, last, modulus = tree[2][-1]
        parts = [("mod", part, modulus) for part in tree[2][:-1] if rational(part) is not None]
        return not all(same(part, ("mod", last, modulus)) for part in parts)
    if not _is_equation(tree):
        return False
    parts = [part for part in tree[2] if part[0] in EXPRESSIONS and not names(part)]
    return any(not same_value(one, two) for one, two in zip(parts, parts[1:], strict=False))


def _both_named(tree: Node, gold: Node) -> tuple[Node, Node]:
    """f(x) = 2x and y = 2x by their values; other equations by their first and last sides."""
    (name, *_, value), (gold_name, *_, gold_value) = tree[2], gold[2]
    one, two = (n[1] if n[0] == "sym" else "" for n in (name, gold_name))
    bound, gold_bound = (re.fullmatch(r"(\w)(?:\((\w)\)|_(\w))", n) for n in (one, two))
    if bound and gold_bound and bound[1] == gold_bound[1]:  # f(t) = 2t is f(x) = 2x
        old, new = bound[2] or bound[3], gold_bound[2] or gold_bound[3]
        return replaced(value, ("sym", old), ("sym", new)), gold_value
    if _DERIVATIVE.fullmatch(one) and _DERIVATIVE.fullmatch(two):
        return value, gold_value
    if one and two and ("(" in one and two == "y" or "(" in two and one == "y"):
        return value, gold_value
    bare = [label.partition("(")[0] for label in (one, two)]
    if one and bare[0] == bare[1] and bare != [one, two]:  # x(t) and x
        return value, gold_value
    if one and one.partition("_")[0] == two.partition("_")[0] and is_name(name):
        return value, gold_value
    return ("rel", ("=",), (name, value)), ("rel", ("=",), (gold_name, gold_value))


def _is_label(node: Node) -> bool:
    r"""Whether a left side names a value: x, f(x), Area, |AB|, (p, q), V_1 : V_2, \det A, A^{-1}.

    A sum, or what has a number in it, is a side of an equation.
    """
    if node[0] in ("tuple", "ratio", "cup", "cap", "minus"):
        return all(map(_is_label, node[-1]))
    if node[0] in ("*", "f"):
        return all(map(_is_label, node[-1]))
    if node[0] == "^":
        return _is_label(node[1]) and node[2] == MINUS
    return node[0] in ("text", "set") or (node[0] == "sym" and is_name(node))


def _all_named(tree: Node) -> bool:
    r"""Whether each part of a list has a name of its own: \mu = 5, \sigma = 2, but not x_1, x_2."""
    parts = [part[2][0] for part in tree[1] if _assigned(part) and part[2][0][0] == "sym"]
    return len(set(map(_stem, parts))) == len(tree[1])


def _stem(label: Node) -> str | Node:
    """x of x_1, and f of f(x); a label that is no name as it is."""
    return re.split(r"[_(]", label[1])[0] if label[0] == "sym" else label


def _ends(tree: Node) -> tuple:
    return tuple(part[2][-1] for part in tree[1])


def _assigned(tree: Node) -> bool:
    return _is_equation(tree) and _is_label(tree[2][0])


def _values(tree: Node) -> Node | None:
    """The values of "x = 2, x = 3", "x = 2, 3" or "x_1 = 2, x_2 = 3"; None for other lists."""
    parts = tree[1] if tree[0] in ("list", "set") else (tree,)
    labels = {_stem(part[2][0]) for part in parts if _assigned(part)}
    if len(labels) != 1 or any(part[0] == "rel" and not _assigned(part) for part in parts):
        return None
    values = tuple(_bound(p[2]) if _assigned(p) else p for p in parts)
    flat = tuple(v for value in values for v in (value[1] if value[0] == "list" else (value,)))
    return (tree[0], flat, *tree[2:]) if tree[0] in ("list", "set") else values[0]


def _bound(sides: tuple) -> Node:
    """2x of f(n) = 2n: the value of a function with one name for what it takes."""
    match = re.fullmatch(r"\w\((\w)\)", sides[0][1]) if sides[0][0] == "sym" else None
    return replaced(sides[-1], ("sym", match[1]), ("sym", "x")) if match else sides[-1]


def _spread(tree: Node) -> Node:
    """(x, y) = (2, 3) as "x = 2, y = 3"."""
    if _is_equation(tree) and len(tree[2]) == 2 and tree[2][0][0] == tree[2][1][0] == "tuple":
        (*_, left), (*_, right) = tree[2]
        if len(left) == len(right) and all(part[0] == "sym" for part in left):
            pairs = zip(left, right, strict=True)
            return ("list", tuple(("rel", ("=",), pair) for pair in pairs), "and")
    return tree


def _as_tuple(tree: Node, prompt: str, other: Node) -> Node:
    """(2, 3) of "x = 2, y = 3", in the order in which the problem has (x, y), or the answer."""
    if tree[0] != "list" or other[0] != "tuple":
        return tree
    orders = [match[1].split(",") for match in _TUPLE.finditer(squeezed(prompt))]
    if not any(part[0] == "rel" for part in tree[1]):  # 2, 3 where (p, q) is asked for
        asked = any(len(order) == len(tree[1]) == len(other[3]) for order in orders)
        return ("tuple", "(", ")", tree[1]) if asked else tree
    if not all(map(_assigned, tree[1])):
        return tree
    if tree[2] == "or":  # one or the other is no pair
        return tree
    found = {part[2][0][1]: part[2][-1] for part in tree[1] if part[2][0][0] == "sym"}
    if len(found) != len(tree[1]) or len(found) != len(other[-1]):
        return tree
    for order in orders:
        if set(order) == set(found):
            return ("tuple", "(", ")", tuple(found[name] for name in order))
    return ("tuple", "(", ")", tuple(found.values()))


def _pairs(tree: Node, other: Node, prompt: str) -> Node:
    """(1, 2), (2, 1) of "x = 1, y = 2 or x = 2, y = 1", where the other one is such a list."""
    if tree[0] == "list" and other[0] in ("list", "set") and other[1] and other[1][0][0] == "tuple":
        return ("list", tuple(_as_tuple(part, prompt, other[1][0]) for part in tree[1]), tree[2])
    return tree


def _may_be_named(tree: Node, prompt: str, gold: Node) -> bool:
    """Whether the left of "x = 5" names what is asked for, or "2 + 3 = 5" is true."""
    left = tree[2][0]
    if left[0] == "sym" and is_name(left):
        asked = _asked(prompt)
        return "(" in left[1] or not asked or left[1] in asked or gold[0] in ("matrix", "tuple")
    if left[0] == "text":  # pOH is not pH
        said = left[1].split()
        return (
            not prompt
            or len(said) != 1
            or len(said[0]) > 4
            or not said[0].isalpha()
            or said[0] in prompt.lower()
        )
    if (
        (not prompt and "num" not in repr(left))
        or left[0] not in EXPRESSIONS
        or _is_label(left)
        or not names(left)
    ):
        return True
    if len(tree[2]) > 2 and any(same_value(left, other) for other in _formulas(prompt)):
        return True  # x^3 + 1/x^3 = 27 - 9 = 18
    written, asked = _written(left), _asked(prompt)
    if names(left) <= asked and written not in asked:  # 2x = 10 where x is asked for
        return False
    return written in squeezed(prompt[-8000:])


def _written(node: Node) -> str:
    """A plain sum or product as people write it."""
    match node:
        case ("num", value) | ("sym", value):
            return str(value)
        case ("+", terms):
            return "+".join(map(_written, terms)).replace("+-", "-")
        case ("*", factors):
            return "".join("-" if factor == MINUS else _written(factor) for factor in factors)
        case (("cup" | "cap" | "minus") as sign, parts):
            return _SIGNS[sign].join(map(_written, parts))
        case ("^", base, exponent):
            return f"{_written(base)}^{_written(exponent)}"
    return "\0"


@lru_cache(4096)
def _formulas(prompt: str) -> tuple[Node, ...]:
    """What the problem writes between dollar signs, and the sides of its equations."""
    sides = (part for formula in _MATHS.findall(prompt[-4000:]) for part in formula.split("="))
    trees = (parse_expression(tokens) for part in sides if (tokens := read(part.rstrip("?., "))))
    return tuple(tree for tree in trees if tree and names(tree))


@lru_cache(4096)
def _asked(prompt: str) -> frozenset[str]:
    """What the problem asks for by name: {"x"} of "Find $x$."."""
    asked = (read(match[1]) for match in _ASKED.finditer(prompt[:4000]))
    return frozenset("".join(t for t in tokens if t not in "{}") for tokens in asked if tokens)


def renamed(tree: Node, gold: Node, prompt: str) -> list[tuple[Node, Node]]:
    """An answer with other names for what may be called anything: constants of integration, and the
    E and I of some programs."""
    used, gold_used = names(tree), names(gold)
    for name, constant in _CODE.items():
        known = f"('sym', '{constant}')" in repr(gold) or (
            name == "j" and not gold_used and gold[0] in EXPRESSIONS
        )
        if name in used - gold_used and known:
            tree = replaced(tree, ("sym", name), ("sym", constant))
    if "('f', 'ln'" in repr(gold) and "('f', 'log'" not in repr(gold):  # log in code is ln
        tree = _natural(tree)
    if "characteristic" in prompt and len(used) == len(gold_used) == 1:  # in x or in \lambda
        tree = replaced(tree, ("sym", *used), ("sym", *gold_used))
    free = _FREE.search(prompt) or "y'" in prompt
    own, golds = (sorted(n for n in u if _CONSTANT.fullmatch(n)) for u in (used, gold_used))
    if not free or len(own) != len(golds) or not 0 < len(own) < 4:
        return [(tree, gold)]
    found = []
    for order in permutations(golds):
        new = tree
        for name in own:
            new = replaced(new, ("sym", name), ("sym", name + "\0"))
        for name, to in zip(own, order, strict=True):
            new = replaced(new, ("sym", name + "\0"), ("sym", to))
        found.append((new, gold))
    if (
        len(golds) == 1 and len(gold_used) == 2 and gold[0] == "+"
    ):  # antiderivatives: up to a constant
        (letter,) = gold_used - set(golds)
        ends = [replaced(side, ("sym", letter), HALF) for side in (new, gold)]
        found.append((("+", (new, negated(ends[0]))), ("+", (gold, negated(ends[1])))))
    return found


def _natural(tree: Node) -> Node:
    if tree[:2] == ("f", "log") and len(tree[2]) == 1:
        return ("f", "ln", tuple(map(_natural, tree[2])))
    return tuple(_natural(part) if isinstance(part, tuple) else part for part in tree)
