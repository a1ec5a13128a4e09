"""The report's charts: inline SVG that takes its colours and font from the page around it."""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's vermilion and blue; the page lightens them on a dark background.
BASE, TRAINED, INK, RULE = "#d55e00", "#0072b2", "#333333", "#cccccc"
PAGE_COLOURS = {
    BASE: "var(--base)",
    TRAINED: "var(--trained)",
    INK: "currentColor",
    RULE: "var(--rule)",
}


def training_curve(steps: Sequence[float], values: Sequence[float], name: str) -> Markup:
    """One metric over the steps: the raw values, faint, under their running mean.

    The mean runs over a twentieth of the points. Non-finite values are left out.
    """
    steps, values = np.asarray(steps, float), np.asarray(values, float)
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]

    axes = _axes(width=3.6, height=1.9)
    window = max(1, len(values) // 20)
    if window > 1:
        axes.plot(steps, values, color=TRAINED, alpha=0.3, linewidth=0.8)
    axes.plot(
        steps,
        _running_mean(values, window),
        color=TRAINED,
        linewidth=1.6,
        marker="o" if len(values) < 20 else None,
        markersize=3,
    )
    if not (values < 0).any():
        axes.set_ylim(bottom=0)
    axes.set_xlabel("step")
    return _svg(axes.figure, f"{name} over the training steps")


def accuracy_by_persona(evaluations: Mapping[str, dict]) -> Markup:
    """Dots with 95 % intervals: a line for each persona, a dot for each evaluation, at most two.

    `evaluations`: name -> content of stability.json, the base policy first. Personas are sorted by
    their accuracy in the first one; the plain prompt, "no persona", comes on top.
    """
    first = next(iter(evaluations.values()))
    ranked = sorted(first["per_persona"], key=lambda entry: entry["accuracy"])
    personas = [*(entry["persona"] for entry in ranked), None]

    axes = _axes(width=9.0, height=0.9 + 0.32 * len(personas))
    styles = zip((BASE, TRAINED), "os", (0.13, -0.13), strict=True)
    for (name, stability), (colour, marker, offset) in zip(
        evaluations.items(), styles, strict=False
    ):
        points = {entry["persona"]: entry for entry in stability["per_persona"]}
        points[None] = {
            "accuracy": stability["accuracy_no_persona"],
            "accuracy_ci95": stability["accuracy_no_persona_ci95"],
        }
        shown = [(line, points[p]) for line, p in enumerate(personas) if p in points]
        heights = [line + offset for line, _ in shown]
        lows, highs = zip(*(point["accuracy_ci95"] for _, point in shown), strict=True)
        axes.hlines(heights, lows, highs, color=colour, linewidth=1.6)
        axes.plot(
            [point["accuracy"] for _, point in shown],
            heights,
            marker,
            color=colour,
            markersize=5,
            label=name,
        )
    # Ids are plain text: a dollar sign in one must not start a formula.
    labels = ["no persona" if persona is None else _shortened(persona) for persona in personas]
    axes.set_yticks(range(len(personas)), labels, parse_math=False)
    axes.axhline(len(personas) - 1.5, color=RULE, linewidth=0.8)
    axes.set_ylim(-0.6, len(personas) - 0.4)
    axes.set_xlim(-0.01, 1.01)
    axes.set_xlabel("accuracy")
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, frameon=False, labelcolor=INK)
    return _svg(axes.figure, f"accuracy by persona: {', '.join(evaluations)}")


def _shortened(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


def _running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Centred; at the ends over the values that are there."""
    if not values.size:
        return values
    box = np.ones(window)
    return np.convolve(values, box, "same") / np.convolve(np.ones_like(values), box, "same")


def _axes(width: float, height: float) -> Axes:
    axes = Figure(figsize=(width, height), layout="constrained").subplots()
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.tick_params(color=RULE, labelcolor=INK, labelsize=9, length=0)
    axes.xaxis.label.set(color=INK, fontsize=9)
    axes.grid(color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    return axes


def _svg(figure: Figure, description: str) -> Markup:
    """The figure as an <svg> element, without what only a stand-alone file needs."""
    buffer = io.StringIO()
    # Text stays text; the salt makes the ids of one page differ, and equal runs byte-equal.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": description}):
        figure.savefig(buffer, format="svg", transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    for colour, variable in PAGE_COLOURS.items():
        svg = svg.replace(colour, variable)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(description)}"', 1))
