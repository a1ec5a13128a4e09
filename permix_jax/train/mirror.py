"""The checkpoints of a run in an object store. Orbax works in a local folder of each process.

Layout in the store: `<directory>/<step>/` as in a local folder, and `sent.<I>-of-<N>`: process I of
N has sent its files; the file has their sizes. A checkpoint is there when all N say so. Each
process sends what it wrote. So hosts without a shared file system save together, and whoever reads
fetches all and joins it.
"""

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import tensorstore as ts

from permix_jax.core.distributed import is_main, on_main
from permix_jax.core.places import Address
from permix_jax.core.stores import StoreError, patience
from permix_jax.train.saved_steps import all_sent, saved_steps

_SECONDS_BETWEEN_LOOKS = 0.5


class MissingError(ValueError):
    """A file of a checkpoint is not there, or has another size."""


class Mirror:
    """Sends checkpoints from `local` to a store, and fetches them from there.

    local: a folder of this process, which `close` removes.
    """

    def __init__(self, directory: Address):
        self._directory = directory
        self._above = Path(tempfile.mkdtemp(prefix="permix_jax-"))
        self.local = self._above / "checkpoints"
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None

    def steps(self) -> list[int]:
        """Those of the checkpoints that are whole."""
        return saved_steps(self._directory)

    def clear(self, step: int) -> None:
        """Removes what a killed run may have left of a step. Together."""
        on_main((self._directory / str(step)).remove)

    def send(
        self, step: int, written: Callable[[], None], stays: Callable[[list[int]], Sequence[bool]]
    ) -> None:
        """Starts to send a checkpoint and returns; `wait` first.

        Args:
          written: returns when its files are written.
          stays: of all steps that are in the store then, which stay.
        """

        def work() -> None:
            try:
                written()
                self._send(step)
                if is_main():
                    self._prune(stays)
            except Exception as error:  # `wait` raises it
                self._error = error

        self._thread = threading.Thread(target=work, name=f"send checkpoint {step}")
        self._thread.start()

    def wait(self) -> None:
        """Returns when all processes have sent. Raises what kept this one from it."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def fetch(self, step: int, items: Sequence[str]) -> None:
        """Copies a checkpoint, of its items these alone, into the local folder.

        Raises MissingError where a file is not there, or not as it was sent.
        """
        remote, whole = self._directory / str(step), self.local / str(step)
        local = self._above / "fetched"
        for left in (whole, local):
            shutil.rmtree(left, ignore_errors=True)
        try:
            marks = [json.loads(mark.read_bytes()) for mark in remote.glob("sent.*")]
        except ValueError as error:
            raise MissingError("the list of its files is not as it was written") from error
        sizes = {name: size for mark in marks for name, size in mark.items()}
        wanted = [n for n in sizes if "/" not in n or n.partition("/")[0] in items]
        try:
            remote.download(wanted, local)
        except FileNotFoundError as error:
            raise MissingError(f"a file is missing: {error}") from error
        for name in wanted:
            if (local / name).stat().st_size != sizes[name]:
                raise MissingError(f"{name} has another size than when it was sent")
        for item in items:
            if len(parts := sorted((local / item).glob("ocdbt.process_*"))) > 1:
                _join(local / item, parts)
        local.rename(whole)

    def set_aside(self, step: int, name: str) -> None:
        """Renames a checkpoint in the store. Together."""
        shutil.rmtree(self.local / str(step), ignore_errors=True)

        def rename() -> None:
            source, target = self._directory / str(step), self._directory / name
            with tempfile.TemporaryDirectory(prefix="permix_jax-") as folder:
                source.download(list(source.files()), Path(folder))
                target.upload(Path(folder))
            self._remove(step)

        on_main(rename)

    def close(self) -> None:
        try:
            self.wait()
        finally:
            shutil.rmtree(self._above, ignore_errors=True)

    def _send(self, step: int) -> None:
        """Copies what this process wrote; its mark last. Waits for the marks of the others."""
        local, remote = self.local / str(step), self._directory / str(step)
        number, processes = jax.process_index(), jax.process_count()
        own = f"process_{number}"
        files = {
            str(path.relative_to(local)): path.stat().st_size
            for path in local.rglob("*")
            if path.is_file() and (number == 0 or path.match(f"*{own}") or f"{own}/" in str(path))
        }
        remote.upload(local, files.__contains__)
        (remote / f"sent.{number}-of-{processes}").write_bytes(json.dumps(files).encode())
        shutil.rmtree(local)
        began = time.monotonic()
        while not all_sent([mark.name for mark in remote.glob("sent.*")]):
            if time.monotonic() - began > patience():
                raise StoreError(f"{remote}: another process has not sent its part")
            time.sleep(_SECONDS_BETWEEN_LOOKS)

    def _prune(self, stays: Callable[[list[int]], Sequence[bool]]) -> None:
        """Removes the checkpoints that do not stay, and what a kill left of older ones."""
        steps = self.steps()
        kept = {step for step, stay in zip(steps, stays(steps), strict=True) if stay}
        names = [folder.name for folder in self._directory.iterdir()]
        for step in [int(name) for name in names if name.isdecimal()]:
            if step not in kept and step <= steps[-1]:
                self._remove(step)

    def _remove(self, step: int) -> None:
        """The marks first: what a kill leaves is not taken for a checkpoint."""
        folder = self._directory / str(step)
        for mark in folder.glob("sent.*"):
            mark.unlink(missing_ok=True)
        folder.remove()


def _join(item: Path, parts: Sequence[Path]) -> None:
    """Joins the databases that the processes wrote of an item into the one that Orbax reads."""

    context = ts.Context()  # only within one are values taken over by their place, not copied

    def opened(folder: Path) -> ts.KvStore:
        spec = {"driver": "ocdbt", "base": f"file://{folder}/"}
        return ts.KvStore.open(spec, context=context).result()

    whole = opened(item)
    for part in parts:
        opened(part).experimental_copy_range_to(whole).result()
