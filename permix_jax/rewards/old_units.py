"""Units of answers: which one an answer carries, and which one a problem asks for."""

import re
from collections.abc import Iterable
from fractions import Fraction

_NAMES = (
    "degree degrees", "percent percentage", "dollar dollars usd", "cent cents", "euro euros",
    "millimeter millimeters mm", "centimeter centimeters cm", "meter meters m",
    "kilometer kilometers km", "inch inches in", "foot feet ft", "yard yards", "mile miles mi",
    "unit units", "acre acres", "liter liters litre litres L", "milliliter milliliters ml",
    "gallon gallons", "quart quarts", "pint pints", "cup cups", "gram grams g",
    "kilogram kilograms kg", "ounce ounces oz", "pound pounds lb lbs", "ton tons",
    "second seconds sec s", "minute minutes min", "hour hours hr", "day days", "week weeks",
    "month months", "year years", "way ways", "value values", "radian radians rad",
    "milligram milligrams mg",
)  # fmt: skip
_UNITS = {name: names.split()[0] for names in _NAMES for name in names.split()}
_UNITS |= {"mph": "mile per hour", "kmh": "kilometer per hour", "kph": "kilometer per hour"}
_UNITS |= {"h": "hour", "hrs": "hour", "secs": "second", "mins": "minute", "mL": "milliliter"}
_SIZES = {
    "length": {
        "millimeter": "0.001", "centimeter": "0.01", "meter": "1", "kilometer": "1000",
        "inch": "0.0254", "foot": "0.3048", "yard": "0.9144", "mile": "1609.344",
    },
    "time": {
        "second": "1", "minute": "60", "hour": "3600", "day": "86400", "week": "604800",
    },
    "money": {"cent": "0.01", "dollar": "1"},
    "mass": {"milligram": "0.001", "gram": "1", "kilogram": "1000"},
    "weight": {"ounce": "1", "pound": "16"},
    "volume": {"milliliter": "0.001", "liter": "1"},
    "capacity": {"cup": "1", "pint": "2", "quart": "4", "gallon": "16"},
}  # fmt: skip
_POWERS = {"square": "square", "sq": "square", "cubic": "cubic", "cu": "cubic"}
_RAISED = {"2": "square", "\u00b2": "square", "3": "cubic", "\u00b3": "cubic"}
_OF_NUMBERS = {"degree", "percent", "dollar"}

_SYMBOLS = (
    (re.compile(r"(.+?)(?:\^\s*(?:\\circ|\{\s*\\circ\s*\})|°)", re.DOTALL), "degree"),
    (re.compile(r"(.+?)\\?%", re.DOTALL), "percent"),
    (re.compile(r"(-?\s*)\\?\$(?=[\s\d.-])(.+)", re.DOTALL), "dollar"),
    (re.compile(r"(-?\s*)€(.+)", re.DOTALL), "euro"),
)
_DOLLARS = re.compile(r"-?\$[^$]*[^$\\]")  # "$5", while "$5$" is 5 in mathematical type
_WORDS = re.compile(
    r"(?P<value>.*?)(?:\\(?:text|mbox|textnormal|textrm|mathrm)\s*\{(?P<text>[^{}]*)\}"
    # Without \text, "cm" may be c times m: only long names count.
    r"|(?<![A-Za-z\\{])(?P<bare>[A-Za-z]{4,}(?:\s+[A-Za-z]{4,})*)"
    r"|(?<=[0-9])\s*(?P<short>cm|mm|km|mph|kg|mg|mL|ml|lbs?|oz|ft|hrs?|mins?|secs?|(?<=\s)[mg]))"
    r"\s*(?:\^\s*\{?(?P<power>[23])\}?|(?P<raised>[\u00b2\u00b3]))?",
    re.DOTALL,
)
_ASKING = re.compile(
    r"\b(?:how\s+many|number\s+of|in|nearest|nearest\s+whole|(?:what|which|as an?|whole|the)"
    r"(?=\s+(?:percent|degree measure)))\s+(?=(?P<words>[A-Za-z]+(?:[\s/]+[A-Za-z]+){0,3}))",
    re.IGNORECASE,
)


def split_unit(text: str) -> tuple[str, str, bool]:
    r"""(value, unit, whether only plain numbers carry such a unit); unit "" where there is none.

    Reads ^\circ, \%, \$ and known names in \text{...} ("sq. units", "cm" squared, "miles per hour")
    or, from four letters on, without it. The name of a unit is its singular: "square foot".
    """
    text = text.strip()
    if not _DOLLARS.fullmatch(text):
        text = text.lstrip(" \n\t$").rstrip(" \n\t$.")
    for pattern, unit in _SYMBOLS:
        if match := pattern.fullmatch(text):
            return "".join(match.groups()), unit, True
    if match := _WORDS.fullmatch(text):
        words = match["text"] or match["bare"] or match["short"] or ""
        unit = _unit(words.replace("/", " per "))
        if unit and (power := match["power"] or match["raised"]):
            unit = f"{_RAISED[power]} {unit}"
        return match["value"], unit, unit in _OF_NUMBERS
    return text, "", False


def conversion(unit: str, other: str) -> Fraction | None:
    """How many of `other` one `unit` is ("foot", "inch": 12); None where they measure no one thing.

    Reads squares and cubes of lengths too.
    """
    power = 1
    for name, exponent in (("square ", 2), ("cubic ", 3)):
        if unit.startswith(name) and other.startswith(name):
            unit, other, power = unit.removeprefix(name), other.removeprefix(name), exponent
    for sizes in _SIZES.values():
        if unit in sizes and other in sizes:
            return (Fraction(sizes[unit]) / Fraction(sizes[other])) ** power
    return None


def names_unit(words: Iterable[str]) -> bool:
    """Whether a unit is among the words."""
    return any(_UNITS.get(word) for word in words)


def asked_unit(prompt: str) -> str:
    """The unit that the problem asks for last ("how many feet", "in square feet"), or ""."""
    for match in reversed(list(_ASKING.finditer(prompt))):
        words = match["words"].replace("/", " per ").split()
        for count in range(len(words), 0, -1):
            if unit := _unit(" ".join(words[:count])):
                return unit
    return ""


def _unit(words: str) -> str:
    """ "Sq. inches" -> "square inch"; "" for what is no unit."""
    named = []
    for word in words.replace(".", " ").split():
        word = word.lower() if len(word) > 2 else word
        known = _POWERS.get(word) or _UNITS.get(word) or (word == "per" and word)
        if not known:
            return ""
        named.append(known)
    ends_in_a_name = named and named[-1] not in {"per", *_POWERS.values()}
    return " ".join(named) if ends_in_a_name and named[0] != "per" else ""
