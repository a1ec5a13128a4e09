"""The exponents of the benchmark's curves."""

import pytest
from curves import AXES, BASE, exponent, table, varied
from hypothesis import given
from hypothesis import strategies as st


@given(k=st.floats(-3, 3), c=st.floats(0.01, 100))
def test_a_power_law_gives_its_exponent(k, c):
    xs = [1, 2, 5, 16]
    assert exponent(xs, [c * x**k for x in xs]) == pytest.approx(k, abs=1e-9)


def test_the_exponent_is_the_least_squares_slope():
    # Logarithms to base 2: (0, 0), (1, 3), (2, 3); the slope is (0 * -1 + 3 * 0 + 3 * 1) / 2.
    assert exponent([1, 2, 4], [1, 8, 8]) == pytest.approx(1.5)


@pytest.mark.parametrize("axis", AXES)
def test_one_value_of_each_axis_is_the_base(axis):
    assert sum(varied(BASE, axis, value) == BASE for value in AXES[axis]) == 1


def test_the_table_has_a_line_for_each_quantity():
    point = {"rollout": 1.0, "update": 2.0, "memory": 1e9}
    doubled = {name: 2 * y for name, y in point.items()}
    lines = table({"batch": {8: point, 16: doubled}}).splitlines()[2:]
    assert [line.split()[1] for line in lines] == ["rollout", "update", "memory"]
    assert all(line.endswith("1.00") for line in lines)
