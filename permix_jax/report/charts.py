"""The charts of a report's content, as figures and as inline SVG in the colours of the page."""

import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from permix_jax.report.tables import number_of

# Okabe and Ito's palette, which colour-blind readers can tell apart. report.css has the same
# colours as --s0, --s1, ..., and lighter ones for a dark background.
COLOURS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#111111", "#e69f00", "#56b4e9", "#999999")
_MARKERS = "osD^vPX*"
_INK, _RULE = "#333333", "#cccccc"
_PAGE = {colour: f"var(--s{i})" for i, colour in enumerate(COLOURS)}
_PAGE |= {_INK: "currentColor", _RULE: "var(--rule)"}


def figure_of(charts: Sequence[Mapping], names: Sequence[str]) -> Figure:
    """Charts (see `content`) side by side; `names` in the order of their colours."""
    draw = {"lines": _lines, "points": _points, "ranking": _ranking, "grid": _grid}
    widths, heights = zip(*map(_inches, charts), strict=True)
    legend = {}
    # A dollar sign in a name must not start a formula.
    with matplotlib.rc_context({"text.parse_math": False}):
        figure = Figure(figsize=(sum(widths), max(heights)), layout="constrained")
        subplots = figure.subplots(1, len(charts), squeeze=False)[0]
        for axes, chart in zip(subplots, charts, strict=True):
            _tidy(axes)
            draw[chart["type"]](axes, chart, names)
            axes.set_xlabel(chart["axis" if chart["type"] == "ranking" else "x"])
            axes.set_ylabel(textwrap.fill(chart.get("y", ""), 30))
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                legend.setdefault(label, handle)
        if len(legend) > 1:
            place = {"loc": "outside lower center", "ncols": 4, "frameon": False}
            figure.legend(legend.values(), legend, **place, fontsize=9, labelcolor=_INK)
    return figure


def _inches(chart: Mapping) -> tuple[float, float]:
    if chart["type"] == "ranking":
        return 6.4, 0.9 + (0.16 + 0.12 * (len(chart["columns"]) - 1)) * len(chart["rows"])
    if chart["type"] == "points":
        return 5.0, 3.6
    if chart["type"] == "grid":
        return 1.2 + 0.75 * len(chart["xs"]), 1.0 + 0.45 * len(chart["ys"])
    return (5.0, 3.0) if chart["y"] else (3.6, 1.9)


def svg_of(chart: Mapping, names: Sequence[str]) -> Markup:
    """The chart as an <svg> element of the page."""
    description = f"{chart['title']} over the {chart['x']}"
    buffer = io.StringIO()
    # Text stays text. The salt makes ids differ within a page, and equal between equal runs.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": description}):
        figure_of([chart], names).savefig(buffer, format="svg", transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for colour, variable in _PAGE.items():
        svg = svg.replace(colour, variable)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1))


def ticks_within(low: float, high: float) -> list[float]:
    """Evenly spaced round numbers from low to high, as many as possible and at most six."""
    for step in (m * 10.0**e for e in range(-9, 9) for m in (1, 2, 5)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < 6:
            return [round(i * step, 12) for i in range(first, last + 1)]
    return [low, high]


def range_of(ranking: Mapping) -> tuple[float, float]:
    """The limits of its axis: all numbers and intervals, and a margin on either side."""
    cells = [cell for _, *row in ranking["rows"] for cell in row if cell is not None]
    numbers = [x for cell in cells for x in (number_of(cell), *limits(cell))]
    low, high = (min(numbers), max(numbers)) if numbers else (0.0, 1.0)
    room = 0.04 * (high - low) or 0.05
    return low - room, high + room


def _style(name: str, names: Sequence[str]) -> dict:
    place = names.index(name) if name in names else 1
    return {"color": COLOURS[place % len(COLOURS)], "marker": _MARKERS[place % len(_MARKERS)]}


def _lines(axes: Axes, chart: Mapping, names: Sequence[str]) -> None:
    own = [series["name"] for series in chart["series"]]
    if not set(own) & set(names):  # no policies: the first has the colour of the trained one
        names = ["", *own]
    for series in chart["series"]:
        x, y = np.array(series["x"], float), np.array(series["y"], float)
        name, style = series["name"], _style(series["name"], names)
        if series.get("smooth"):
            window = max(1, len(y) // 20)
            if window > 1:
                axes.plot(x, y, color=style["color"], alpha=0.3, linewidth=0.8)
            # The running mean over a twentieth of the values; at the ends, over fewer.
            box, style["marker"] = np.ones(window), "o" if len(y) < 20 else None
            mean = np.convolve(y, box, "same") / np.convolve(np.ones_like(y), box, "same")
            axes.plot(x, mean, linewidth=1.6, label=name, markersize=3, **style)
            continue
        axes.plot(x, y, label=name, markersize=4, **style)
        low, high = (np.array(series[side], float) for side in ("low", "high"))
        axes.fill_between(x, low, high, alpha=0.15, color=style["color"], lw=0)
    if chart["zero"] and all(value >= 0 for series in chart["series"] for value in series["y"]):
        axes.set_ylim(bottom=0)


def _points(axes: Axes, chart: Mapping, names: Sequence[str]) -> None:
    for series in chart["series"]:
        style = _style(series["name"], names)
        (x, dx), (y, dy) = (_with_arms(series[axis]) for axis in "xy")
        if series["each"]:
            axes.scatter(*zip(*series["each"], strict=True), s=12, alpha=0.4, color=style["color"])
        axes.errorbar(x, y, dy, dx, label=series["name"], capsize=3, linestyle="", **style)


def _ranking(axes: Axes, chart: Mapping, names: Sequence[str]) -> None:
    """A line for each persona. Several policies are named beside their uppermost estimates."""
    rows, labels = chart["rows"][::-1], chart.get("labels", {})
    shown = [column["name"] for column in chart["columns"][1:]]
    low, high = range_of(chart)
    axes.set(xlim=(low, high), ylim=(-0.6, len(rows) - 0.4))
    offsets = np.linspace(0.3, -0.3, len(shown)) if len(shown) > 1 else [0.0]
    for i, (name, offset) in enumerate(zip(shown, offsets, strict=True), start=1):
        style = _style(name, names)
        known = {line + offset: row[i] for line, row in enumerate(rows) if row[i] is not None}
        for y, cell in known.items():
            x, arms = _with_arms(cell)
            axes.errorbar(x, y, xerr=arms, markersize=4, **style)
        if known and len(shown) > 1:
            y = max(known)
            ends = [known[y]["value"], *limits(known[y])]
            left = known[y]["value"] > (low + high) / 2  # the side with more room
            axes.annotate(
                labels.get(name, name),
                (min(ends) if left else max(ends), y),
                xytext=(-5 if left else 5, 0),
                textcoords="offset points",
                horizontalalignment="right" if left else "left",
                verticalalignment="center",
                fontsize=9,
                fontweight="bold",
                color=style["color"],
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
            )
    axes.set_yticks(range(len(rows)), [number_of(row[0])[:40] for row in rows])
    axes.grid(axis="y", visible=False)
    for line in range(len(rows) - 1):
        axes.axhline(line + 0.5, color=_RULE, linewidth=0.5)
    if chart.get("zero"):
        axes.axvline(0, color=_INK, linewidth=0.8)


def _grid(axes: Axes, chart: Mapping, names: Sequence[str]) -> None:
    """A coloured cell with its percent for each estimate; framed if its interval excludes 0."""
    values = np.array([[c["value"] if c else np.nan for c in row] for row in chart["series"]])
    most = np.nanmax(np.abs(values), initial=1e-9)
    axes.imshow(values, cmap="PuOr", vmin=-1.6 * most, vmax=1.6 * most, aspect="auto")
    for row, column in zip(*np.nonzero(np.isfinite(values)), strict=True):
        axes.text(column, row, f"{values[row, column]:+.1%}", ha="center", va="center", color=_INK)
        interval = limits(chart["series"][row][column])
        if interval and (interval[0] > 0 or interval[1] < 0):
            place = (column - 0.46, row - 0.46)
            axes.add_patch(Rectangle(place, 0.92, 0.92, fill=False, edgecolor=_INK, linewidth=1.6))
    axes.set_xticks(range(len(chart["xs"])), list(map(str, chart["xs"])))
    axes.set_yticks(range(len(chart["ys"])), list(map(str, chart["ys"])))
    axes.grid(visible=False)


def _with_arms(cell: Mapping) -> tuple[float, np.ndarray | None]:
    """The value of an estimate, and the lengths of its error bars below and above."""
    value, interval = cell["value"], limits(cell)
    if not interval:
        return value, None
    # A bias-corrected interval may not contain its estimate.
    return value, np.maximum(0.0, [[value - interval[0]], [interval[1] - value]])


def limits(cell: Mapping) -> list[float]:
    """The interval of an estimate; empty if it has none or a limit is missing."""
    interval = cell["ci95"]
    return [] if interval is None or None in interval else interval


def _tidy(axes: Axes) -> None:
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_RULE)
    axes.tick_params(color=_RULE, labelcolor=_INK, labelsize=9, length=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.label.set(color=_INK, fontsize=9)
    axes.grid(color=_RULE, linewidth=0.5)
    axes.set_axisbelow(True)
