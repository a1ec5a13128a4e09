"""Ctrl-C and SIGTERM: finish the step, save, leave."""

import signal

from permix_jax.core.distributed import any_process


class Stopped(Exception):
    """Somebody asked the run to stop, and everything done so far is saved."""


class StopRequest:
    """While entered, a first SIGINT or SIGTERM sets `requested`; a second SIGINT interrupts.

    Of several processes that run one program, all must read `requested` (or `check`) in the same
    places: it is True for all once one of them got a signal.
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
        """Raises Stopped if a stop was requested: for places with nothing of their own to save."""
        if self.requested:
            raise Stopped
