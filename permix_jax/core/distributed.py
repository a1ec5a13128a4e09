"""Several processes that run one program on one mesh; a lone process passes through.

All processes do the same on the host with the same values; arrays are sharded over the devices of
all. The main process alone does what only one may do, such as writing a file. The processes agree
on what they cannot know alike, such as a signal or a verdict with a deadline. All of them must call
the functions marked "Together", in the same order.
"""

import fcntl
import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from jax._src.distributed import global_state  # nothing public gives the service's client
from jax.experimental import multihost_utils

from permix_jax.core.lease import Lease
from permix_jax.core.places import Address
from permix_jax.core.watch import Watch, before_abort, end_with, waiting

T = TypeVar("T")
_JOIN_SECONDS = 300
_SECONDS_BETWEEN_TRIES = 0.2
_SECONDS_BETWEEN_TRIES_IN_A_STORE = 2.0


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    detect: bool = False,
    silent_seconds: int = 60,
) -> None:
    """Joins the other processes, if there are any. Call it before JAX finds its devices.

    Ends the process if not all of them have joined in five minutes.

    Args:
      coordinator, processes, process: HOST:PORT of process 0, the number of processes and the index
        of this one; all three or none. None: SLURM's or GKE's environment variables decide.
      detect: let `jax.distributed.initialize` find the processes (TPU slices).
      silent_seconds: the value that `watched` will get.
    """
    named = (coordinator, processes, process)
    if any(x is not None for x in named):
        if None in named:
            raise ValueError("--coordinator, --processes and --process: give all three, or none")
        if not 0 <= process < processes:
            raise ValueError(f"--process is {process}; use 0 to {processes - 1}")
    elif not detect and not told_by(os.environ):
        return
    # The service's SIGTERM handler would keep a process alive that has not begun to train.
    jax.config.update("jax_enable_preemption_service", False)
    before_abort(_end_before_all_have_joined)
    # JAX's own bounds do not say which process is gone, so `watched` must act before them.
    later = 3 * silent_seconds + 10
    jax.distributed.initialize(
        *named,
        initialization_timeout=_JOIN_SECONDS,
        heartbeat_timeout_seconds=later,
        shutdown_timeout_seconds=later,
    )


def _end_before_all_have_joined() -> None:
    end_with(
        f"process {global_state.process_id} has not found all others at "
        f"{global_state.coordinator_address} in {_JOIN_SECONDS} s; start all of them, each with "
        "its own --process and the same --coordinator, which all hosts must reach"
    )


@contextmanager
def watched(silent_seconds: int, wait_seconds: int) -> Iterator[None]:
    """Within, this process ends with status 1 and one line if another process is gone or hangs.

    The line names that process. An error within ends the other processes too. The seconds are those
    of `Watch`.
    """
    if not jax.distributed.is_initialized() or global_state.num_processes == 1:
        yield
        return
    watch = Watch(global_state, silent_seconds, wait_seconds)
    before_abort(watch.end_aborted)
    try:
        yield
    except BaseException as error:
        watch.fail(error)
        raise
    watch.leave()


def told_by(environment: Mapping[str, str]) -> bool:
    """Whether SLURM (a step of several tasks) or GKE (TPU workers) started several processes."""
    step = "SLURM_STEP_NODELIST" in environment and "SLURM_PROCID" in environment
    tasks = int(environment.get("SLURM_NTASKS", 1)) if step else 1
    return tasks > 1 or "," in environment.get("TPU_WORKER_HOSTNAMES", "")


def alone() -> bool:
    """Whether this process works without others. Starts no JAX backend."""
    return not jax.distributed.is_initialized() or jax.process_count() == 1


def is_main() -> bool:
    """Whether this is the process that writes files and talks."""
    return alone() or jax.process_index() == 0


def any_process(flag: bool) -> bool:
    """Whether the flag is True in any process. Together."""
    return flag if alone() else bool(_all_of(np.array(flag)).any())


def gather(value: T) -> list[T]:
    """The values of all processes, in their order. Values must be picklable. Together."""
    if alone():
        return [value]
    mine = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = _all_of(np.array(mine.size, np.int32))
    padded = np.zeros(1 << int(sizes.max()).bit_length(), np.uint8)  # few shapes, few programs
    padded[: mine.size] = mine
    rows = _all_of(padded)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def _all_of(array: np.ndarray) -> np.ndarray:
    """The arrays of all processes, which have one shape, stacked."""
    with waiting():
        return multihost_utils.process_allgather(array)


def on_main(function: Callable[[], T]) -> T:
    """Calls `function` on the main process; all return its value or raise its error. Together."""
    if alone():
        return function()
    value, error = None, None
    if is_main():
        try:
            value = function()
        except Exception as raised:
            error = raised
    value, error = gather((value, error))[0]
    if error is not None:
        raise error
    return value


def own_part(count: int) -> slice:
    """The slice of `count` items that this process works on."""
    if alone():
        return slice(0, count)
    number, processes = jax.process_index(), jax.process_count()
    return slice(count * number // processes, count * (number + 1) // processes)


def require_shared(folder: Path, name: str) -> None:
    """Raises ValueError unless all processes see the main process's folder. Together."""
    if alone():
        return
    mark = folder / ".seen-by-all"

    def make() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()

    on_main(make)
    missing = any_process(not mark.exists())
    on_main(lambda: mark.unlink(missing_ok=True))
    if missing:
        raise ValueError(
            f"{name} is {folder}, where some process does not find what another wrote; name a "
            "folder on a file system that all hosts share"
        )


@contextmanager
def locked(path: Path, while_waiting: Callable[[], None]) -> Iterator[None]:
    """Holds the lock file `path` while entered; the lock ends with the process in any case, in a
    store some time after it (`Lease`).

    Processes of one program hold it together. `while_waiting` is called repeatedly while another
    program has the lock; it may raise.
    """
    if isinstance(path, Address):
        lock = Lease(path)
        try:
            while not on_main(lock.take):
                while_waiting()
                time.sleep(_SECONDS_BETWEEN_TRIES_IN_A_STORE)
            yield
        finally:
            lock.release()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:

        def is_mine() -> bool:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

        while not on_main(is_mine):
            while_waiting()
            time.sleep(_SECONDS_BETWEEN_TRIES)
        yield
