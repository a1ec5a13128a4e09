"""One case of the campaign, from the first start of its run to the last."""

from collections.abc import Mapping
from pathlib import Path

from fault_cases import FULL_DISK, KILL, NO_MEMORY, OF_CHECKPOINTS, Case
from fault_compare import Place, steps
from fault_runs import (
    Disk,
    Run,
    deliver,
    half_removed,
    harm,
    harmed_part,
    phase_now,
    strike,
    without_memory,
)

State = dict[Path, tuple[list[str], bytes]]  # of each part

_STARTS = 4  # of the same command after the first fault, before a case is given up


class Player:
    """Plays a case at a fresh place.

    Args:
      disk: that of the place, where the case fills it.
      lengths: seconds of an uninterrupted run's phases, and of the "whole".

    Attributes:
      done: what happened, a line each.
      found: what should not have happened, a line each.
      words: of all its runs.
      faults: how many struck. starts: of the command.
    """

    def __init__(self, case: Case, place: Place, disk: Disk | None, lengths: Mapping[str, float]):
        self._case, self._place, self._disk, self._lengths = case, place, disk, lengths
        self._limit = 60 + 20 * lengths["whole"]  # seconds, after which a run is said to hang
        self._damaged: Path | None = None
        self._removing: list[Path] = []
        self._saved: dict[Path, bytes] = {}
        self.done: list[str] = []
        self.found: list[str] = []
        self.words = ""
        self.faults = self.starts = 0

    def play(self) -> None:
        """Starts the command, lets the fault strike, and starts it until it ends well."""
        run = self._start()
        what, status = strike(self._case, self._place, run, self._disk, self._lengths, self._limit)
        self._ended(run, status, what)
        if self._case.kind == NO_MEMORY:
            self._restore_without_memory()
        elif self._case.kind in OF_CHECKPOINTS and not self.found:
            self._damaged, what = harm(self._case, self._place)
            self._removing = half_removed(self._damaged)
            self._saved = self._what_is_saved()
            self.done.append(what)
        again = self._case.again
        for _ in range(_STARTS):
            if self.found or self._goes_on(again):
                break
            again = None
        else:
            self.found.append(f"the command did not end well when it was started {_STARTS} times")
        self._check_what_was_set_aside()

    def _goes_on(self, again: float | None) -> bool:
        """Starts the command; a fault strikes at `again`. Whether there is nothing left to do."""
        before, run, what = self._state(), self._start(), ""
        if again is None:
            status = run.wait(self._limit)
        else:
            delay = again * self._lengths["whole"]
            run.until(lambda: False, delay)
            kind = KILL if self._case.kind in OF_CHECKPOINTS else self._case.kind
            what, status = deliver(kind, run, self._disk, self._limit)
            what = what and f"{what} {delay:.3f} s after its start"
        self._ended(run, status, what)
        if not what and status:
            self._stopped_by_damage(run, before)
        return not what and status == 0

    def _start(self, program: str = "") -> Run:
        self.starts += 1
        return Run(self._place, program)

    def _ended(self, run: Run, status: int | None, what: str) -> None:
        """Notes how a run ended, and checks that what was saved before it is still there."""
        self.words += f"---- start {self.starts}\n{run.words}"
        self.faults += bool(what)
        struck = f"{what}, in {phase_now(self._place)}; " if what else ""
        self.done.append(f"start {self.starts}: {struck}status {status}")
        if status is None:
            self.found.append(f"start {self.starts} did not end in {self._limit:.0f} s")
        if self._case.kind == FULL_DISK and what and status and "\nerror: " not in run.words:
            self.found.append(f"start {self.starts}: no line says that the disk is full")
        for path, rows in self._saved.items():
            if not (path.exists() and path.read_bytes().startswith(rows)):
                self.found.append(f"start {self.starts}: rows of saved steps are gone from {path}")
        if "stopped; what was done is saved" in run.words:
            self._check_stop()
        self._saved = self._what_is_saved()

    def _what_is_saved(self) -> dict[Path, bytes]:
        """Each metrics.jsonl -> its rows, clocks and all, up to the newest undamaged checkpoint."""
        found = {}
        unusable = [] if self._aside() else [self._damaged, *self._removing]
        for part in self._place.parts.values():
            whole = [s for s in steps(part) if part / "checkpoints" / str(s) not in unusable]
            if whole:
                path = part / "metrics.jsonl"
                found[path] = b"".join(path.read_bytes().splitlines(keepends=True)[: whole[-1]])
        return found

    def _aside(self) -> dict[Path, Path]:
        """The unusable checkpoints that a run has set aside -> where they are now."""
        unusable = [path for path in (self._damaged, *self._removing) if path]
        places = {path: path.with_name(f"corrupt-{path.name}") for path in unusable}
        return {path: aside for path, aside in places.items() if aside.exists()}

    def _check_stop(self) -> None:
        """A run that says that all was saved has a checkpoint of its last row."""
        for name, part in self._place.parts.items():
            path = part / "metrics.jsonl"
            rows = len(path.read_bytes().splitlines()) if path.exists() else 0
            if rows and steps(part)[-1:] != [rows]:
                self.found.append(f"stopped after step {rows} of {name}, saved are {steps(part)}")

    def _state(self) -> State:
        """What no run may change that stops before it trains: names of checkpoints, metrics."""
        found = {}
        for part in self._place.parts.values():
            path = part / "metrics.jsonl"
            # Saves that were killed are no checkpoints, and are cleared away.
            names = sorted(p.name for p in part.glob("checkpoints/*") if "tmp" not in p.name)
            found[part] = names, path.read_bytes() if path.exists() else b""
        return found

    def _restore_without_memory(self) -> None:
        """The error is raised as it is, and nothing is renamed or dropped."""
        before = self._state()
        run = self._start(without_memory(harmed_part(self._case, self._place) / "checkpoints"))
        status = run.wait(self._limit)
        self._ended(run, status, "")
        self.faults += 1
        if not status or "RESOURCE_EXHAUSTED" not in run.words:
            self.found.append(f"a restore without memory ended with status {status}")
        if self._state() != before:
            self.found.append("a restore without memory changed checkpoints or metrics")

    def _stopped_by_damage(self, run: Run, before: State) -> None:
        """A run that needs a damaged checkpoint and has no other says so in a line and touches
        nothing else. What the line names is moved away then, as by hand."""
        lines = run.words.splitlines()
        said = [line for line in lines if line.startswith("error: ")][-1:] or lines[-1:] or [""]
        self.done += said
        damaged, aside = self._damaged, self._aside()
        named = damaged and (damaged.parent if aside else damaged)
        if named is None or not said[0].startswith("error: ") or str(named) not in said[0]:
            self.found.append(f"start {self.starts}: {said[0]}")
            return
        part = damaged.parent.parent
        names, rows = before[part]
        renamed = {path.name: to.name for path, to in aside.items()}
        after = sorted(renamed.get(name, name) for name in names)
        if self._state() != before | {part: (after, rows)}:
            self.found.append(f"start {self.starts}: it stopped, but checkpoints or rows changed")
        named.rename(self._place.folder / "moved-away")

    def _check_what_was_set_aside(self) -> None:
        """A damaged checkpoint that changes what is restored is noticed, or runs differ in the end.
        One that does not may be used; nothing else is set aside."""
        if self._damaged is not None:
            self.faults += 1
            if str(self._damaged) not in self.words:
                self.done.append("no run noticed the damage: it must have changed no array")
        for part in self._place.parts.values():
            wrong = set(part.glob("checkpoints/corrupt-*")) - {*self._aside().values()}
            self.found += [f"{path} was set aside, and nothing had damaged it" for path in wrong]
