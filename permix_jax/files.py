"""Files written so that a kill leaves the old one or the new one, never half of one."""

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


def read_json(path: Path, remedy: str) -> Any:
    """Raises FileNotFoundError with the remedy, ValueError with the line where it is not JSON."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {remedy}")
    try:
        return json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None


def write_rows(path: Path, rows: Iterable[Mapping]) -> None:
    """JSONL: one object a line."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
