"""JSON Lines files, gzipped or plain, that a user may have written; a bad row is named."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Row = tuple[int, str, dict[str, Any]]


def read_rows(path: str | Path) -> Iterator[Row]:
    """Yields (line number, "file:line", row) of a file; raises as `parse_rows`, or as `open`."""
    return parse_rows(Path(path).read_bytes(), str(path))


def parse_rows(content: bytes, name: str) -> Iterator[Row]:
    """Yields (line number, "name:line", row); blank lines are passed over.

    Raises:
      ValueError: nothing is in it, it is a broken gzip, or a row is no JSON object.
    """
    if name.endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{name}: not a whole gzip file ({error}); fetch it again") from None
    if not content.strip():
        raise ValueError(f"{name}: the file is empty; write one JSON object a line")
    for line, text in enumerate(content.split(b"\n"), start=1):
        if text.strip():
            where = f"{name}:{line}"
            try:
                row = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"{where}: not a JSON object ({error})") from None
            if not isinstance(row, dict):
                raise ValueError(f"{where}: not a JSON object but {type(row).__name__}")
            yield line, where, row


def text_field(row: Mapping[str, Any], name: str, where: str) -> str:
    """The field's text; ValueError, which names `where`, if it is absent, blank or not text."""
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: field {name!r} is {value!r}; it must be text")
    return value
