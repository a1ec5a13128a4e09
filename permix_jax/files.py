"""Files written so that a kill leaves the old one or the new one, never half of one."""

import contextlib
import errno
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """UTF-8; makes the folder if need be. Raises OSError that names the file, as `append`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with _named(path):
        partial.write_text(text, "utf-8")
        partial.replace(path)


def append(file: io.FileIO, content: bytes) -> None:
    """Returns when the content is on disk. Raises OSError that names the file, where that is full.

    A buffered file would try again when it is closed: `file` is opened with buffering=0.
    """
    with _named(Path(file.name)):
        if file.write(content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(file.fileno())


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"{error.strerror}; what is finished is kept, run again when it can be written"
        raise OSError(error.errno, reason, str(path)) from None


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
