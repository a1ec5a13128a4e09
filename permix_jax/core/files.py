"""Reads and writes files, here or in a store. A kill leaves the old or the new, never a part."""

import contextlib
import errno
import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from permix_jax.core.parts import Appended
from permix_jax.core.places import Address

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 and makes the folder if it is missing. Raises OSError that names the file."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_text`."""
    if isinstance(path, Address):
        path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with _named(path):
        partial.write_bytes(content)
        partial.replace(path)


def copy_file(source: Path, target: Path) -> None:
    """Copies a file, and makes the folder if it is missing. Raises OSError that names `target`."""
    if isinstance(source, Address) or isinstance(target, Address):
        write_bytes(target, source.read_bytes())
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    with _named(target):
        shutil.copyfile(source, partial)
        partial.replace(target)


def append(file: io.FileIO | Appended, content: bytes, sync: bool = True) -> None:
    """Returns when the content is on disk; without `sync`, when it survives a kill of the process.

    In a store, `sync` or `flush` of the file writes it. Open `file` with buffering=0: a buffered
    file would write again when it is closed. Raises OSError that names the file, for example if the
    disk is full.
    """
    if isinstance(file, Appended):
        file.write(content)
        if sync:
            file.flush()
        return
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
    """Raises FileNotFoundError with the remedy; ValueError for a Git LFS pointer to the file."""
    if not path.is_file():
        what = "a folder, not a file" if path.is_dir() else "no such file"
        raise FileNotFoundError(f"{path}: {what}; {remedy}")
    with path.open("rb") as file:
        refuse_lfs_pointer(file.read(len(_LFS_POINTER)), str(path))


def refuse_lfs_pointer(content: bytes, name: str) -> None:
    """Raises ValueError if the content is a pointer to a file that Git LFS has not fetched."""
    if content.startswith(_LFS_POINTER):
        what = "a Git LFS pointer in place of the file"
        raise ValueError(f"{name}: {what}; run 'git lfs pull' in its folder")


def read_json(path: Path, remedy: str) -> Any:
    """Raises FileNotFoundError with the remedy, or ValueError with the line that is not JSON."""
    require_file(path, remedy)
    try:
        return json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not JSON in UTF-8 ({error})") from None


def json_rows(text: str, path: Path) -> list[Any]:
    """The values of JSON Lines; blank lines are skipped. Raises ValueError with file and line."""
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                remedy = f"mend or remove that line ({error.msg})"
                raise ValueError(f"{path}:{number}: not JSON; {remedy}") from None
    return rows


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """As `read_json`; raises ValueError too if the file does not hold a JSON object."""
    content = read_json(path, remedy)
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a JSON object but {type(content).__name__}; {remedy}")
    return content


def write_rows(path: Path, rows: Iterable[Mapping]) -> None:
    """JSONL: one object a line."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
