"""JSON Lines files of a folder that the user names, gzipped or plain; a bad row is named."""

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def read_rows(
    folder: str | Path, file: str, expected: str
) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Yields (line number, "file:line", row) of `folder/file`; blank lines are passed over.

    Args:
      expected: what the folder should hold, as words for the message.

    Raises:
      FileNotFoundError: the folder does not hold the file.
      ValueError: the file is empty or a broken gzip, or a row is no JSON object.
    """
    path = Path(folder) / file
    if not path.is_file():
        raise FileNotFoundError(
            f"data.folder is {str(folder)!r}, which has no {file}; it should hold {expected}"
        )
    content = path.read_bytes()
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path}: not a whole gzip file ({error}); fetch it again") from None
    if not content.strip():
        raise ValueError(f"{path}: the file is empty; fetch it again")
    for line, text in enumerate(content.split(b"\n"), start=1):
        if text.strip():
            where = f"{path}:{line}"
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
