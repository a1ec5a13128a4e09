"""Where files lie: a folder of this host, or an object store such as s3:// or gs://.

`place_of` makes a `Path` of the one and an `Address` of the other. An Address has the methods of
Path that the package uses, so the same code works with both; annotations say Path. A store may be
away for a while (`stores`), and cannot append (`parts`).
"""

import contextlib
import glob
import io
import os
import posixpath
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

from permix_jax.core.parts import PART_BYTES, Appended
from permix_jax.core.stores import store_of

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")
_AT_ONCE = 8  # files that are copied at the same time


def place_of(name: "str | Path | Address") -> "Path | Address":
    """Of "s3://bucket/run" and the like an Address, of anything else a Path.

    Raises ValueError for an address without a folder, or of an unknown kind.
    """
    found = _SCHEME.match(str(name))
    if isinstance(name, Address) or not found:
        return name if isinstance(name, Address) else Path(name)
    if found[1] == "file":
        return Path(str(name)[found.end() :])
    return Address(found[1], str(name)[found.end() :])


def relative_name(target: "Path | Address", start: "Path | Address") -> str:
    """The way from the folder `start` to `target`; the whole address where there is none."""
    target, start = target.resolve(), start.resolve()
    if isinstance(target, Address) or isinstance(start, Address):
        if getattr(target, "scheme", "") != getattr(start, "scheme", ""):
            return str(target)
        return posixpath.relpath(f"/{target.key}", f"/{start.key}")
    return os.path.relpath(target, start)


def from_relative(start: "Path | Address", name: str) -> "Path | Address":
    """The place whose `relative_name` from `start` is `name`."""
    return place_of(name) if _SCHEME.match(name) else (start / name).resolve()


def require_local(path: "Path | Address", option: str) -> None:
    """Raises ValueError for an address. For what only a folder of this host can hold."""
    if isinstance(path, Address):
        raise ValueError(f"{option} is {path}; name a folder of this machine")


@contextlib.contextmanager
def staged(folder: "Path | Address") -> Iterator[Path]:
    """A local folder to write to. What is written there lies in `folder` afterwards."""
    if isinstance(folder, Path):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="permix_jax-") as local:
        yield Path(local)
        folder.upload(Path(local))


@contextlib.contextmanager
def at_hand(file: "Path | Address") -> Iterator[Path]:
    """A local file with the content of `file`, for code that works with local files alone."""
    if isinstance(file, Path):
        yield file
        return
    with tempfile.TemporaryDirectory(prefix="permix_jax-") as local:
        file.parent.download([file.name], Path(local))
        yield Path(local, file.name)


class Address:
    """A place in an object store: a file or a folder, by the methods of `pathlib.Path`.

    It has no __fspath__: code that works with local files alone fails, instead of writing to a
    local folder named "s3:".
    """

    def __init__(self, scheme: str, key: str):
        self.scheme, self._pure = scheme, PurePosixPath(posixpath.normpath(key.strip("/")))
        self.key = str(self._pure)  # the bucket, and the names below it
        if self.key in (".", "..") or self.key.startswith("../"):
            raise ValueError(f"{scheme}://{key}: name a bucket and a folder in it")

    def __str__(self) -> str:
        return f"{self.scheme}://{self.key}"

    def __repr__(self) -> str:
        return f"Address({str(self)!r})"

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Address) and str(self) == str(other)

    def __lt__(self, other: "Address") -> bool:
        return str(self) < str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __truediv__(self, name: "str | PurePosixPath") -> "Address":
        return Address(self.scheme, f"{self.key}/{name}")

    # ---- names ----------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._pure.name

    @property
    def stem(self) -> str:
        return self._pure.stem

    @property
    def suffix(self) -> str:
        return self._pure.suffix

    @property
    def parent(self) -> "Address":
        return self / ".." if "/" in self.key else self

    @property
    def parents(self) -> Sequence["Address"]:
        return [Address(self.scheme, str(above)) for above in self._pure.parents if above.name]

    def with_name(self, name: str) -> "Address":
        return self.parent / name

    def with_suffix(self, suffix: str) -> "Address":
        return self.with_name(self.stem + suffix)

    def relative_to(self, other: "Address") -> PurePosixPath:
        return self._pure.relative_to(other._pure)

    def absolute(self) -> "Address":
        return self

    resolve = expanduser = absolute

    # ---- what is there --------------------------------------------------------------------------

    def _read(self, method: str, *args: Any, **options: Any) -> Any:
        store = store_of(self.scheme)
        call = getattr(store.files, method)
        return store.call("read", self, lambda: call(self.key, *args, **options))

    def _write(self, method: str, *args: Any, **options: Any) -> Any:
        store = store_of(self.scheme)
        call = getattr(store.files, method)
        return store.call("write", self, lambda: call(self.key, *args, **options))

    def exists(self) -> bool:
        return self._read("exists")

    def is_file(self) -> bool:
        return self._read("isfile")

    def is_dir(self) -> bool:
        return self._read("isdir")

    def glob(self, pattern: str) -> list["Address"]:
        """The places that match, by name; none where there is no such folder."""
        store = store_of(self.scheme)
        whole = f"{glob.escape(self.key)}/{pattern}"
        try:
            keys = store.call("read", self, lambda: store.files.glob(whole))
        except FileNotFoundError:
            return []
        return sorted(Address(self.scheme, key) for key in keys)

    def iterdir(self) -> list["Address"]:
        return self.glob("*")

    def files(self) -> dict[str, int]:
        """The name from here of each file below -> its size in bytes."""
        found = self._read("find", detail=True).items()
        here = {Address(self.scheme, key).relative_to(self): about for key, about in found}
        return {str(name): about["size"] for name, about in here.items()}

    # ---- contents -------------------------------------------------------------------------------

    def read_bytes(self) -> bytes:
        """The content; what was appended is joined."""
        content = self._read("cat_file")
        parts = self.parts() if len(content) >= PART_BYTES else {}
        with contextlib.suppress(FileNotFoundError):  # of a part that its writer removes now
            while part := parts.pop(len(content), None):
                content += part._read("cat_file")
        return content

    def read_text(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self.read_bytes().decode(encoding, errors)

    def write_bytes(self, content: bytes) -> None:
        """Readers find what was there, or all of `content`."""
        self._write("pipe_file", content)
        for part in self.parts().values():
            part.unlink(missing_ok=True)

    def write_part(self, offset: int, content: bytes) -> None:
        """Writes what begins at `offset` of the file; at 0 its first part, under its own name."""
        part = self.with_name(f"{self.name}.part-{offset:012d}") if offset else self
        part._write("pipe_file", content)

    def create(self, content: bytes) -> bool:
        """Writes a new file; False, and nothing is written, where there is one."""
        try:
            self._write("pipe_file", content, mode="create")
        except FileExistsError:
            return False
        return True

    def open(self, mode: str, buffering: int = -1) -> "io.BytesIO | Appended":
        """To read ("rb") or to append ("ab")."""
        return Appended(self) if mode == "ab" else io.BytesIO(self.read_bytes())

    def parts(self) -> dict[int, "Address"]:
        """The parts that were appended, by the offset in bytes at which they begin."""
        parts = self.parent.glob(f"{self.name}.part-*")
        return {int(part.name.rpartition("-")[2]): part for part in parts}

    def touch(self) -> None:
        self.write_bytes(b"")

    def mkdir(self, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a folder of a store is there as soon as a file is in it."""

    def unlink(self, missing_ok: bool = False) -> None:
        if not missing_ok or self.is_file():
            self._write("rm_file")

    def remove(self) -> None:
        """Removes all files below."""
        _all(lambda name: (self / name).unlink(missing_ok=True), self.files())

    def upload(self, folder: Path, wanted: Callable[[str], bool] = lambda name: True) -> None:
        """Copies the files below a local folder whose name from there is wanted."""
        names = [str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()]

        def copy(name: str) -> None:
            target, source = self / name, str(folder / name)
            store = store_of(self.scheme)
            store.call("write", target, lambda: store.files.put_file(source, target.key))

        _all(copy, filter(wanted, names))

    def download(self, names: Sequence[str], folder: Path) -> None:
        """Copies files below to a local folder. Raises FileNotFoundError where one is missing."""

        def copy(name: str) -> None:
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            (self / name)._read("get_file", str(target))

        _all(copy, names)


def _all(work: Callable[[str], None], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(work, names))
