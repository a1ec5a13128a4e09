"""A report's content as report.json, report.md and report.html."""

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from permix_jax.core.files import write_text
from permix_jax.report.charts import COLOURS, limits, range_of, svg_of, ticks_within
from permix_jax.report.completions import outcome
from permix_jax.report.content import TEMPLATES
from permix_jax.report.tables import cell_text, escape_markdown, markdown_table, number_of


def write_report(report: Mapping, folder: Path) -> None:
    """Writes the three files of a content (see `content`), report.html last.

    The page loads nothing. Everything that a report says is escaped, and browsers run no script but
    the page's own. The Markdown leaves out charts, and most completions.
    """
    report = as_plain(report)
    report["sections"] = [section for section in report["sections"] if section["blocks"]]
    script = _asset("report.js")
    values = {
        "report": report,
        "style": Markup(_asset("report.css")),
        "script": Markup(script),
        "script_sha256": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "completions": _embedded(report["completions"]),
        "colours": len(COLOURS),
        "escaped": escape_markdown,
        "fenced": _fenced,
    }
    functions = (cell_text, limits, markdown_table, number_of, outcome, range_of, svg_of)
    values |= {function.__name__: function for function in (*functions, ticks_within)}
    contents = {"json": json.dumps(report, indent=1, allow_nan=False) + "\n"}
    contents |= {
        suffix: TEMPLATES.get_template(f"report.{suffix}.jinja").render(values)
        for suffix in ("md", "html")
    }
    for suffix, text in contents.items():
        # UTF-8 cannot encode half of a surrogate pair, which a model's text may hold.
        write_text(folder / f"report.{suffix}", text.encode("utf-8", "replace").decode())


def as_plain(value: Any) -> Any:
    """The same in JSON's types: lists for tuples, None for numbers that are not finite."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)


def _embedded(data: Any) -> Markup:
    """JSON that cannot end the <script> element it stands in."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _fenced(text: str) -> str:
    """A Markdown code block whose fence is longer than any in the text."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"


def _asset(name: str) -> str:
    return TEMPLATES.loader.get_source(TEMPLATES, name)[0]
