"""Several processes that run one program on one mesh; alone, a process has nothing to do here.

All processes do the same on the host with the same values, and arrays on the mesh are cut over the
devices of all. What only one may do, such as writing a file, the main process does. What they
cannot know alike, such as a signal or a verdict with a deadline, they agree on. Functions marked
"Together" must be called by all of them, in the same order.
"""

import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
from jax._src.distributed import global_state  # nothing public gives the service's client
from jax.experimental import multihost_utils

from permix_jax.core.watch import Watch, before_abort, end_with, waiting

T = TypeVar("T")
_JOIN_SECONDS = 300


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process: int | None = None,
    detect: bool = False,
    silent_seconds: int = 60,
) -> None:
    """Joins the other processes, where there are any; to be called before JAX finds its devices.

    Ends the process where they have not all been found in five minutes.

    Args:
      coordinator, processes, process: HOST:PORT of process 0, how many there are, and which this
        is; all three or none. None: as SLURM or GKE say in the environment, if they do.
      detect: find them as `jax.distributed.initialize` does, by asking the machine: TPU slices.
      silent_seconds: as `watched` will be told.
    """
    named = (coordinator, processes, process)
    if any(x is not None for x in named):
        if None in named:
            raise ValueError("--coordinator, --processes and --process: give all three, or none")
        if not 0 <= process < processes:
            raise ValueError(f"--process is {process}; use 0 to {processes - 1}")
    elif not detect and not told_by(os.environ):
        return
    # Its handler of SIGTERM would keep a process alive that has not begun to train.
    jax.config.update("jax_enable_preemption_service", False)
    before_abort(_end_before_all_have_joined)
    # JAX has such bounds, too, but does not say which process it was: `watched` is to be first.
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
    """Within, this process ends with one line and status 1 where another is gone or hangs.

    The line names that process. An error in here ends the others, too.

    Args:
      silent_seconds: a process that shows no sign of life for so long is gone.
      wait_seconds: how long a process may keep the others waiting.
    """
    if not jax.distributed.is_initialized() or global_state.num_processes == 1:
        yield
        return
    watch = Watch(
        global_state.client,
        global_state.coordinator_address,
        global_state.process_id,
        global_state.num_processes,
        silent_seconds,
        wait_seconds,
    )
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
    """Whether any process says so. Together."""
    return flag if alone() else bool(_all_of(np.array(flag)).any())


def gather(value: T) -> list[T]:
    """Every process's value, which can be pickled, in the order of processes. Together."""
    if alone():
        return [value]
    mine = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = _all_of(np.array(mine.size, np.int32))
    padded = np.zeros(1 << int(sizes.max()).bit_length(), np.uint8)  # few sizes, few programs
    padded[: mine.size] = mine
    rows = _all_of(padded)
    return [pickle.loads(row[:size].tobytes()) for row, size in zip(rows, sizes, strict=True)]


def _all_of(array: np.ndarray) -> np.ndarray:
    """Every process's array of one shape, stacked."""
    with waiting():
        return multihost_utils.process_allgather(array)


def on_main(function: Callable[[], T]) -> T:
    """What `function` returns, or raises, on the main process, which alone calls it. Together."""
    if alone():
        return function()
    outcome = None
    if is_main():
        try:
            outcome = (function(), None)
        except Exception as error:
            outcome = (None, error)
    value, error = gather(outcome)[0]
    if error is not None:
        raise error
    return value


def own_part(count: int) -> slice:
    """Which of `count` items are this process's to work on."""
    if alone():
        return slice(0, count)
    number, processes = jax.process_index(), jax.process_count()
    return slice(count * number // processes, count * (number + 1) // processes)


def require_shared(folder: Path, name: str) -> None:
    """Raises ValueError unless all processes see the main one's folder. Together."""
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
