"""What tests read of an HTML report."""

import json
from html.parser import HTMLParser
from pathlib import Path

VOID = {"meta", "input", "br", "hr", "img", "link"}


class Page(HTMLParser):
    """Tags, attributes and headings of a page, its tables and what its <script>s hold.

    tables: of each, its rows: of each, its cells (text, data-v or None), charts left out.
    errors: tags that are closed in another order than opened, or never.
    """

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.attributes, self.headings, self.scripts = [], [], [], []
        self.tables, self.errors = [], []
        self._open, self._cell = [], None
        self.feed(html)
        self.close()
        self.errors += self._open

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append(tag)
        self.attributes += attrs.items()
        if tag in VOID:
            return
        self._open.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("th", "td") and attrs.get("class") != "chart":
            self._cell = ["", attrs.get("data-v")]
        elif tag == "script":
            self.scripts.append("")

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        if not self._open or self._open.pop() != tag:
            self.errors.append(f"</{tag}>")
        if tag in ("th", "td") and self._cell is not None:
            self.tables[-1][-1].append((" ".join(self._cell[0].split()), self._cell[1]))
            self._cell = None

    def handle_data(self, data):
        if self._cell is not None:
            self._cell[0] += data
        elif "script" in self._open:
            self.scripts[-1] += data
        elif {"h1", "h2"} & set(self._open) and data.strip():
            self.headings.append(data.strip())


def read_report(folder: Path) -> tuple[Page, dict, str]:
    """The page, the JSON and the Markdown of a folder's report."""
    html, content, markdown = (
        (folder / f"report.{suffix}").read_text("utf-8") for suffix in ("html", "json", "md")
    )
    return Page(html), json.loads(content), markdown


def section(report: dict, name: str) -> dict:
    return next(section for section in report["sections"] if section["id"] == name)


def tables_of(report: dict) -> list[dict]:
    """Tables and rankings of a report's JSON, in the order of the page."""
    sections = sorted(report["sections"], key=lambda section: section["collapsed"])
    return [block for section in sections for block in section["blocks"] if "columns" in block]
