"""Tables as plain data, as text for the terminal and as Markdown."""

import math
from collections.abc import Mapping, Sequence
from typing import Any


def table(columns: Mapping[str, str], rows: Sequence[Sequence[Any]], title: str = "") -> dict:
    """A table as plain data: `title`, `columns`, `rows`.

    Args:
      columns: name -> format spec of its numbers, such as "+.3f"; "" for text.
      rows: a cell is text, a number, None (unknown), an `estimate` or a `link`.
    """
    return {
        "type": "table",
        "title": title,
        "columns": [{"name": name, "format": spec} for name, spec in columns.items()],
        "rows": [list(row) for row in rows],
    }


def estimate(entry: Mapping[str, Any], key: str) -> dict | None:
    """The cell of `entry[key]` and its 95 % interval, or None; None unless it is finite."""
    if entry.get(key) is None or not math.isfinite(entry[key]):
        return None
    return {"value": entry[key], "ci95": entry.get(f"{key}_ci95")}


def link(text: str, href: str) -> dict:
    """The cell of a text with a link, for reports that can have one."""
    return {"text": text, "href": href}


def number_of(cell: Any) -> Any:
    """The number of a cell, or its text."""
    if isinstance(cell, Mapping):
        return cell["text"] if "text" in cell else cell["value"]
    return cell


def cell_text(cell: Any, spec: str) -> str:
    """Such as "0.970 [0.950, 0.990]"; without an interval the number; - for None."""
    value = number_of(cell)
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    interval = cell["ci95"] if isinstance(cell, Mapping) else None
    bounds = ["-" if limit is None else _formatted(limit, spec) for limit in interval or ()]
    return _formatted(value, spec) + (f" [{', '.join(bounds)}]" if bounds else "")


def _formatted(number: float, spec: str) -> str:
    """Without the sign of a number that is rounded to -0."""
    text = f"{number:{spec}}"
    return f"{0:{spec}}" if float(text.rstrip("%")) == 0 else text


def as_text(table: Mapping) -> tuple[list[str], list[list[str]]]:
    """Header and rows as text."""
    specs = [column["format"] for column in table["columns"]]
    rows = [[cell_text(*pair) for pair in zip(row, specs, strict=True)] for row in table["rows"]]
    return [column["name"] for column in table["columns"]], rows


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns, the first to the left and the others to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in (header, rule, *rows)
    )


def markdown_table(table: Mapping) -> str:
    """Text to the left, numbers to the right, all escaped."""
    header, rows = as_text(table)
    rule = ["--:" if column["format"] else ":--" for column in table["columns"]]
    escaped = [[escape_markdown(cell) for cell in row] for row in (header, *rows)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (escaped[0], rule, *escaped[1:]))


def escape_markdown(text: str) -> str:
    """The text on one line, with HTML, table borders, emphasis and links escaped."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{c}" if c in "\\`*|$" else c for c in text).replace("](", "]\\(")


def with_interval(entry: Mapping, key: str) -> str:
    """The text of an `estimate`, with three digits."""
    return cell_text(estimate(entry, key), ".3f")
