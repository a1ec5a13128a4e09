"""One process at a time; several that run one program count as one."""

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
    """Holds the lock `path` while entered; it falls with the process, however that ends.

    `while_waiting` is called again and again while another process has the lock; may raise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        while not on_main(lambda: _take(file)):
            while_waiting()
            time.sleep(_SECONDS_BETWEEN_TRIES)
        yield


def _take(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
