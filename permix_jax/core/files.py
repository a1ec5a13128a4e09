"""Files written so that a kill leaves the old one or the new one, never half of one."""

import contextlib
import errno
import io
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def write_text(path: Path, text: str) -> None:
    """UTF-8; makes the folder if need be. Raises OSError that names the file, as `append`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with _named(path):
        partial.write_text(text, "utf-8")
        partial.replace(path)


def append(file: io.FileIO, content: bytes, sync: bool = True) -> None:
    """Returns when the content is on disk; without `sync`, when the system has it, which a kill
    does not change. Raises OSError that names the file, where the disk is full.

    A buffered file would try again when it is closed: `file` is opened with buffering=0.
    """
    with _named(Path(file.name)):
        if file.write(content) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if sync:
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


def require_file(path: Path, remedy: str) -> None:
    """Raises FileNotFoundError with the remedy; ValueError where only a pointer to it is there."""
    if not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{path}: {what}; {remedy}")
    with path.open("rb") as file:
        refuse_lfs_pointer(file.read(len(_LFS_POINTER)), str(path))


def refuse_lfs_pointer(content: bytes, name: str) -> None:
    """Raises ValueError where the beginning of a file says that Git LFS has yet to fetch it."""
    if content.startswith(_LFS_POINTER):
        raise ValueError(
            f"{name}: a Git LFS pointer in place of the file; run 'git lfs pull' in its folder"
        )


def read_json(path: Path, remedy: str) -> Any:
    """Raises FileNotFoundError with the remedy, ValueError with the line where it is not JSON."""
    require_file(path, remedy)
    try:
        return json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON in UTF-8 ({error})") from None


def json_rows(text: str, path: Path) -> list[Any]:
    """The values of JSON Lines, without blank ones. Raises ValueError that names file and line."""
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}:{number}: not JSON; mend or remove that line ({error.msg})"
                ) from None
    return rows


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """As `read_json`; ValueError too where the file holds anything but a JSON object."""
    content = read_json(path, remedy)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a JSON object but {type(content).__name__}; {remedy}")
    return content


def write_rows(path: Path, rows: Iterable[Mapping]) -> None:
    """JSONL: one object a line."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
