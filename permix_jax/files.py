"""Writing files so that a kill leaves the old one or the new one, never half of one."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """UTF-8; makes the folder if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, "utf-8")
    partial.replace(path)


def write_json(path: Path, record: Any) -> None:
    write_text(path, json.dumps(record, indent=1) + "\n")


def write_rows(path: Path, rows: Iterable[Mapping]) -> None:
    """JSONL: one object a line."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
