from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from permix_jax.report.charts import (
    COLOURS,
    figure_of,
    range_of,
    svg_of,
    ticks_within,
)
from permix_jax.report.content import grid, lines, points, ranking


def cell(value, *limits):
    return {"value": value, "ci95": list(limits) or None}


def svg(chart, names=("base", "trained")):
    text = str(svg_of(chart, names))
    ElementTree.fromstring(text.replace("xlink:", ""))
    return text


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_ticks_are_round_and_inside(low, width):
    ticks = ticks_within(low, low + width)
    room = 1e-6 * max(width, 1)
    assert 2 <= len(ticks) <= 6
    assert low - room <= ticks[0] and ticks[-1] <= low + width + room
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])
    assert ticks_within(0.19, 1.03) == [0.2, 0.4, 0.6, 0.8, 1.0]


def test_an_axis_has_all_intervals_inside():
    columns = [{None: cell(0.5, 0.4, 0.6), "poet": cell(0.2)}, {"poet": cell(0.9, 0.8, 1.0)}]
    chart = ranking(["base", "trained"], "accuracy", columns, "problems")
    low, high = range_of(chart)
    assert (low, high) == pytest.approx((0.2 - 0.032, 1.0 + 0.032))
    assert range_of(ranking(["base"], "accuracy", [{"poet": None}], "problems")) == (-0.04, 1.04)


def test_personas_without_a_figure_rank_last_and_no_persona_first():
    column = {"a": None, "b": cell(0.1), None: cell(0.0), "c": cell(0.9)}
    chart = ranking(["base"], "accuracy", [column], "problems")
    assert [row[0]["text"] for row in chart["rows"]] == ["no persona", "c", "b", "a"]


def test_a_map_frames_the_cells_whose_interval_excludes_0():
    rows = [[cell(0.1, 0.02, 0.18), cell(-0.05, -0.2, 0.1)], [None, cell(-0.3, -0.4, -0.2)]]
    axes = figure_of([grid("PSS", "kl", "share", [0.0, 0.1], [0.5, 1.0], rows)], []).axes[0]
    assert [(text.get_text(), *text.get_position()) for text in axes.texts] == [
        ("+10.0%", 0, 0), ("-5.0%", 1, 0), ("-30.0%", 1, 1),
    ]  # fmt: skip
    centres = [tuple(np.add(p.get_xy(), 0.46).round(9)) for p in axes.patches]
    assert centres == [(0, 0), (1, 1)]


def test_a_ranking_names_each_policy_once_beside_its_uppermost_estimate():
    columns = [{None: cell(0.2), "poet": cell(0.1, 0.0, 0.3)}, {"poet": cell(0.9, 0.8, 1.0)}]
    chart = ranking(["base", "$trained$"], "accuracy", columns, "problems")
    chart["labels"] = {"base": "base: PSS 0.5"}
    axes = figure_of([chart], ["base", "$trained$"]).axes[0]
    assert {text.get_text(): (*text.xy, text.get_ha()) for text in axes.texts} == {
        "base: PSS 0.5": (0.2, pytest.approx(1.3), "left"),
        "$trained$": (0.8, pytest.approx(-0.3), "right"),
    }


def test_lines_take_the_colours_of_the_page_and_bear_intervals_that_are_missing():
    series = [
        {"name": "trained", "x": [0, 1], "y": [0.1, 0.3], "low": [0.0, None], "high": [0.2, None]},
        {"name": "$\\x$", "x": [0], "y": [0.2], "low": [None], "high": [None]},
        {"name": "empty", "x": [], "y": []},
    ]
    text = svg(lines("a < b", "step", "PSS", series), ("$\\x$", "trained"))
    assert "var(--s0)" in text and "var(--s1)" in text and "empty" not in text
    assert not [colour for colour in COLOURS if colour in text]
    assert 'aria-label="a &lt; b over the step"' in text and ">PSS<" in text
    assert "$\\x$" in text  # no formula


def test_a_running_mean_is_drawn_over_many_values():
    series = {"name": "reward", "x": list(range(40)), "y": [0.5] * 40, "smooth": True}
    assert svg(lines("reward", "step", "reward", [series])).count("var(--s1)") == 2


def test_points_without_interval():
    each = [(0.5, 0.6)]
    series = {"name": "base", "x": cell(0.5), "y": cell(0.6, 0.7, 0.8), "each": each}
    assert "var(--s0)" in svg(points("Robustness", "PSS", "fidelity", [series]))


def test_charts_side_by_side_share_a_legend_and_long_labels_are_broken():
    curves = [{"name": name, "x": [1, 2], "y": [0, 1], "smooth": True} for name in ("a", "b")]
    label = "KL to the base policy, nats per token"
    figure = figure_of(
        [lines("r", "step", "reward", curves), lines("k", "step", label, curves)], "ab"
    )
    first, second = figure.axes
    assert first.get_ylabel() == "reward" and second.get_ylabel().replace("\n", " ") == label
    assert max(map(len, second.get_ylabel().split("\n"))) <= 30
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]
    assert first.get_legend() is None
