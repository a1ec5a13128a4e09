"""Units of answers: which one an answer carries, and which one a problem asks for."""

import re

_NAMES = (
    "degree degrees", "percent percentage", "dollar dollars usd", "cent cents", "euro euros",
    "millimeter millimeters mm", "centimeter centimeters cm", "meter meters m",
    "kilometer kilometers km", "inch inches in", "foot feet ft", "yard yards", "mile miles mi",
    "unit units", "acre acres", "liter liters", "milliliter milliliters ml", "gallon gallons",
    "quart quarts", "pint pints", "cup cups", "gram grams", "kilogram kilograms kg",
    "ounce ounces oz", "pound pounds lb lbs", "ton tons", "second seconds sec",
    "minute minutes min", "hour hours hr", "day days", "week weeks", "month months",
    "year years", "way ways", "value values",
)  # fmt: skip
_UNITS = {name: names.split()[0] for names in _NAMES for name in names.split()}
_UNITS["mph"] = "mile per hour"
_POWERS = {"square": "square", "sq": "square", "cubic": "cubic", "cu": "cubic"}
_OF_NUMBERS = {"degree", "percent", "dollar"}

_SYMBOLS = (
    (re.compile(r"(.+?)(?:\^\s*(?:\\circ|\{\s*\\circ\s*\})|°)", re.DOTALL), "degree"),
    (re.compile(r"(.+?)\\?%", re.DOTALL), "percent"),
    (re.compile(r"(-?\s*)\\\$(.+)", re.DOTALL), "dollar"),
)
_WORDS = re.compile(
    r"(?P<value>.*?)(?:\\(?:text|mbox|textnormal|textrm|mathrm)\s*\{(?P<text>[^{}]*)\}"
    # Without \text, "cm" may be c times m: only long names count.
    r"|(?<![A-Za-z\\{])(?P<bare>[A-Za-z]{4,}(?:\s+[A-Za-z]{4,})*))"
    r"\s*(?:\^\s*\{?(?P<power>[23])\}?)?",
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
    text = text.lstrip(" \n\t$").rstrip(" \n\t$.")
    for pattern, unit in _SYMBOLS:
        if match := pattern.fullmatch(text):
            return "".join(match.groups()), unit, True
    if match := _WORDS.fullmatch(text):
        unit = _unit((match["text"] or match["bare"] or "").replace("/", " per "))
        if unit and match["power"]:
            unit = f"{'square' if match['power'] == '2' else 'cubic'} {unit}"
        return match["value"], unit, unit in _OF_NUMBERS
    return text, "", False


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
