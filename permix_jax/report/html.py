"""A report's content as one HTML file that loads nothing."""

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from permix_jax.report.charts import COLOURS, limits, range_of, svg_of, ticks_within
from permix_jax.report.tables import cell_text, number_of


class Axis(NamedTuple):
    """The axis of a ranking's chart, from `low` to `high`."""

    low: float
    high: float

    def at(self, value: float) -> str:
        """Where a value stands, in percent of the width."""
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}%"


def html_page(report: Mapping) -> str:
    """The page. Everything that a report says is escaped; browsers run no script but its own."""
    script = _asset("report.js")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_asset("report.html.jinja")).render(
        report=report,
        style=Markup(_asset("report.css")),
        script=Markup(script),
        script_sha256=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        completions=_embedded(report["completions"]),
        colours=len(COLOURS),
        axis_of=lambda ranking: Axis(*range_of(ranking)),
        ticks_of=lambda axis: ticks_within(axis.low, axis.high),
        svg_of=svg_of,
        cell_text=cell_text,
        number_of=number_of,
        limits=limits,
    )


def _embedded(data: Any) -> Markup:
    """JSON that cannot end the <script> element it stands in."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text("utf-8")
