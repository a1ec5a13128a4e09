"""A lock in an object store."""

import contextlib
import threading
import time
from typing import Any


class Lease:
    """A lock in a store. Its holder gives signs of life; after SILENT_SECONDS without, it is lost.

    The file NAME.N belongs to the N-th holder. A store creates a file for one of several only, so
    one of those that wait becomes the next holder.
    """

    SIGN_SECONDS, SILENT_SECONDS = 15.0, 90.0
    _FREE = b"free"

    def __init__(self, address: Any):
        self._address, self._mine, self._number = address, None, 0
        self._seen: tuple[str, bytes] | None = None
        self._seen_at, self._ended, self._signs = 0.0, threading.Event(), None

    def take(self) -> bool:
        """Whether the lock is now ours; call it again until it is."""
        newest = max(self._holders(), default=0)
        if newest:
            holder = self._file(newest)
            try:
                sign = holder.read_bytes()
            except FileNotFoundError:  # its holder has just cleared it away
                return False
            if (holder.name, sign) != self._seen:
                self._seen, self._seen_at = (holder.name, sign), time.monotonic()
            silent = time.monotonic() - self._seen_at > self.SILENT_SECONDS
            if sign != self._FREE and not silent:
                return False
        if not self._file(newest + 1).create(b"0"):
            return False
        self._number, self._mine = newest + 1, self._file(newest + 1)
        for number in self._holders():
            if number < self._number:
                self._file(number).unlink(missing_ok=True)
        self._signs = threading.Thread(target=self._live, daemon=True)
        self._signs.start()
        return True

    def release(self) -> None:
        if self._mine is not None:
            self._ended.set()
            self._signs.join()  # or a late sign of life would undo it
            self._mine.write_bytes(self._FREE)

    def _live(self) -> None:
        signs = 0
        while not self._ended.wait(self.SIGN_SECONDS):
            signs += 1
            with contextlib.suppress(OSError):  # the main thread meets the same error
                self._mine.write_bytes(str(signs).encode())

    def _file(self, number: int) -> Any:
        return self._address.with_name(f"{self._address.name}.{number}")

    def _holders(self) -> list[int]:
        files = self._address.parent.glob(f"{self._address.name}.*")
        return [int(file.suffix[1:]) for file in files if file.suffix[1:].isdecimal()]
