"""A pool of grading processes: deadlines, replacement of stuck and dead ones, recycling.

They are started as programs of their own, not forked and not by `multiprocessing`, whose children
import the launcher's main module and with it JAX. So the pool works from any thread, in a notebook,
and beside a running accelerator.
"""

import json
import os
import queue
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event, Timer

from permix_jax.core.problem import Undecided

# A pair took more than its own seconds or steps; the batch's time was over before that; a worker
# failed.
TIMEOUT, NO_TIME, ERROR = "timeout", "no time", "error"
Decision = bool | str  # True, False, or one of the above, which say that the verdict is unknown

# Of `steps.py`, for one pair: about a second, where 60,000 are much. They end what would take too
# long at the same place on every machine; the seconds are for what a step does not measure.
MAX_STEPS = 1_000_000
MAX_SERVED = 2000  # by one process, for sympy's caches grow

_COMMAND = (sys.executable, "-m", "permix_jax.rewards.worker")
_REPLIES = (True, False, TIMEOUT, ERROR)
_START_SECONDS = 300  # for imports on a crowded machine
_MAX_STARTS = 3


class Pool:
    """`workers` processes, until `close`. Raises OSError where no process can be started.

    A pair that takes more than `item_seconds`, or MAX_STEPS, is a TIMEOUT.
    """

    def __init__(self, workers: int, item_seconds: float):
        self._item_seconds, self._closed = item_seconds, Event()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="grading")
        self._workers = [_Worker(self._closed) for _ in range(workers)]
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        for worker in self._workers:
            self._idle.put(worker)

    def grade(
        self, pairs: Sequence[Undecided], batch_seconds: float, patience: int = 1
    ) -> list[Decision]:
        """One decision a pair, in order. What is not done after `batch_seconds` is NO_TIME.

        The clock starts when a worker is ready. A pair gets `patience` times the seconds and the
        steps. Raises RuntimeError if the workers do not get ready, or the pool is closed.
        """
        futures = []
        try:
            self._threads.submit(self._ask, None, 0.0, 1).result()
            deadline = time.monotonic() + batch_seconds
            for pair in pairs:
                futures.append(self._threads.submit(self._ask, pair, deadline, patience))
            return [future.result() for future in futures]
        except (CancelledError, RuntimeError) as error:
            why = "the verifier is closed" if self._closed.is_set() else str(error)
            raise RuntimeError(why) from None
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Kills the workers and waits for their threads; idempotent."""
        self._closed.set()
        for worker in self._workers:
            if process := worker.process:
                process.kill()
        self._threads.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.stop()

    def _ask(self, pair: Undecided | None, deadline: float, patience: int) -> Decision:
        """The decision on a pair; for None it waits until a worker is ready."""
        worker = self._idle.get()  # there are as many as threads
        try:
            worker.make_ready()
            own_deadline = time.monotonic() + self._item_seconds * patience
            decision = worker.ask(pair, MAX_STEPS * patience, min(deadline, own_deadline))
        finally:
            self._idle.put(worker)
        return TIMEOUT if decision == NO_TIME and own_deadline <= deadline else decision


class _Worker:
    """One process after another, until `closed`; for one thread at a time."""

    def __init__(self, closed: Event):
        self._closed, self._served, self._ready = closed, 0, False
        self.process: subprocess.Popen | None = None
        self._start()

    def make_ready(self) -> None:
        """Returns when the process is ready. Raises RuntimeError after three that never were."""
        starts = 0
        while not self._ready:
            if self.process is None:
                self._start()
            reply = self._read(time.monotonic() + _START_SECONDS)
            starts, self._ready = starts + 1, "ready" in reply
            if not self._ready:
                self.stop()
                if starts == _MAX_STARTS:
                    why = reply.get("failed", "it ended")
                    raise RuntimeError(f"no grading process can be started: {why}")

    def ask(self, pair: Undecided | None, steps: int, deadline: float) -> Decision:
        """Its decision, NO_TIME at the deadline. A process that gives none is replaced, and so is
        one that has served MAX_SERVED pairs."""
        if time.monotonic() >= deadline:
            return NO_TIME
        self._served += 1
        line = json.dumps({**pair._asdict(), "steps": steps}) + "\n"
        with suppress(BrokenPipeError):
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
        decision = self._read(deadline).get("verdict")
        if decision in _REPLIES and self._served < MAX_SERVED:
            return decision
        self.stop()
        self._start()  # it gets ready while this thread goes on
        return decision if decision in (*_REPLIES, NO_TIME) else ERROR

    def stop(self) -> None:
        """Kills the process and waits for its end."""
        if self.process:
            self.process.kill()
            self.process.wait()
            with suppress(BrokenPipeError):
                self.process.stdin.close()
            self.process.stdout.close()
        self.process, self._ready, self._served = None, False, 0

    def _start(self) -> None:
        # sympy's ways depend on the order of sets.
        environment = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "PYTHONHASHSEED": "0"}
        self.process = subprocess.Popen(
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).resolve().parents[2],  # where the package lies
            env=os.environ | environment,
            start_new_session=True,  # Ctrl-C in the terminal is not for the workers
        )
        if self._closed.is_set():  # else `close` will see the process
            raise RuntimeError

    def _read(self, deadline: float) -> dict:
        """The next line's object; {} where the process ends or babbles. Kills it if it is late."""
        timer = Timer(max(0.0, deadline - time.monotonic()), self.process.kill)
        timer.start()
        try:
            line = self.process.stdout.readline()
        finally:
            timer.cancel()
            timer.join()
        if time.monotonic() >= deadline:  # earlier, nothing was killed
            return {"verdict": NO_TIME, "failed": "it took too long"}
        with suppress(ValueError):
            if isinstance(reply := json.loads(line), dict):
                return reply
        return {}
