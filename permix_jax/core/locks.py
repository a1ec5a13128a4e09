"""A lock that one process holds at a time. Processes of one program hold it together."""

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from permix_jax.core.distributed import on_main

_SECONDS_BETWEEN_TRIES = 0.2


@contextmanager
def locked(path: Path, while_waiting: Callable[[], None]) -> Iterator[None]:
    """Holds the lock file `path` while entered; the lock ends with the process in any case.

    `while_waiting` is called repeatedly while another process has the lock; it may raise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        while not on_main(lambda: _try_lock(file)):
            while_waiting()
            time.sleep(_SECONDS_BETWEEN_TRIES)
        yield


def _try_lock(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
