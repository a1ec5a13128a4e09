"""TensorBoard's file of events, written by the thread that has something to write.

tensorboardX's writer hands events to a thread of its own. A full disk ends that thread, and the
next event waits for it for ever. Here a full disk is an error.
"""

import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import masked_crc32c
from tensorboardX.summary import scalar

from permix_jax.core.files import append


def events_path(folder: Path) -> Path:
    """A new file of events in the folder, by the name that TensorBoard looks for."""
    return folder / f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"


class Events:
    """Appends scalars to the file `path`; makes the folder if need be.

    TensorBoard no longer shows what an earlier start wrote beyond `step`. Raises OSError that names
    the file where the disk is full.
    """

    def __init__(self, path: Path, step: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def write(self, step: int, scalars: Mapping[str, float]) -> None:
        values = [value for name, x in scalars.items() for value in scalar(name, x).value]
        self._write(Event(step=step, summary=Summary(value=values)))

    def _write(self, event: Event) -> None:
        """As a record: the length, its checksum, the event, its checksum."""
        event.wall_time = time.time()
        content = event.SerializeToString()
        length = struct.pack("<Q", len(content))
        sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, content)]
        append(self._file, length + sums[0] + content + sums[1], sync=False)

    def close(self) -> None:
        self._file.close()
