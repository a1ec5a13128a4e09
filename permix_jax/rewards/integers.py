r"""Integers: buys the verdicts on {3, ..., 6}, "all even integers", 4k + 1, and 2n - 1, n \ge 1.

A residue class is ("mod", value, modulus), whether it is written as x \equiv 1 (mod 4), as
x = 4k + 1, k \in Z, as {4k + 1 : k \in Z} or in words.
"""

import re
from fractions import Fraction

from permix_jax.rewards.nodes import Node, names, number, replaced, times
from permix_jax.rewards.notation import Tokens
from permix_jax.rewards.values import rational

MAX_ELEMENTS = 60
MODULUS = 5040  # classes whose modulus divides it are compared as sets of residues
INDEX = ("sym", "\\k")  # the one name for the integer of a family

_WHOLE = ("sym", "\\Z")
_LETTERS = {"k", "n", "m", "i", "j", "t", "r", "l"}
_CONDITIONS = {",", ":", "(", "\\forall", *(f'"{word}' for word in "for where with if mit".split())}
_ANY = r"(?:(?:is|be|are|all|any|every|each|some|a|an|the|beliebige|todo|tout) )*"
_INTEGERS = [
    (whole, re.compile(f"{_ANY}(?:{form})"))
    for whole, form in (
        ("\\Z", r"\\in \\Z|integers?|ganze zahl|entero|entier|= .*\\pm .*\\ldots"),
        ("\\N", r"\\in \\(?:N|Z)(?: _?.*)?|(?:\\ge|>) [01]|= [01] .*\\ldots"),
        (
            "\\R",
            r"(?:\\in \\[RCQ](?: is| a)*|(?:\\in \\[RCQ] ?)?(?:is |a |arbitrary |real |complex )*"
            r"(?:constants?|numbers?|reals?|parameter))",
        ),
        ("\\N", r"(?:non - negative|nonnegative|positive|natural) (?:integers?|numbers?)"),
    )
]
_NATURAL = re.compile(r"(?i)\b(?:positive|natural|non-?negative)\b|\\mathbb\{?N")
_MODULAR = re.compile(r"(?i)residue|mod|congru|remainder")
_RANGED = {"<", ">", "\\ge", "\\le", "\\in", "\\ne", "\\{", "\\equiv"}
_SAID = [
    re.compile(f"(?:all |the |every |any |set of )*{form}")
    for form in (
        r"(?:(?P<kind>even|odd) )?integers? from (?P<low>-? ?\d{1,3}) (?:to|through) "
        r"(?P<high>-? ?\d{1,3})(?: inclusive)?",
        r"(?P<kind>even|odd)(?: (?:integers?|numbers?|[nkmx]))?(?: [nkmx])?",
        r"(?:integers? )?(?:a )?(?:multiples? of|divisible by) (?P<step>\d{1,4})",
        r"(?P<times>\d{1,4}) \\z(?: \+ (?P<first>\d{1,4}))?",
        r"(?P<divisor>\d{1,4}) \| [nkmx]",
        r"(?:integer )?powers of (?P<base>\d{1,4})",
    )
]


def indexed(tokens: Tokens) -> Tokens:
    """ "4k + 1, k \\in Z" of "4k + 1 for every integer k", and "..., k \\in N" of "k \\ge 0"."""
    for at in range(1, len(tokens) - 1):
        if tokens[at] not in _CONDITIONS:
            continue
        front = tokens[:at] if tokens[at - 1] != "," else tokens[: at - 1]
        rest = tokens[at + 1 : -1] if tokens[at] == "(" and tokens[-1] == ")" else tokens[at + 1 :]
        letters = [token for token in rest[:5] if len(token) == 1 and token.isalpha()]
        if not letters or letters[0] not in front or set(front) & _RANGED:
            continue
        whole = _whole(rest, letters[0])
        if whole == "\\R":  # which says nothing that counts
            return front
        if whole and letters[0] in _LETTERS:
            return (*front, ",", letters[0], "\\in", whole)
    return tokens


def _whole(rest: Tokens, letter: str) -> str:
    r"""\Z, \N or \R where `rest` says that a letter is any integer, natural or real; else ""."""
    bare = [t.strip('"') for t in rest if t not in ("{", "}", "(", ")")]
    said = " ".join(token for token in bare if token != letter)
    return next((whole for whole, form in _INTEGERS if form.fullmatch(said)), "")


def enumerated(parts: tuple) -> tuple:
    """The values of "e^{2 \\pi i k / 3}, k = 0, 1, 2"; other parts as they are."""
    if len(parts) > 2 and parts[1][0] == "rel" and parts[1][1] == ("=",):
        name, first = parts[1][2]
        values = filled((first, *parts[2:]))
        if name[0] == "sym" and name[1] in names(parts[0]) & _LETTERS:
            if all(value[0] == "num" for value in values):
                return tuple(replaced(parts[0], name, value) for value in values)
    return parts


def filled(parts: tuple) -> tuple:
    """3, 4, 5, 6 of 3, ..., 6; other parts as they are."""
    at = parts.index(("text", "\\ldots")) if ("text", "\\ldots") in parts else 0
    known = [rational(part) for part in (*parts[:at], *parts[at + 1 :])]
    if not 0 < at == len(parts) - 2 or None in known:
        return parts
    *first, last = known
    step = first[1] - first[0] if at > 1 else Fraction(1)
    count = (last - first[0]) / step if step else Fraction(-1)
    if count.denominator > 1 or not at <= count < MAX_ELEMENTS:
        return parts
    every = [first[0] + step * n for n in range(int(count) + 1)]
    return tuple(map(number, every)) if every[:at] == first else parts


def spoken(tokens: Tokens) -> Node | None:
    """The set that "all even integers", "multiples of 3" and "integers from 3 to 6" say."""
    text = " ".join(token.strip('"').casefold() for token in tokens)
    text = re.sub(r"^[nkmx] (?:is )?(?=odd|even|a multiple)", "", text)
    match = next(filter(None, (form.fullmatch(text) for form in _SAID)), None)
    if match is None:
        return None
    said = match.groupdict()
    if "base" in said:
        power = ("^", number(int(said["base"])), ("sym", "k"))
        return ("builder", power, ("rel", ("\\in",), (("sym", "k"), ("sym", "\\N"))))
    if "low" not in said:
        step = next((said[key] for key in ("step", "divisor", "times") if said.get(key)), 2)
        step, first = int(step), int(said.get("first") or said.get("kind") == "odd")
        member = ("+", (times(number(step), ("sym", "k")), number(first)))
        return ("builder", member, ("rel", ("\\in",), (("sym", "k"), _WHOLE)))
    low, high = (int(said[key].replace(" ", "")) for key in ("low", "high"))
    rest = {"even": (0,), "odd": (1,)}.get(said["kind"], (0, 1))
    found = [number(n) for n in range(low, high + 1) if n % 2 in rest]
    return ("set", tuple(found)) if 0 < len(found) <= MAX_ELEMENTS else None


def with_one_modulus(parts: tuple) -> tuple:
    """1 (mod 8) and 3 (mod 8) of "x \\equiv 1, 3 (mod 8)"."""
    *first, last = parts
    modular = _end(last)
    if modular[0] != "mod" or not all(_end(part)[0] in ("num", "*") for part in first):
        return parts
    new = [("mod", _end(part), modular[2]) for part in first]
    return tuple(
        ("rel", part[1], (*part[2][:-1], value)) if part[0] == "rel" else value
        for part, value in zip(first, new, strict=True)
    ) + (last,)


def _end(part: Node) -> Node:
    return part[2][-1] if part[0] == "rel" else part


def families(tree: Node, gold: Node, prompt: str) -> tuple[Node, Node] | None:
    r"""Two answers of which one is a family of integers, with one name for its index; else None.

    k \pi of {k \pi : k \in Z} and of "x = k \pi, k \in Z"; a family without a range has that of the
    other one.
    """
    if _MODULAR.search(prompt):  # 1, 4 are \pm 1 (mod 5)
        tree, gold = _with_modulus(tree, gold), _with_modulus(gold, tree)
    classes = [_classes(part) for part in (tree, gold)]
    if None not in classes:
        one, two = (number(int(part == classes[1])) for part in classes)
        return one, two
    found = [_family(tree), _family(gold)]
    ranges = {part[1] for part in found if part}
    if not ranges or (len(ranges) > 1 and not _NATURAL.search(prompt)):
        return None
    bare = [
        _loose(t) if part is None else part[0] for t, part in zip((tree, gold), found, strict=True)
    ]
    if None in bare:
        return None
    one, two = map(_residues, bare) if "\\Z" in ranges else bare
    return one, two


def _with_modulus(tree: Node, other: Node) -> Node:
    """A list of numbers as residue classes, where the other one is a list of such classes."""
    parts = tree[1] if tree[0] in ("list", "set") else ()
    ends = [_end(part) for part in other[1]] if other[0] in ("list", "set") else []
    if len(parts) < 2 or not ends or any(end[0] != "mod" for end in ends):
        return tree
    if not all(_end(part)[0] in ("num", "*") for part in parts):
        return tree
    return ("list", tuple(("mod", _end(part), ends[0][2]) for part in parts), "")


def _classes(tree: Node) -> frozenset[int] | None:
    """The residues modulo `MODULUS` that one or more residue classes hold."""
    parts = tree[1] if tree[0] in ("list", "set") else (tree,)
    held: set[int] = set()
    for part in parts:
        found = _family(part)
        value = _residues(found[0]) if found and found[1] == "\\Z" else ("",)
        sizes = [rational(side) for side in value[1:]] if value[0] == "mod" else [None]
        if None in sizes or any(size.denominator > 1 for size in sizes) or sizes[1] < 1:
            return None
        if MODULUS % sizes[1]:
            return None
        held |= set(range(int(sizes[0] % sizes[1]), MODULUS, int(sizes[1])))
    return frozenset(held)


def _family(tree: Node) -> tuple[Node, str] | None:
    """The members and the range of the index of a family."""
    match tree:
        case ("builder", value, ("rel", ("\\in",), (name, ("sym", ("\\Z" | "\\N") as whole)))):
            return replaced(value, name, INDEX), whole
        case ("list", (value, ("rel", ("\\in",), (name, ("sym", ("\\Z" | "\\N") as whole)))), _):
            return replaced(_end(value), name, INDEX), whole
        case ("rel", _, (_, ("mod", _, _) as value)) | (("mod", _, _) as value):
            return value, "\\Z"
    return None


def _loose(tree: Node) -> Node | None:
    r"""k \pi of "x = k \pi", as an answer beside one that says what k is."""
    value = _end(tree) if tree[0] == "rel" and set(tree[1]) == {"="} else tree
    letters = names(value) & _LETTERS
    return replaced(value, ("sym", *letters), INDEX) if len(letters) == 1 else None


def _residues(tree: Node) -> Node:
    """The residue class of members that are linear in `INDEX`; any other tree as it is."""
    at = [rational(replaced(tree, INDEX, number(n))) for n in (0, 1, 2, 5)]
    if None in at:
        return tree
    step = at[1] - at[0]
    if step == 0 or [value - at[0] for value in at] != [0, step, 2 * step, 5 * step]:
        return tree
    return ("mod", number(at[0] % abs(step)), number(abs(step)))
