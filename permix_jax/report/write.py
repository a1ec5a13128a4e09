"""A report's content as report.json, report.md and report.html."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from permix_jax.core.files import write_text
from permix_jax.report.html import html_page
from permix_jax.report.markdown import markdown_page


def write_report(report: Mapping, folder: Path) -> None:
    """Writes the three files of a content (see `content`), report.html last."""
    report = as_plain(report)
    report["sections"] = [section for section in report["sections"] if section["blocks"]]
    contents = {
        "json": json.dumps(report, indent=1, allow_nan=False) + "\n",
        "md": markdown_page(report),
        "html": html_page(report),
    }
    for suffix, text in contents.items():
        # UTF-8 cannot encode half of a surrogate pair, which a model's text may hold.
        write_text(folder / f"report.{suffix}", text.encode("utf-8", "replace").decode())


def as_plain(value: Any) -> Any:
    """The same in JSON's types: lists for tuples, None for numbers that are not finite."""
    if isinstance(value, Mapping):
        return {key: as_plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
