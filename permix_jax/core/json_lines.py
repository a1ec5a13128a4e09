"""Reads JSON Lines files of users, plain or gzipped. Messages name the file and the line."""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from permix_jax.core.files import refuse_lfs_pointer, require_file

Row = tuple[int, str, dict[str, Any]]

_GZIP = b"\x1f\x8b"
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_rows(path: str | Path) -> Iterator[Row]:
    """Yields (line number, "file:line", row) of a file; raises as `parse_rows`, or OSError."""
    require_file(Path(path), "name a file with one JSON object a line")
    return parse_rows(Path(path).read_bytes(), str(path))


def parse_rows(content: bytes, name: str) -> Iterator[Row]:
    """Yields (line number, "name:line", row); blank lines are skipped.

    Raises:
      ValueError: the content is empty, a broken gzip, a Git LFS pointer or not UTF-8. Or a row is
        no JSON object, or has text that UTF-8 cannot hold.
    """
    content = unpacked(content, name)
    if not content.strip():
        raise ValueError(f"{name}: the file is empty; write one JSON object a line")
    for line, text in enumerate(content.split(b"\n"), start=1):
        if text.strip():
            where = f"{name}:{line}"
            row = _object(text, where)
            for field, value in row.items():
                require_encodable([field, value], f"{where}: field {field!r}")
            yield line, where, row


def unpacked(content: bytes, name: str) -> bytes:
    """The text of a file, in UTF-8, without gzip and byte order mark; raises as `parse_rows`."""
    refuse_lfs_pointer(content, name)
    if content.startswith(_GZIP) or name.endswith(".gz"):
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{name}: not a whole gzip file ({error}); fetch it again") from None
    if content.startswith(_UTF_16) or b"\0" in content:
        raise ValueError(f"{name}: the text is in UTF-16, or no text; save the file as UTF-8")
    return content.removeprefix(codecs.BOM_UTF8)


def _object(text: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(text.decode("utf-8"))
    except UnicodeDecodeError as error:
        reason = f"the text is not UTF-8 ({error.reason}); save the file as UTF-8"
        raise ValueError(f"{where}: not a JSON object: {reason}") from None
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", str(error))
        at = f" at column {error.colno}" if hasattr(error, "colno") else ""
        raise ValueError(
            f"{where}: not a JSON object ({reason}{at}); write one JSON object a line"
        ) from None
    if not isinstance(row, dict):
        raise ValueError(
            f"{where}: not a JSON object but {type(row).__name__}; write one JSON object a line"
        )
    return row


def require_encodable(value: Any, where: str) -> None:
    """Raises ValueError if `value` contains, at any depth, a text that UTF-8 cannot hold.

    Such a text has half of a surrogate pair, which JSON can spell ("\\ud83d"). Tokenizers refuse
    it, and it cannot be written to a file.
    """
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{where} holds {value[error.start]!r}, one half of a surrogate pair; write the "
                "whole character, or leave it out"
            ) from None
    elif isinstance(value, Mapping):
        require_encodable([*value, *value.values()], where)
    elif isinstance(value, list):
        for part in value:
            require_encodable(part, where)


def text_field(row: Mapping[str, Any], name: str, where: str) -> str:
    """The field's text. Raises ValueError, with `where`, if it is absent, blank or not text."""
    value = field(row, name, where)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{where}: field {name!r} is {value!r}; it must be text")
    return value


def field(row: Mapping[str, Any], name: str, where: str) -> Any:
    """The field's value. Raises ValueError, with `where` and the row's fields, if it is absent."""
    if name not in row:
        there = f"only {', '.join(map(repr, row))}" if row else "nor any other"
        raise ValueError(
            f"{where}: there is no field {name!r}, {there}; add it, or rename the field that has it"
        )
    return row[name]
