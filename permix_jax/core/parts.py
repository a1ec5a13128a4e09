"""A file of an object store that grows, although a store cannot append."""

import time
from typing import Any

PART_BYTES = 1 << 20  # from this size on, what is appended goes to a new part
FLUSH_SECONDS = 10.0


class Appended:
    """A file of a store that grows, as a file that was opened with "ab".

    A store cannot append. So the last part is written again and again until it has PART_BYTES; then
    a new one begins, NAME.part-OFFSET. A part whose offset is not where the ones before it end is
    of an older file, and is not read.
    """

    def __init__(self, address: Any):
        self._address, self.name = address, str(address)
        self._begin(address.read_bytes() if address.is_file() else b"")
        for offset, part in address.parts().items():
            if offset > self._start:
                part.unlink(missing_ok=True)

    def _begin(self, content: bytes) -> None:
        """Goes on behind `content`, which is there."""
        small = len(content) < PART_BYTES
        self._start, self._tail = (0, content) if small else (len(content), b"")
        self._unsaved, self._saved_at = False, time.monotonic()

    def write(self, content: bytes) -> int:
        """Takes the content; it is in the store after `flush`, and every FLUSH_SECONDS."""
        self._tail, self._unsaved = self._tail + content, True
        if time.monotonic() > self._saved_at + FLUSH_SECONDS:
            self.flush()
        return len(content)

    def flush(self) -> None:
        """Returns when all is in the store."""
        if not self._unsaved:
            return
        self._address.write_part(self._start, self._tail)
        self._unsaved, self._saved_at = False, time.monotonic()
        if len(self._tail) >= PART_BYTES:
            self._start, self._tail = self._start + len(self._tail), b""

    def truncate(self, size: int) -> None:
        """Keeps the first `size` bytes."""
        self.flush()
        content = self._address.read_bytes() if self._address.is_file() else b""
        if size < len(content):
            self._address.write_bytes(content[:size])
            self._begin(content[:size])

    def close(self) -> None:
        self.flush()
