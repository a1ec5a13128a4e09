"""A progress bar for each phase of a job, or plain lines; and what comes after the phase."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass

from tqdm import tqdm

from permix_jax.core.distributed import is_main

_LOG = logging.getLogger(__name__)
_SECONDS_BETWEEN_LINES = 10.0

# The names of a run's phases, which their `Progress` has too.
SFT, TRAINING, EVALUATION, LIKELIHOODS, KL = "sft", "training", "evaluation", "likelihoods", "kl"
RESPONSES = "responses"  # the kind of the phases that generate responses


@dataclass
class Phase:
    """A part of a job that takes time.

    Until it is measured, its units are expected to take as long as those of another phase of its
    kind.
    """

    name: str  # as in `Progress`
    left: int  # units that are still to do
    what: str  # what the units are, such as "steps of SFT"
    kind: str
    seconds: float = 0.0  # that the units measured so far took
    timed: int = 0  # how many those are


class Agenda:
    """The phases of a job. Time between two units, also of two phases, counts for the later one."""

    def __init__(self, phases: Sequence[Phase]):
        self._phases = {phase.name: phase for phase in phases if phase.left > 0}
        self._last: float | None = None
        self._rates: dict[str, float | None] = {}

    def begin(self) -> None:
        """A phase begins, or goes on. Its first unit compiles, so it is not measured."""
        self._last = None

    def count(self, name: str, units: int) -> None:
        """`units` more of the phase are done now."""
        now = time.monotonic()
        if phase := self._phases.get(name):
            phase.left = max(0, phase.left - units)
            if self._last is not None:
                phase.seconds, phase.timed = phase.seconds + now - self._last, phase.timed + units
        self._last = now

    def finish(self, name: str) -> None:
        """Nothing is left of the phase, even if another process did it."""
        self._phases.pop(name, None)

    def correct(self, phases: Sequence[Phase]) -> None:
        """So much is left of these phases after all."""
        for phase in phases:
            if phase.name in self._phases:
                self._phases[phase.name].left = phase.left

    def learn(self, kind: str, units: int, seconds: float) -> None:
        """`units` of a kind took `seconds`, within a phase of another kind.

        This is used until a phase of the kind is measured. The first call is not: it compiles.
        """
        self._rates[kind] = seconds / units if kind in self._rates else None

    def has(self, name: str) -> bool:
        return name in self._phases

    def seconds_of(self, name: str, units: int) -> float | None:
        """Expected seconds of `units` of the phase; None if no similar phase was measured."""
        phase = self._phases[name]
        alike = [p for p in (phase, *self._phases.values()) if p.kind == phase.kind and p.timed]
        rate = alike[0].seconds / alike[0].timed if alike else self._rates.get(phase.kind)
        return None if rate is None else units * rate

    def after(self, name: str, units: int) -> tuple[str, float | None]:
        """What is left after `units` more of the phase `name`, "" for nothing, and the expected
        seconds of it, None if they are not known."""
        rest = [(p, p.left - units * (p.name == name)) for p in self._phases.values()]
        rest = [(phase, left) for phase, left in rest if left > 0]
        times = [self.seconds_of(phase.name, left) for phase, left in rest]
        named = ", ".join(f"{left:,} {phase.what}" for phase, left in rest)
        return named, None if None in times else sum(times)


_NOTHING = Agenda(())
_AGENDA: ContextVar[Agenda] = ContextVar("agenda")


@contextlib.contextmanager
def following(agenda: Agenda) -> Iterator[None]:
    """Within, each `Progress` counts for its phase of the agenda and says what comes after it."""
    _LOG.info("to do: %s", agenda.after("", 0)[0] or "nothing but the report")
    before = _AGENDA.set(agenda)
    try:
        yield
    finally:
        _AGENDA.reset(before)


def finish(name: str) -> None:
    """`Agenda.finish` of the agenda that is followed, if any."""
    _AGENDA.get(_NOTHING).finish(name)


def correct(phases: Sequence[Phase]) -> None:
    """`Agenda.correct` of the agenda that is followed, if any."""
    _AGENDA.get(_NOTHING).correct(phases)


def learn(kind: str, units: int, seconds: float) -> None:
    """`Agenda.learn` of the agenda that is followed, if any."""
    _AGENDA.get(_NOTHING).learn(kind, units, seconds)


def duration(seconds: float) -> str:
    """Such as 384 s, 25 min or 3.2 h."""
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


class Progress:
    """Counts `total` units of a phase. Use it as a context manager.

    On a terminal it is a tqdm bar. Elsewhere it prints a line at the start, every ten seconds and
    at the end, so that a log file stays readable. Only the main process shows it. `phase` is the
    name of the phase in the agenda that is followed; "": as `label`.
    """

    def __init__(self, label: str, total: int, initial: int = 0, phase: str = ""):
        self._label, self._total, self._count, self._first = label, total, initial, initial
        self._silent, self._phase = not is_main(), phase or label
        shown = {"dynamic_ncols": True, "disable": self._silent or None}  # None: on terminals alone
        self._bar = tqdm(desc=label, total=total, initial=initial, **shown)
        self._agenda = _AGENDA.get(_NOTHING)
        if not self._agenda.has(self._phase):
            self._agenda = Agenda([Phase(self._phase, total - initial, "", "")])
        self._agenda.begin()
        self._last_line = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_) -> None:
        self._bar.close()

    def advance(self, units: int = 1, **figures: float) -> None:
        """Counts `units` more and shows the current figures."""
        self._count += units
        self._agenda.count(self._phase, units)
        shown = {name: f"{value:.4g}" for name, value in figures.items()}
        if not self._bar.disable:
            after, seconds = self._agenda.after(self._phase, self._total - self._count)
            then = after if seconds is None else duration(seconds)
            self._bar.set_postfix(shown | ({"then": then} if after else {}), refresh=False)
            self._bar.update(units)
            return
        now = time.monotonic()
        ends = self._count in (self._first + units, self._total)
        if not self._silent and (ends or now - self._last_line >= _SECONDS_BETWEEN_LINES):
            self._last_line = now
            print(self._line(shown), file=sys.stderr, flush=True)

    def warn(self, message: str) -> None:
        """Logs a warning, on its own line if there is a bar."""
        if not self._silent:
            with tqdm.external_write_mode(file=sys.stderr):
                _LOG.warning(message)

    def _line(self, shown: dict[str, str]) -> str:
        figures = "".join(f"  {name} {value}" for name, value in shown.items())
        left = self._total - self._count
        here = self._agenda.seconds_of(self._phase, left)
        after, then = self._agenda.after(self._phase, left)
        ends = [] if here is None else [f"{duration(here)} left"]
        if after:
            ends.append(f"then {after if then is None else f'about {duration(then)} for {after}'}")
        line = f"{self._label} {self._count}/{self._total}{figures}"
        return f"{line}  {', '.join(ends)}" if ends else line
