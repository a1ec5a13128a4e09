"""Units: buys the verdicts on quantities, by `pint` and a table of what it lacks.

A unit is a sorted tuple of (name, exponent); a noun that is no unit ("apples") is one name and equal
to itself only.
"""

import re
from fractions import Fraction
from functools import lru_cache

from permix_jax.rewards import words
from permix_jax.rewards.notation import VOCABULARY, Tokens, is_word, listed, paired, read

Unit = tuple[tuple[str, int], ...]

PERCENT: Unit = (("percent", 1),)
DEGREE: Unit = (("degree", 1),)
RADIAN: Unit = (("radian", 1),)

_OWN = {
    name: names.split()[0] for names in VOCABULARY["units"].split(",") for name in names.split()
}
_NO_UNITS, _SCALES = listed("no_units"), paired("scales")
# factor, power of pi, dimension
_SIZES = {
    "percent": (Fraction(1, 100), 0, ()), "degree": (Fraction(1, 180), 1, (("radian", 1),)),
    "radian": (Fraction(1), 0, (("radian", 1),)), "dollar": (Fraction(1), 0, (("dollar", 1),)),
    "cent": (Fraction(1, 100), 0, (("dollar", 1),)), "revolution": (Fraction(2), 1, (("radian", 1),)),
}  # fmt: skip
_SIZES |= {
    "arcminute": (Fraction(1, 10800), 1, (("radian", 1),)), "degC": (Fraction(1), 0, (("kelvin", 1),)),
    "degF": (Fraction(5, 9), 0, (("kelvin", 1),)), "euro": (Fraction(1), 0, (("euro", 1),)),
    "revolutions_per_minute": (Fraction(1, 30), 1, (("radian", 1), ("second", -1))),
}  # fmt: skip
_ONE_LETTER = set("mgshNJWVAKCFTHLlbBMdΩÅ")
_OFFSETS = {
    "degC": (Fraction(1), Fraction(27315, 100)),
    "degF": (Fraction(5, 9), Fraction(45967, 180)),
}
_MONEY = {
    "\\$": "dollar",
    "¢": "cent",
    "€": "euro",
    "£": "pound_sterling",
    "¥": "yen",
    "₹": "rupee",
}
_SQUARES = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "кв": 2, "平方": 2}
_RAISED = {"squared": 2, "cubed": 3}
_ASKING = re.compile(
    r"\b(?:how\s+many|number\s+of|in(?:\s+(?:units\s+of|whole))?|nearest(?:\s+whole)?|(?:what|which|as an?|the|which)"
    r"(?=\s+(?:percent|degree\s+measure)))\s+(?P<unit>\$?[^.,?!;\n]{1,50})",
    re.IGNORECASE,
)


def split(tokens: Tokens) -> tuple[Tokens, Unit] | None:
    """(tokens of the value, unit) of a quantity; None for what is none."""
    if not tokens:
        return None
    if tokens[0] in _MONEY or (tokens[0] == "-" and tokens[1:2] and tokens[1] in _MONEY):
        sign = tokens[:1] if tokens[0] == "-" else ()
        rest = split(tokens[len(sign) + 1 :] or ("",))
        money = ((_MONEY[tokens[len(sign)]], 1),)
        value, unit = rest or (tokens[len(sign) + 1 :], ())
        return ((*sign, *value), unit if unit == money else tuple(sorted((*money, *unit))))
    if is_word(tokens[0]) and _OWN.get(tokens[0][1:]) in _MONEY.values() and len(tokens) > 1:
        return tokens[1:], ((_OWN[tokens[0][1:]], 1),)
    if tokens[-1] == "\\%":
        return tokens[:-1], PERCENT
    if tokens[-1] in _MONEY:
        return tokens[:-1], ((_MONEY[tokens[-1]], 1),)
    start = _start(tokens)
    if not start:
        return None
    slash = tokens[start - 1] in ("/", '"per') and start > 1
    value, rest = tokens[: start - slash], tokens[start - slash :]
    if rest[-1] == '"old' and len(rest) > 1:  # years old
        rest = rest[:-1]
    if is_word(rest[0]) and (scale := _SCALES.get(rest[0][1:].lower())):
        value = (*value, "\\cdot", scale)
        if not rest[1:]:
            return value, ()
        rest = rest[1:] if rest[1:2] != ('"of',) else rest[2:]
    unit = parse(rest)
    if unit is None:
        said = [token[1:].casefold() for token in rest if token not in ("(", ")", ".", "!")]
        if (
            len(said) > 5
            or not all(map(is_word, (t for t in rest if t not in "().!")))
            or words.changes([*said, "".join(said)])
        ):
            return None
        unit = ((" ".join(said), 1),)
    return value, unit


def _start(tokens: Tokens) -> int:
    """Where a unit may begin; 0 for nowhere."""
    for place, token in enumerate(tokens):
        if place and (token in ("\\Omega", "\\mu") or is_word(token)):
            return place
        if (
            place
            and token == "\\frac"
            and is_word("".join(tokens[place + 2 : place + 3]))
            and tokens[place + 1] == "{"
        ):
            return place
        if place and tokens[place : place + 4] == ("^", "{", "\\circ", "}"):
            return place
        if place and tokens[place : place + 2] == ("^", "\\circ"):
            return place
    return 0


def parse(tokens: Tokens) -> Unit | None:
    """A unit of known names, or None."""
    powers: dict[str, int] = {}
    sign, prefix, last, micro, at = 1, 1, "", "", 0
    tokens = tuple(
        token for token in _unfolded(tokens) if token not in ("{", "}", ".", "\\cdot", "(", ")")
    )
    while at < len(tokens):
        token = tokens[at]
        at += 1
        if token in ("/", '"per', '"pro', '"por', '"в'):
            sign = -1
        elif token == "1" and tokens[at : at + 1] == ("/",):
            continue
        elif token == "^" or (token in ("2", "3") and not is_word("".join(tokens[at : at + 1]))):
            at -= token != "^"
            if tokens[at : at + 1] == ("\\circ",):
                letter = tokens[at + 1 : at + 2] in (('"C',), ("C",), ('"F',), ("F",))
                last = "deg" + tokens[at + 1].strip('"') if letter else "degree"
                powers[last] = powers.get(last, 0) + sign
                at += 1 + letter
                continue
            minus = tokens[at : at + 1] == ("-",)
            at += minus
            if not last or at >= len(tokens) or not tokens[at].isdigit() or len(tokens[at]) > 1:
                return None
            powers[last] += (sign if powers[last] * sign > 0 else 1) * (
                (-1 if minus else 1) * int(tokens[at]) - 1
            )
            at += 1
        elif token == "\\mu":
            micro = "µ"
        elif token in ('"k', '"M', '"m') and tokens[at : at + 1] == ("\\Omega",):
            micro = token[1]
        elif token == "-":
            continue
        else:
            name = micro + ("ohm" if token == "\\Omega" else token.strip('"'))
            ahead = at + (tokens[at : at + 1] == ("-",))
            pair = (
                f"{name}_{tokens[ahead][1:]}" if is_word("".join(tokens[ahead : ahead + 1])) else ""
            )
            if pair and _name(pair):  # light-years, foot pounds
                name, at = pair, ahead + 1
            if name.lower() in _SQUARES:
                prefix = _SQUARES[name.lower()]
                continue
            if last and name.lower() in _RAISED:
                powers[last] *= _RAISED[name.lower()]
                continue
            known = _name(name) if is_word(token) or token == "\\Omega" or micro else None
            if known is None:
                return None
            powers[known] = powers.get(known, 0) + sign * prefix
            last, prefix, micro = known, 1, ""
    if powers.get("degree") and {"degC", "degF"} & set(powers):
        del powers["degree"]  # degrees Celsius
    found = tuple(sorted((name, power) for name, power in powers.items() if power))
    return found if found and prefix == 1 else None


def _unfolded(tokens: Tokens) -> list[str]:
    r"""m / s of \frac{m}{s}."""
    flat = list(tokens)
    while "\\frac" in flat and "}" in flat:
        at = flat.index("\\frac")
        close = flat.index("}", at) if "}" in flat[at:] else len(flat) - 1
        flat[at : close + 1] = [*flat[at + 2 : close], "/"]
    return flat


@lru_cache(4096)
def _name(text: str) -> str | None:
    """The one name of a unit ("metres" -> "meter"); None for what is none."""
    for name in (text, text.lower()) if len(text) > 2 else (text,):
        if name in _OWN:
            return _OWN[name]
        if (
            name in _NO_UNITS
            or (len(name) == 1 and name not in _ONE_LETTER)
            or not name.isidentifier()
        ):
            continue
        try:
            return str(_registry().parse_units(name)) if name in _registry() else None
        except Exception:  # pint raises what its parser does
            continue
    return None


@lru_cache(1)
def _registry():
    import pint  # late: it takes a second, and most answers have no unit

    return pint.UnitRegistry(non_int_type=Fraction, on_redefinition="ignore")


@lru_cache(4096)
def _size(name: str) -> tuple[Fraction, int, tuple]:
    """(factor, power of pi, dimensions) of one unit."""
    if name in _SIZES:
        return _SIZES[name]
    try:
        quantity = _registry().Quantity(Fraction(1), name).to_base_units()
        return Fraction(quantity.magnitude), 0, tuple(sorted(quantity.units._units.items()))
    except Exception:  # a noun, a currency, a logarithmic unit
        return Fraction(1), 0, ((name, 1),)


def conversion(unit: Unit, other: Unit) -> tuple[Fraction, int, Fraction] | None:
    """(factor, power of pi, offset) from numbers of `unit` to those of `other`; None: unlike ones."""
    if unit == other or {unit, other} == {(("pound", 1),), (("pound_sterling", 1),)}:
        return Fraction(1), 0, Fraction(0)
    if len(unit) == len(other) == 1 and unit[0][1] == other[0][1] == 1:
        (name, _), (wanted, _) = unit[0], other[0]
        if name in _OFFSETS or wanted in _OFFSETS:
            identity = (Fraction(1), Fraction(0))
            (a, b), (c, d) = _OFFSETS.get(name, identity), _OFFSETS.get(wanted, identity)
            kelvin = {name, wanted} <= {*_OFFSETS, "kelvin"}
            return (a / c, 0, (b - d) / c) if kelvin else None
    (factor, pis, kind), (other_factor, other_pis, other_kind) = _total(unit), _total(other)
    return (factor / other_factor, pis - other_pis, Fraction(0)) if kind == other_kind else None


@lru_cache(4096)
def _total(unit: Unit) -> tuple[Fraction, int, tuple]:
    factor, pis, kinds = Fraction(1), 0, {}
    for name, exponent in unit:
        size, pi, kind = _size(name)
        factor, pis = factor * size**exponent, pis + pi * exponent
        for base, power in kind:
            kinds[base] = kinds.get(base, 0) + power * exponent
    return factor, pis, tuple(sorted((base, power) for base, power in kinds.items() if power))


def is_noun(unit: Unit) -> bool:
    """Whether a unit is a noun that measures nothing ("apples", "units")."""
    return len(unit) == 1 and (unit[0][0] == "unit" or _name(unit[0][0]) is None)


@lru_cache(4096)
def asked(prompt: str) -> Unit:
    """The unit that the problem asks for last ("how many feet", "in m/s^2"), or ()."""
    for match in reversed(list(_ASKING.finditer(prompt[-4000:]))):
        tokens = read(rf"\text{{{match['unit'].replace('$', ' ')}}}") or ()
        for count in range(min(8, len(tokens)), 0, -1):
            unit = parse(tokens[:count]) if is_word(tokens[0]) else None
            if unit and not (
                count < len(tokens) and len(tokens[0]) == 2 and is_word(tokens[count])
            ):
                return unit
    return ()
