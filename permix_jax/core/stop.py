"""Ctrl-C and SIGTERM: a run finishes its step, saves and ends."""

import signal

from permix_jax.core.distributed import any_process


class Stopped(Exception):
    """The run was asked to stop; everything done so far is saved."""


class StopRequest:
    """While entered, the first SIGINT or SIGTERM sets `requested`; a second SIGINT interrupts.

    Several processes of one program must read `requested` (or call `check`) at the same places: it
    is True for all of them once one got a signal.
    """

    def __init__(self):
        self._signalled = False
        self._previous = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number, _frame) -> None:
        if self._signalled and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._signalled = True

    @property
    def requested(self) -> bool:
        return any_process(self._signalled)

    def check(self) -> None:
        """Raises Stopped if a stop was requested. For places that have nothing to save."""
        if self.requested:
            raise Stopped
