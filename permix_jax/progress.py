"""A progress bar per phase; plain lines where the output is no terminal."""

import logging
import sys
import time

from tqdm import tqdm

from permix_jax.distributed import is_main

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 10.0


class Progress:
    """Counts `total` units of a phase. Use as a context manager.

    On a terminal a tqdm bar; elsewhere a line at the start, every ten seconds, and at the end,
    so that a log file stays readable. Of several processes, the main one shows it.
    """

    def __init__(self, label: str, total: int, initial: int = 0):
        self._label, self._total, self._count, self._first = label, total, initial, initial
        self._bar, self._silent = None, not is_main()
        if sys.stderr.isatty() and not self._silent:
            self._bar = tqdm(desc=label, total=total, initial=initial, dynamic_ncols=True)
        self._begin, self._timed_from = None, initial
        self._last_line = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, units: int = 1, **figures: float) -> None:
        """Counts `units` more and shows the figures of the moment."""
        self._count += units
        if self._begin is None:  # the first unit compiles, and says nothing of the others
            self._begin, self._timed_from = time.monotonic(), self._count
        shown = {name: f"{value:.4g}" for name, value in figures.items()}
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
            self._bar.update(units)
            return
        now = time.monotonic()
        ends = self._count in (self._first + units, self._total)
        if not self._silent and (ends or now - self._last_line >= _SECONDS_BETWEEN_LINES):
            self._last_line = now
            print(self._line(now - self._begin, shown), file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """Logs a warning, on a line of its own where there is a bar."""
        if not self._silent:
            with tqdm.external_write_mode(file=sys.stderr):
                _LOG.warning(message)

    def _line(self, elapsed: float, shown: dict[str, str]) -> str:
        figures = "".join(f"  {name} {value}" for name, value in shown.items())
        line = f"{self._label} {self._count}/{self._total}{figures}"
        timed = self._count - self._timed_from
        if not timed:
            return line
        return f"{line}  {elapsed / timed * (self._total - self._count):.0f} s left"
