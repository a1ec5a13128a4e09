from fractions import Fraction

import pytest

from permix_jax.rewards.notation import read
from permix_jax.rewards.tree import parse
from permix_jax.rewards.units import DEGREE, PERCENT, asked, conversion, is_noun, split


def unit(text):
    found = split(read(text))
    return found and found[1]


@pytest.mark.parametrize(
    "spellings",
    [
        (r"5\text{ m/s}^2", "5 m/s^2", r"5\,\mathrm{m\,s^{-2}}",
         r"5 \text{ meters per second squared}",
         r"5\,\frac{\mathrm{m}}{\mathrm{s}^2}", "5 m s^-2"),
        (r"5\text{ cm}^2", r"5\,\mathrm{cm^2}", r"5\text{ square centimeters}", r"5\text{ sq. cm}"),
        (r"5\,\mu\text{m}", "5 µm"), (r"5\,\mathrm{k\Omega}", "5 kΩ"), (r"5^\circ\text{C}", "5 °C"),
        (r"\$5", r"5\text{ dollars}", r"\text{USD }5"), (r"5\%", r"5\text{ percent}"),
        (r"5\text{ light-years}", r"5\text{ ly}"), (r"5\text{ часов}", r"5\text{ Stunden}", "5 h"),
    ],
)  # fmt: skip
def test_writings_of_one_unit(spellings):
    assert len({unit(text) for text in spellings}) == 1 and unit(spellings[0])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("5x", None), (r"2\sqrt 3", None), (r"12\text{ is incorrect}", None),
        (r"5\text{ or more}", None),
        (r"5\text{ apples}", (("apples", 1),)), (r"5\text{ points}", (("points", 1),)),
        (r"1.5\text{ million}", ()), (r"5\text{ min}", (("minute", 1),)), ("5万", None),
    ],
)  # fmt: skip
def test_what_stands_behind_a_number(text, found):
    assert unit(text) == found


@pytest.mark.parametrize(
    ("one", "two", "factor"),
    [
        ("5 km", "5 m", 1000), ("5 kHz", "5 Hz", 1000), ("5 N", "5 kg m/s^2", 1),
        ("5 h", "5 min", 60),
        ("5 inches", "5 cm", Fraction(127, 50)), (r"5\text{ cents}", r"\$5", Fraction(1, 100)),
        ("5 Pa", "5 J", None), (r"5\text{ apples}", r"5\text{ pears}", None), ("€5", r"\$5", None),
    ],
)  # fmt: skip
def test_conversion(one, two, factor):
    found = conversion(unit(one), unit(two))
    assert found == (None if factor is None else (factor, 0, 0))


def test_degrees_and_temperatures():
    assert conversion(DEGREE, unit(r"5\text{ rad}")) == (Fraction(1, 180), 1, 0)
    assert conversion(unit(r"5^\circ\text{C}"), unit("5 K")) == (1, 0, Fraction(27315, 100))
    assert parse(read(r"5\text{ ft }3\text{ in}"))[2] == (("inch", 1),)


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("How many feet is it?", (("foot", 1),)), ("Give it in m/s^2.", (("meter", 1),
        ("second", -2))),
        (r"in $\text{km/h}$?", (("hour", -1), ("kilometer", 1))), ("What percent is it?", PERCENT),
        ("How many apples in a box?", ()), ("A point in a circle", ()),
        ("in square feet", (("foot", 2),)),
    ],
)  # fmt: skip
def test_asked(prompt, found):
    assert asked(prompt) == found


def test_nouns():
    assert is_noun((("apples", 1),)) and is_noun((("unit", 2),)) and not is_noun((("meter", 1),))
