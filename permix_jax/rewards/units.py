"""Units: buys the verdicts on quantities, by `pint` and a table of what it lacks.

A unit is a sorted tuple of (name, exponent); a noun that is no unit ("apples") is one name, equal
to itself only.
"""

import re
from fractions import Fraction
from functools import lru_cache

from permix_jax.rewards import words
from permix_jax.rewards.notation import Tokens, is_word, read
from permix_jax.rewards.vocabulary import VOCABULARY, listed, paired

Unit = tuple[tuple[str, int], ...]

PERCENT: Unit = (("percent", 1),)
DEGREE: Unit = (("degree", 1),)
CENT: Unit = (("cent", 1),)
DOLLAR: Unit = (("dollar", 1),)
RADIAN: Unit = (("radian", 1),)

_OWN = {
    name: names.split()[0] for names in VOCABULARY["units"].split(",") for name in names.split()
}
_NO_UNITS, _SCALES = listed("no_units"), paired("scales")
# factor, power of pi, dimension
_SIZES = {
    "percent": (Fraction(1, 100), 0, ()), "degree": (Fraction(1, 180), 1, (("radian", 1),)),
    "radian": (Fraction(1), 0, (("radian", 1),)), "dollar": (Fraction(1), 0, (("dollar", 1),)),
    "cent": (Fraction(1, 100), 0, (("dollar", 1),)), 
    "revolution": (Fraction(2), 1, (("radian", 1),)),
}  # fmt: skip
_SIZES |= {
    "arcminute": (Fraction(1, 10800), 1, (("radian", 1),)),
    "arcsecond": (Fraction(1, 648000), 1, (("radian", 1),)),
    "degC": (Fraction(1), 0, (("kelvin", 1),)),
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
_WEIGHED = {"gram", "kilogram", "milligram", "mole", "millimole", "liter", "milliliter"}
_ATOMS = re.compile(r"(?=\(?[A-Z])(?:[A-Z][a-z]?|[_{}()0-9])+")
_RAISED = {"squared": 2, "cubed": 3}
_SQUARES = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "кв": 2, "平方": 2}
_FORMS = [
    (re.compile(form), new)
    for form, new in (
        (r"\\frac \{ (.+?) \} \{ (.+?) \}$", r"\1 / \2"),
        (r"(?:\{ \} )?\^ (?:\{ )?\\circ(?: \})?(?: ([CF])\b)?", lambda m: f"deg{m[1] or ''} "),
        (r"(?i)\bquadrat(?=\w)", "square "), (r"(?i)\bkubik(?=\w)", "cubic "),
        (r"平方(?=\w)", "square "), (r"立方(?=\w)", "cubic "),
        (r"\bdegrees? (?=[CcFf][ea][lh])", ""), (r"\\mu ", "µ"), (r"\b([kMm]) \\Omega", r"\1ohm"),
        (r"\\Omega", "ohm"),
        (r"\b([NJVA])([msh])\b", r"\1 \2"),
        (r"\bold$|[{}().]|\\cdot", ""), (r"\^\s*(-?)\s*", r"^\1"),
        (r"\b(light|foot|ft|astronomical|atomic|standard|nautical)[ -]+(?=[a-z])", r"\1_"),
        (r" - (?=[A-Za-z])", " "),
    )
]  # fmt: skip
_ASKING = re.compile(
    r"\b(?:how\s+many|wie\s+viele|combien\s+de|cu[aá]nt[oa]s|quant[oaei]s?|сколько|number\s+of|en|em|in(?:\s+(?:units\s+of|whole))?|nearest(?:\s+whole)?|"
    r"(?:what|which|as an?|the)(?=\s+(?:percent|"
    r"degree\s+measure)))\s+(?P<unit>\$?[^.,?!;\n]{1,50})",
    re.IGNORECASE,
)


def split(tokens: Tokens) -> tuple[Tokens, Unit] | None:
    """(tokens of the value, unit) of a quantity; None for what is none."""
    sign = tokens[:1] if tokens[:1] == ("-",) else ()
    first, last = tokens[len(sign) : len(sign) + 1], tokens[-1:]
    if money := _MONEY.get("".join(first)) or _OWN.get("".join(first)[1:]):
        if money in _MONEY.values() and len(tokens) > 1:
            rest = tokens[len(sign) + 1 :]
            value, unit = split(rest) or (rest, ())
            return (*sign, *value), tuple(sorted({(money, 1), *unit}))
    if last and (last[0] in _MONEY or last[0] == "\\%"):
        return tokens[:-1], PERCENT if last[0] == "\\%" else ((_MONEY[last[0]], 1),)
    start = _start(tokens)
    if not start:
        return None
    start -= start > 1 and tokens[start - 1] in ("/", '"per')
    value, rest = tokens[:start], tokens[start:]
    if scale := _SCALES.get(rest[0][1:].lower()):
        value, rest = (*value, "\\cdot", scale), rest[2:] if rest[1:2] == ('"of',) else rest[1:]
        if not rest:
            return value, ()
    bare = _without_substance(rest)
    if (unit := parse(bare)) is not None:
        of = "".join(rest[len(bare) :]).replace('"', "")
        return value, (*unit, (f"of {of}", 1)) if of else unit
    said = [token for token in rest if token not in ("(", ")", ".", "!")]
    noun = [token[1:].casefold() for token in said]
    if len(said) > 5 or not all(map(is_word, said)) or words.changes([*noun, "".join(noun)]):
        return None
    return value, ((" ".join(noun), 1),)


def _without_substance(tokens: Tokens) -> Tokens:
    """The unit of "L of water" and "g NaCl"."""
    if '"of' in tokens[1:] and all(map(is_word, tokens)):
        return tokens[: tokens.index('"of')] if parse(tokens[: tokens.index('"of')]) else tokens
    formula = "".join(token.strip('"') for token in tokens[1:] if token != '"of')
    weighed = _name(tokens[0][1:]) in _WEIGHED and is_word(tokens[0])
    return tokens[:1] if weighed and _ATOMS.fullmatch(formula) else tokens


def _start(tokens: Tokens) -> int:
    """Where a unit may begin; 0 for nowhere."""
    for place, token in enumerate(tokens[1:], 1):
        ahead = "".join(tokens[place + 1 : place + 3])
        if (
            token in ("\\Omega", "\\mu")
            or is_word(token)
            or (token == "\\frac" and ahead[:2] == '{"')
        ):
            return place
        if token in ("k", "M", "m") and ahead[:6] == "\\Omega":
            return place
        if token == "^" and (ahead == "{\\circ" or ahead[:5] == "\\circ"):
            return place
    return 0


@lru_cache(4096)
def parse(tokens: Tokens) -> Unit | None:
    """A unit of known names, or None."""
    text = " ".join(token.strip('"') for token in tokens)
    for form, new in _FORMS:
        text = form.sub(new, text)
    powers: dict[str, int] = {}
    sign, prefix, last = 1, 1, ""
    for piece in text.split():
        if piece in ("/", "per", "pro", "por", "в"):
            sign = -1
        elif re.fullmatch(r"\^?-?[1-9]", piece):
            if not last and piece == "1":
                continue
            if not last or powers[last] not in (1, -1):
                return None
            powers[last] = (powers[last] if piece[-2:-1] != "-" else sign) * int(piece.strip("^"))
        elif raised := _RAISED.get(piece.lower()):
            if not last:
                return None
            powers[last] *= raised
        elif square := _SQUARES.get(piece.lower()):
            prefix = square
        elif known := _name(piece):
            powers[known] = powers.get(known, 0) + sign * prefix
            prefix, last = 1, known
        else:
            return None
    found = tuple(sorted((name, power) for name, power in powers.items() if power))
    return found if found and prefix == 1 else None


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
    """(factor, power of pi, offset) from `unit` to `other`; None: they measure no one thing."""
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
    if len(kinds) > 1:  # rad/s is 1/s
        kinds.pop("radian", None)
    return factor, pis, tuple(sorted((base, power) for base, power in kinds.items() if power))


def is_measure(unit: Unit) -> bool:
    """Whether a number with this unit is measured: 9.8 m/s^2, but no price, percent or count."""
    return bool(unit) and unit != PERCENT and not is_noun(unit) and not is_money(unit)


def is_money(unit: Unit) -> bool:
    return bool({name for name, _ in unit} & {*_MONEY.values(), "yuan"})


def is_noun(unit: Unit) -> bool:
    """Whether a unit is a noun that measures nothing ("apples", "units")."""
    return len(unit) == 1 and (unit[0][0] == "unit" or _name(unit[0][0]) is None)


@lru_cache(4096)
def asked(prompt: str) -> Unit:
    """The unit that the problem asks for last ("how many feet", "in m/s^2"), or ()."""
    money: Unit = ()
    for match in reversed(list(_ASKING.finditer(prompt[-4000:]))):
        tokens = read(rf"\text{{{match['unit'].replace('$', ' ')}}}") or ()
        for count in range(min(8, len(tokens)), 0, -1):
            unit = parse(tokens[:count]) if is_word(tokens[0]) else None
            if unit and not (
                count < len(tokens) and len(tokens[0]) == 2 and is_word(tokens[count])
            ):
                if unit == CENT and match[0].startswith("nearest"):
                    money = DOLLAR  # that is how it is rounded
                    break
                if not money or unit == CENT:
                    return unit
    return money
