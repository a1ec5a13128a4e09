"""A pool of grading processes: deadlines, replacement of stuck and dead ones, recycling.

They are started as programs of their own, not forked and not by `multiprocessing`, whose children
import the launcher's main module and with it JAX. Each has one thread here, which starts it, feeds
it and kills it; so the pool works from any thread, in a notebook, and beside a running accelerator.
"""

import json
import os
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from permix_jax.core.problem import Undecided

# A pair took more than its own seconds or steps; the batch's time was over before that; a worker
# failed.
TIMEOUT, NO_TIME, ERROR = "timeout", "no time", "error"
Verdict = bool | str  # True, False, or one of the above, which say that the verdict is unknown

# Of `steps.py`, for one pair: about a second, where 60,000 are much. They end what would take too
# long at the same place on every machine; the seconds are for what a step does not measure.
MAX_STEPS = 1_000_000

_COMMAND = (sys.executable, "-m", "permix_jax.rewards.worker")
_VERDICTS = (True, False, TIMEOUT, ERROR)
_START_SECONDS = 300  # for imports on a crowded machine
_MAX_FAILED_STARTS = 3


class Pool:
    """`workers` processes. Close it, or use it as a context manager.

    Args:
      item_seconds: after so long a worker is killed, and its item is a TIMEOUT; so is one that
        takes more than MAX_STEPS.
      tasks_per_worker: a worker is replaced after so many items, for sympy's caches grow.
    """

    def __init__(self, workers: int, item_seconds: float, tasks_per_worker: int):
        self._item_seconds, self._tasks_per_worker = item_seconds, tasks_per_worker
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen] = set()
        self._closed, self._failure = False, ""
        self._one_ready = threading.Event()
        self._threads = [
            threading.Thread(target=self._serve, name=f"grading-{index}", daemon=True)
            for index in range(workers)
        ]
        for thread in self._threads:
            thread.start()

    def grade(
        self, pairs: Sequence[Undecided], batch_seconds: float, patience: int = 1
    ) -> list[Verdict]:
        """One verdict a pair, in order. What is not done after `batch_seconds` is NO_TIME.

        The clock starts when a worker is ready. A pair gets `patience` times the seconds and the
        steps. Raises RuntimeError if the workers cannot be started, or the pool is closed.
        """
        self._one_ready.wait()
        deadline = time.monotonic() + batch_seconds
        tasks = [_Task(pair, deadline, patience) for pair in pairs]
        for task in tasks:
            self._tasks.put(task)
        for task in tasks:
            while not task.done.wait(1.0):
                self._raise_if_broken()
        self._raise_if_broken()
        return [task.verdict for task in tasks]

    def wait_until_ready(self) -> None:
        """Returns when the first worker is ready; raises as `grade`."""
        self._one_ready.wait()
        self._raise_if_broken()

    def pids(self) -> list[int]:
        """The process ids of the living workers."""
        with self._lock:
            return [process.pid for process in self._processes]

    def close(self) -> None:
        """Kills the workers and waits for their threads; idempotent."""
        with self._lock:
            self._closed = True
            for process in self._processes:
                process.kill()
        self._one_ready.set()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _raise_if_broken(self) -> None:
        if self._failure:
            raise RuntimeError(f"no grading process can be started: {self._failure}")
        if self._closed:
            raise RuntimeError("the verifier is closed")

    def _serve(self) -> None:
        try:
            self._serve_until_closed()
        except Exception as error:  # else a batch would wait for this thread for ever
            self._failure = f"{type(error).__name__}: {error}"
            self._one_ready.set()

    def _serve_until_closed(self) -> None:
        worker, failed = None, 0
        while not self._closed and not self._failure:
            if worker is None:
                worker, why = self._start()
                failed = 0 if worker else failed + 1
                if failed == _MAX_FAILED_STARTS and not self._closed:
                    self._failure = why
                    self._one_ready.set()
                continue
            self._one_ready.set()
            task = self._tasks.get()
            if task is None:
                break
            worker = self._work(worker, task)
        if worker:
            self._stop(worker)

    def _work(self, worker: "_Worker", task: "_Task") -> "_Worker | None":
        """Grades one item; None where the worker has to be replaced."""
        now = time.monotonic()
        if now >= task.deadline:
            task.finish(NO_TIME)
            return worker
        worker.served += 1
        own_deadline = now + self._item_seconds * task.patience
        reply = worker.ask(task, min(task.deadline, own_deadline))
        verdict = reply.get("verdict") if isinstance(reply, dict) else None
        keep = verdict in _VERDICTS and worker.served < self._tasks_per_worker
        if not keep:
            self._stop(worker)
        if verdict not in _VERDICTS:
            verdict = ERROR
            if reply == TIMEOUT:
                verdict = TIMEOUT if own_deadline <= task.deadline else NO_TIME
        task.finish(verdict)
        return worker if keep else None

    def _start(self) -> "tuple[_Worker | None, str]":
        root = str(Path(__file__).resolve().parents[2])
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(paths),
            "JAX_PLATFORMS": "cpu",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONHASHSEED": "0",  # sympy's ways depend on the order of sets
        }
        with self._lock:
            if self._closed:
                return None, ""
            process = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,  # Ctrl-C in the terminal is not for the workers
            )
            self._processes.add(process)
        worker = _Worker(process)
        reply = worker.read(time.monotonic() + _START_SECONDS)
        if isinstance(reply, dict) and reply.get("ready"):
            return worker, ""
        self._stop(worker)
        return None, reply.get("failed", "") if isinstance(reply, dict) else f"its start: {reply}"

    def _stop(self, worker: "_Worker") -> None:
        process = worker.process
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            try:
                pipe.close()
            except BrokenPipeError:
                pass
        with self._lock:
            self._processes.discard(process)


class _Task:
    def __init__(self, pair: Undecided, deadline: float, patience: int):
        self.pair, self.deadline, self.patience = pair, deadline, patience
        self.verdict: Verdict = ERROR
        self.done = threading.Event()

    def finish(self, verdict: Verdict) -> None:
        self.verdict = verdict
        self.done.set()


class _Worker:
    """One process and its pipes."""

    def __init__(self, process: subprocess.Popen):
        self.process, self.served = process, 0
        self._rest = b""
        self._poll = select.poll()
        self._poll.register(process.stdout, select.POLLIN | select.POLLHUP)

    def ask(self, task: _Task, deadline: float) -> dict | str:
        """Its reply, TIMEOUT, or ERROR where it has died."""
        line = json.dumps({**task.pair._asdict(), "steps": MAX_STEPS * task.patience}) + "\n"
        try:
            self.process.stdin.write(line.encode())
            self.process.stdin.flush()
        except OSError:
            return ERROR
        return self.read(deadline)

    def read(self, deadline: float) -> dict | str:
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not self._poll.poll(left * 1000):
                return TIMEOUT
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                return ERROR
            self._rest += chunk
        line, self._rest = self._rest.split(b"\n", 1)
        try:
            return json.loads(line)
        except ValueError:
            return ERROR
