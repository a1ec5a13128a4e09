from fractions import Fraction

import pytest

from permix_jax.rewards.units import asked_unit, conversion, names_unit, split_unit


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (r"30^\circ", ("30", "degree", True)),
        (r"$22.5^{ \circ }.$", ("22.5", "degree", True)),
        ("30°", ("30", "degree", True)),
        (r"64 \%", ("64 ", "percent", True)),
        ("64%", ("64", "percent", True)),
        (r"-\$5", ("-5", "dollar", True)),
        (r"\$ 251.60", (" 251.60", "dollar", True)),
        (r"4 \text{ feet}", ("4 ", "foot", False)),
        (r"18 \text{ degrees}", ("18 ", "degree", True)),
        (r"34\text{ sq. units}", ("34", "square unit", False)),
        (r"2400 \mbox{ cm}^2", ("2400 ", "square centimeter", False)),
        (r"2400 \mbox{ cm}^{3}", ("2400 ", "cubic centimeter", False)),
        (r"8.24 \text{ mph}", ("8.24 ", "mile per hour", False)),
        (r"8.24 \text{ miles/hour}", ("8.24 ", "mile per hour", False)),
        ("240 Ways.", ("240 ", "way", False)),
        (r"12\sqrt{13} square feet", (r"12\sqrt{13} ", "square foot", False)),
        (r"4\text{ million}", ("4", "", False)),
        (r"4\text{ p.m.}", ("4", "", False)),
        (r"4\text{ per hour}", ("4", "", False)),
        ("4 cm", ("4", "centimeter", False)),
        ("6 m²", ("6", "square meter", False)),
        ("xcm", ("xcm", "", False)),
        ("$5/hour", ("5/hour", "dollar", True)),
        ("$5$", ("5", "", False)),
        ("€3", ("3", "euro", True)),
        ("", ("", "", False)),
    ],
)
def test_split_unit(text, parts):
    assert split_unit(text) == parts


@pytest.mark.parametrize(
    ("prompt", "unit"),
    [
        ("How many feet tall is it?", "foot"),
        ("How many miles per hour is that?", "mile per hour"),
        ("The height is 3 feet. Find the area, in square\ninches.", "square inch"),
        ("Express your answer in cm.", "centimeter"),
        ("To the nearest degree, find it in simplest form.", "degree"),
        ("What is the degree measure of $A$?", "degree"),
        ("What percent of it is blue?", "percent"),
        ("Express it as a percent to the nearest tenth.", "percent"),
        ("Its height in feet is 3; what is it in inches?", "inch"),
        ("There is a 75 percent chance of rain.", ""),
        ("It is 3 miles long. How many are there?", ""),
    ],
)
def test_asked_unit(prompt, unit):
    assert asked_unit(prompt) == unit


@pytest.mark.parametrize(
    ("unit", "other", "factor"),
    [
        ("foot", "inch", 12),
        ("inch", "foot", Fraction(1, 12)),
        ("square foot", "square inch", 144),
        ("cubic meter", "cubic centimeter", 10**6),
        ("hour", "minute", 60),
        ("dollar", "cent", 100),
        ("foot", "minute", None),
        ("foot", "square foot", None),
        ("apple", "apple", None),
    ],
)
def test_conversion(unit, other, factor):
    assert conversion(unit, other) == factor


def test_names_unit():
    assert names_unit(["about", "km"]) and not names_unit(["apples"])
