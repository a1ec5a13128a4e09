"""Signs of life, so that no process waits for ever for another that is gone or hangs.

Every second, a thread of each process writes a sign of life into the store of JAX's coordination
service, which process 0 holds, and reads the signs of the others. A process ends with one line that
names another process if that one gives no more signs, has ended by an error, or has kept the others
waiting for too long. This last bound is long: the others wait while process 0 writes the reports.
"""

import ctypes
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

_SECONDS_BETWEEN_SIGNS = 1.0
# Time for the others to read why a process ends, before the store ends with process 0.
_LINGER_SECONDS = 4.0
# Time for a process to raise an error that another has raised, such as a mistake in the config.
_GRACE_SECONDS = 1.0
_FOLDER = "permix_jax/"
_ENDED = _FOLDER + "ended"
_REMEDY = "what is saved stays, and the same command goes on from there"
_PASSED = ("watch.py", "distributed.py", "sharding.py")  # their caller says more
# The beginning of JAX's ValueError or RuntimeError when a link to another process breaks.
_BROKEN_LINK = r"(UNKNOWN|INTERNAL|UNAVAILABLE|ABORTED|CANCELLED|DEADLINE_EXCEEDED): "


class Sign(NamedTuple):
    """What a process says about itself."""

    host: str
    beat: int  # the number of the sign
    meetings: int  # how often it began to wait for all others
    waits: bool  # whether it waits now, for the others or for its devices
    at: str  # file and line of this package at which its main thread is


class _Here:  # what this process's next sign says
    meetings = 0
    waits = False


@contextmanager
def waiting(together: bool = True) -> Iterator[None]:
    """Within, this process waits for all others, which do the same; or for its devices."""
    _Here.meetings += together
    _Here.waits = True
    try:
        yield
    finally:
        _Here.waits = False


def awaited(signs: Mapping[int, Sign]) -> list[int]:
    """The processes that the others wait for; none if all wait in the same meeting."""
    behind = min((sign.meetings, sign.waits) for sign in signs.values())
    there = [i for i, sign in sorted(signs.items()) if (sign.meetings, sign.waits) == behind]
    return [] if behind[1] and len(there) == len(signs) else there


class Watch:
    """The thread that writes the signs of this process and reads those of the others.

    Args:
      service: JAX's state of several processes, with the client of its coordination service.
      silent_seconds: a process that gives no sign for so long is gone.
      wait_seconds: the longest time that this process may work or wait without a new meeting.
    """

    def __init__(self, service: Any, silent_seconds: float, wait_seconds: float):
        self._client, self._process = service.client, service.process_id
        self._address = service.coordinator_address  # HOST:PORT of process 0
        self._silent, self._wait = silent_seconds, wait_seconds
        self._beat, self._host = 0, socket.gethostname()
        begin, processes = time.monotonic(), range(service.num_processes)
        self._heard = dict.fromkeys(processes, begin)  # when the last new sign of each came
        self._signs: dict[int, Sign] = {}
        self._looked = begin
        self._met = (0, False, begin)  # meetings, waits, and since when
        self._left, self._failing = threading.Event(), threading.Event()
        self._store = True  # whether the store can still be reached
        self._calls = ThreadPoolExecutor(1, "signs of life")
        self._greet()
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Ends the thread: this process is done, and so are the others."""
        self._left.set()
        self._thread.join()

    def fail(self, error: BaseException) -> None:
        """Tells the others that this process ends by `error`.

        The end of another process may be the cause of the error. Then this waits until the thread
        knows which process it is; the thread ends this process with that line, and this does not
        return. Otherwise the caller has some seconds to report the error.
        """
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        if re.match(_BROKEN_LINK, said):
            self._left.wait(self._silent + 3 * _LINGER_SECONDS)
        self._failing.set()
        self._announce(f"{self._name(self._process)} ended: {said.removeprefix('error: ')}")

    def end_aborted(self) -> None:
        """Ends this process, which JAX is about to abort, and says why if that is known."""
        if self._failing.is_set():
            os._exit(1)
        if self._process and not _answers(self._address):
            end_with(f"{self._name(0)} is gone")
        end_with(f"JAX has aborted {self._name(self._process)}, as it says above")

    # ---- the thread ------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._left.wait(_SECONDS_BETWEEN_SIGNS):
            if self._failing.is_set():
                time.sleep(_LINGER_SECONDS)
                os._exit(1)
            if trouble := self._look():
                self._announce(trouble)
                if not self._failing.wait(_GRACE_SECONDS):
                    end_with(trouble, linger=0 if self._process else _LINGER_SECONDS)

    def _greet(self) -> None:
        """Writes the first sign and reads those of the others, which name their hosts."""
        self._exchange()
        try:
            for i in self._heard:
                text = self._client.blocking_key_value_get(f"{_FOLDER}{i}", 1000 * self._silent)
                self._signs[i] = Sign(*json.loads(text))
        except RuntimeError:
            pass  # a process ended at once; the thread will read why

    def _look(self) -> str:
        """Writes a sign and reads the others'; returns why this process must end, or ""."""
        try:
            texts = self._call(self._exchange)
        except TimeoutError:
            self._store = False
            return self._no_sign([0])
        except RuntimeError:  # from gRPC: process 0 has ended, and the store with it
            self._store = False
            return f"{self._name(0)} is gone"
        if _ENDED in texts:
            return texts[_ENDED]
        now = time.monotonic()
        if now - self._looked > 5 * _SECONDS_BETWEEN_SIGNS:  # this process stood still itself
            self._heard = dict.fromkeys(self._heard, now)
            self._met = (_Here.meetings, _Here.waits, now)
        self._looked = now
        for process in self._heard:
            text = texts.get(f"{_FOLDER}{process}")
            sign = text and Sign(*json.loads(text))
            if sign and sign != self._signs.get(process):
                self._signs[process], self._heard[process] = sign, now
        silent = [i for i, heard in self._heard.items() if now - heard > self._silent]
        return self._no_sign(silent) if silent else self._too_long(now)

    def _exchange(self) -> dict[str, str]:
        self._beat += 1
        sign = Sign(self._host, self._beat, _Here.meetings, _Here.waits, _code_place())
        text = json.dumps(sign)
        self._client.key_value_set(f"{_FOLDER}{self._process}", text, allow_overwrite=True)
        return dict(self._client.key_value_dir_get(_FOLDER))

    def _too_long(self, now: float) -> str:
        """The message if this process had no new meeting for too long, or ""."""
        meetings, waits, since = self._met
        if (meetings, waits) != (_Here.meetings, _Here.waits):
            self._met = (_Here.meetings, _Here.waits, now)
        elif now - since > self._wait:
            late = awaited(self._signs)
            who = self._names(late or list(self._signs), where=True)
            each = "" if late else " each other, in which a device or a link hangs"
            bound = "distributed.wait_seconds; raise it if that was work"
            return f"{self._wait} s without a step ({bound}), waiting for{each}: {who}"
        return ""

    def _no_sign(self, processes: list[int]) -> str:
        names = self._names(processes)
        return f"no sign of life for {self._silent} s (distributed.silent_seconds) from {names}"

    # ---- what both threads do --------------------------------------------------------------------

    def _announce(self, trouble: str) -> None:
        """Tells the others, so that they end with the same line. The first announcement counts."""
        if not self._store:
            return
        try:
            self._call(lambda: self._client.key_value_set(_ENDED, trouble))
        except (RuntimeError, TimeoutError):
            pass  # there is one already, or nobody reads it

    def _call(self, function: Callable) -> Any:
        """The result of a call of the store, or TimeoutError: the call itself may never return."""
        return self._calls.submit(function).result(self._silent)

    def _names(self, processes: list[int], where: bool = False) -> str:
        return " and ".join(self._name(i, where) for i in processes)

    def _name(self, process: int, where: bool = False) -> str:
        sign = self._signs.get(process)
        host = sign.host if sign else self._host if process == self._process else ""
        place = f"at {sign.at}" if where and sign and sign.at else ""
        details = ", ".join(filter(None, [host, place]))
        return f"process {process}" + (f" ({details})" if details else "")


def _code_place() -> str:
    """The innermost file:line of this package, except `_PASSED`, at which the main thread is."""
    package = str(Path(__file__).parents[1]) + os.sep
    frame = sys._current_frames().get(threading.main_thread().ident)
    while frame:
        file = frame.f_code.co_filename
        if file.startswith(package) and Path(file).name not in _PASSED:
            return f"{file.removeprefix(package)}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def end_with(trouble: str, linger: float = 0.0) -> NoReturn:
    """Ends this process at once with one line and status 1, whatever its other threads do."""
    # Not through Python's buffers: a thread that hangs may hold their locks.
    os.write(2, f"error: {trouble}; {_REMEDY}\n".encode())
    time.sleep(linger)
    os._exit(1)


def _answers(address: str) -> bool:
    """Whether a process listens at HOST:PORT."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
    except OSError:
        return False
    return True


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(_signal: int) -> None:
    if _before_abort:
        _before_abort()


_before_abort: Callable[[], None] | None = None


def before_abort(function: Callable[[], None]) -> None:
    """Calls `function` when C code aborts this process, as JAX's does when process 0 is gone.

    Python's own signal handlers run later, in the main thread, which is too late here.
    """
    global _before_abort
    _before_abort = function
    handle = ctypes.CDLL(None).signal
    handle.argtypes, handle.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    handle(signal.SIGABRT, ctypes.cast(_on_abort, ctypes.c_void_p))
