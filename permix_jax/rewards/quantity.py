"""Quantities: buys the verdicts on numbers with units, held against what the problem asks for."""

import re
from fractions import Fraction

from permix_jax.rewards import units
from permix_jax.rewards.expression import parse_expression
from permix_jax.rewards.nodes import Node, number, times
from permix_jax.rewards.notation import Tokens
from permix_jax.rewards.vocabulary import listed

_ANGLE = re.compile(
    r"(?i)angle|radian|degree|argument|phase|rotat|measure|\\theta|arc|\\alpha|slope|inclin|polar|θ|\\cos|\\sin|\\tan"
)
_COINS = re.compile(r"(?i)cent|¢|penn|dollar")
_PRICED = re.compile(
    r"(?i)cent|¢|penn|dollar|euro|pound|yen|yuan|rupee|[€£¥₹元钱价]|cost|price|pri[xc]|preis|цен|руб|money"
)
_ANYTHING = listed("anything")


def compound(tokens: Tokens) -> Node | None:
    """5 feet 3 inches as 63 inches."""
    arcs = "\\circ" in tokens
    minutes, seconds = ('"arcminute', '"arcsecond') if arcs else ('"foot', '"inch')
    joined = " ".join(tokens).replace("' '", seconds).replace("'", minutes)
    tokens = tuple(joined.split())
    starts = [
        i
        for i, token in enumerate(tokens)
        if token[0].isdigit() and tokens[i - 1] not in ("^", "-", "/", "{")
    ]
    if len(starts) < 2 or starts[0] != 0:
        return None
    edges = [*starts, len(tokens)]
    found = [units.split(tokens[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
    parts = [("qty", parse_expression(part[0]), part[1]) if part else None for part in found]
    if found[0] and found[1] and found[0][1] == (("hour", 1),) and found[1][1] == (("meter", 1),):
        parts[1] = ("qty", parts[1][1], (("minute", 1),))  # 2h30m
    return together(parts)


def together(parts: list) -> Node | None:
    """The sum of quantities in other units of one kind; None for other parts."""
    if any(part is None or part[0] != "qty" or not part[1] or not part[2] for part in parts):
        return None
    last = parts[-1][2]
    factors = [units.conversion(unit, last) for _, _, unit in parts]
    if len({unit for _, _, unit in parts}) < len(parts) or None in factors:
        return None
    terms = tuple(
        times(number(f[0]), value) for f, (_, value, _) in zip(factors, parts, strict=True)
    )
    return ("qty", ("+", terms), last)


def without_units(tree: Node, gold: Node, prompt: str) -> list[tuple[Node, Node]]:
    """The pairs without units that an answer may be compared as; none if the units contradict.

    A number without a unit has the unit that the problem asks for, or that of the gold answer.
    """
    if prompt:  # which says of what
        tree, gold = (_map_units(t, _of_nothing) for t in (tree, gold))
    unit, gold_unit = unit_of(tree), unit_of(gold)
    if not unit and not gold_unit:
        return [(tree, gold)]
    if units.PERCENT in (unit, gold_unit):
        return _percentages(tree, gold, prompt)
    angle = not prompt or _ANGLE.search(prompt)
    if gold_unit == units.DEGREE and not unit and "\\pi" in repr(tree) and angle:
        if units.asked(prompt) != units.DEGREE:
            tree, unit = _with_unit(tree, units.RADIAN), units.RADIAN
    if unit == units.DEGREE and not gold_unit and "\\pi" in repr(gold):
        if not angle:
            return []
        gold, gold_unit = _with_unit(gold, units.RADIAN), units.RADIAN
    if len({part[2] for part in gold[1] if part[0] == "qty"} if gold[0] == "list" else ()) > 1:
        return [(tree, gold)]  # 3 dogs and 2 cats
    if unit and not gold_unit and not _counts(unit, prompt):
        return []
    priced = _COINS if unit == units.CENT else _PRICED
    if prompt and not gold_unit and units.is_money(unit) and not priced.search(prompt):
        return []  # 5 cents where dollars are meant, 9 yuan where apples are counted
    wanted = asked = gold_unit or units.asked(prompt)
    if not wanted or (units.is_noun(wanted) and not gold_unit):
        wanted = unit
    if gold_unit and any(name == "unit" for name, _ in gold_unit):
        return [tuple(_map_units(t, lambda value, unit: value) for t in (tree, gold))]
    if unit and asked and unit != asked and unit[0][0] == asked[0][0] == "unit":
        return []  # units of length are no square units
    if unit and unit != wanted and units.is_noun(unit) and (not gold_unit or _loose(unit, wanted)):
        tree = _map_units(tree, lambda value, unit: value)
    kelvins = re.search("change|difference|increase|rise", prompt)
    pair = tuple(
        _map_units(t, lambda value, unit: _converted(value, unit, wanted, not kelvins))
        for t in (tree, gold)
    )
    return [] if None in pair else [pair]


def _of_nothing(value: Node, unit: units.Unit) -> Node:
    """Grams of "grams of NaCl"."""
    bare = tuple(part for part in unit if not part[0].startswith("of "))
    return ("qty", value, bare) if bare else value


def _counts(unit: units.Unit, prompt: str) -> bool:
    """Whether a unit beside a number fits "how many apples"."""
    if "how many" not in prompt.lower():
        return True
    said = set(re.findall(r"[^\W_]+", " ".join(name for name, _ in unit).casefold()))
    if units.asked(prompt) or said & _ANYTHING or not all(map(str.isascii, said)):
        return True
    return any(word[: max(3, len(word) - 2)] in prompt.lower() for word in said)


def _loose(unit: units.Unit, wanted: units.Unit) -> bool:
    """Whether one noun is a part of the other ("candy bars", "bars"), or is "units"."""
    one, two = (
        set(re.findall(r"[^\W_]{3,}", " ".join(name for name, _ in u))) for u in (unit, wanted)
    )
    return "unit" in str(unit) or one <= two or two <= one


def _percentages(tree: Node, gold: Node, prompt: str) -> list[tuple[Node, Node]]:
    """50 % is the number 0.5. If the problem speaks of percent, "50" may mean it too."""
    unit, gold_unit, asks = unit_of(tree), unit_of(gold), units.asked(prompt) == units.PERCENT
    if unit and gold_unit and unit != gold_unit:
        return []
    if unit and not gold_unit and units.asked(prompt) not in ((), units.PERCENT):
        return []
    asks = asks and not gold_unit  # 65 % is 13/20
    bare = tuple(_map_units(t, lambda value, _: value) for t in (tree, gold))
    if unit == gold_unit or (asks and unit):
        return [bare]
    share = tuple(
        _map_units(t, lambda value, _: times(value, number(Fraction(1, 100)))) for t in (tree, gold)
    )
    large = gold[0] == "num" and abs(gold[1]) >= 1
    speaks = (
        (not prompt and large)
        or bool(gold_unit and not prompt)
        or "percent" in prompt.lower()
        or "%" in prompt
    )
    return [bare] if asks else [bare, share] if speaks else [share]


def unit_of(tree: Node) -> units.Unit:
    """The unit of the first quantity in an answer; () for none."""
    if tree[0] == "qty":
        return tree[2]
    parts = (
        tree[1]
        if tree[0] in ("list", "set", "cup", "ratio")
        else tree[-1]
        if tree[0] in ("tuple", "rel")
        else ()
    )
    return next((found for part in parts if (found := unit_of(part))), ())


def _with_unit(tree: Node, unit: units.Unit) -> Node:
    return ("qty", tree, unit) if tree[0] not in ("list", "tuple", "set", "rel") else tree


def _converted(value: Node, unit: units.Unit, wanted: units.Unit, shifts: bool) -> Node | None:
    if (factors := units.conversion(unit, wanted)) is None:
        return None
    factor, pis, offset = factors
    value = value if factor == 1 else times(number(factor), value)
    value = times(value, ("^", ("sym", "\\pi"), number(pis))) if pis else value
    return ("+", (value, number(offset))) if offset and shifts else value


def _map_units(tree: Node, change) -> Node | None:
    """A tree with `change` of each quantity in its place; None where that is None."""
    if tree[0] == "qty":
        return change(tree[1], tree[2])
    if tree[0] not in ("list", "set", "cup", "ratio", "tuple", "rel"):
        return tree
    place = 1 if tree[0] in ("list", "set", "cup", "ratio") else len(tree) - 1
    parts = tuple(_map_units(part, change) for part in tree[place])
    return None if None in parts else (*tree[:place], parts, *tree[place + 1 :])
