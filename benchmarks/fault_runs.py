"""A run in a process of its own, watched by its files, and the faults that strike it."""

import contextlib
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fault_cases import (
    EVALUATION,
    FULL_DISK,
    GRPO,
    INTERRUPT,
    OF_CHECKPOINTS,
    PHASES,
    REPORT,
    SAVE,
    SFT,
    TERMINATE,
    TRUNCATED,
    Case,
)
from fault_compare import Place, steps

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "launch/train.py"
# Twelve steps, so that several checkpoints are kept and one is in flight at most instants; an
# evaluation in between; rewards that differ, for the shrunk model solves no problem; and a state
# that adapts. The phases are those of the preset.
CONFIG = (
    f"--config={ROOT / 'configs/permix.py'}:tiny",
    "--config.train.steps=12",
    "--config.eval.every=6",
    "--config.eval.batch_size=32",
    "--config.rewards.overlong=0.5",
    "--config.rewards.overlong_tokens=12",
    "--config.personas.weights=adaptive",
)
_KEPT_OF_GRPO = 3  # train.keep_checkpoints; SFT keeps one
_DISK_BYTES = 32 * 2**20  # a run takes 3 MiB
_SECONDS_BETWEEN_LOOKS = 0.002

# The run, but restoring a checkpoint from below a folder takes more memory than there is.
_WITHOUT_MEMORY = """
import runpy, sys
import orbax.checkpoint as ocp
restore = ocp.CheckpointManager.restore
def exhausted(self, *args, **kwargs):
    if str(self.directory).startswith({folder!r}):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory, allocating 17179869184 bytes")
    return restore(self, *args, **kwargs)
ocp.CheckpointManager.restore = exhausted
sys.argv[0] = {script!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


class Run:
    """The command at a place, started; `program` is a Python program that ends up there.

    Attributes:
      words: what it has written to the terminal so far; all of it once `wait` has returned.
    """

    def __init__(self, place: Place, program: str = ""):
        place.folder.mkdir(parents=True, exist_ok=True)
        command = ["-c", program] if program else [str(SCRIPT)]
        self.process = subprocess.Popen(
            [sys.executable, *command, *CONFIG, f"--workdir={place.workdir}"],
            env={**os.environ, "PERMIX_CACHE": str(place.cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,  # a group that a Ctrl-C can be sent to
        )
        self.words = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.words += line

    def until(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition came true within the time and before the process ended."""
        limit = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < limit:
            if condition():
                return True
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return False

    def wait(self, seconds: float) -> int | None:
        """Its exit status; None where it had to be killed, for it did not end in time."""
        self.until(lambda: False, seconds)
        hangs = self.process.poll() is None
        if hangs:
            self.process.kill()
        status = self.process.wait()
        self._reader.join()
        return None if hangs else status


def without_memory(folder: Path) -> str:
    """A program: the run, where no checkpoint below the folder can be restored."""
    return _WITHOUT_MEMORY.format(folder=str(folder.absolute()), script=str(SCRIPT))


# ---- phases --------------------------------------------------------------------------------------


def has_begun(place: Place, phase: str) -> bool:
    """Of a run that was not started before at this place."""
    if phase == SFT:
        return any(place.cache.glob("bases/*/metrics.jsonl"))
    if phase == GRPO:
        return (place.workdir / "metrics.jsonl").exists()
    if phase == EVALUATION:
        return (place.workdir / "eval/0").exists()
    return any(place.workdir.glob("eval/*/kl.json"))


def saves_in_flight(place: Place) -> set[Path]:
    return {path for part in place.parts.values() for path in part.glob("checkpoints/*tmp*")}


def phase_lengths(place: Place, seconds: float) -> tuple[Run, dict[str, float]]:
    """Runs the command at a fresh place; seconds of each phase, of a save, and of the "whole"."""
    begin, run = time.monotonic(), Run(place)
    begun: dict[str, float] = {}
    seen: dict[Path, list[float]] = {}

    def look() -> bool:
        now = time.monotonic()
        for phase in PHASES:
            if phase != SAVE and phase not in begun and has_begun(place, phase):
                begun[phase] = now
        for path in saves_in_flight(place):
            seen.setdefault(path, [now, now])[1] = now
        return False

    run.until(look, seconds)
    end = time.monotonic()
    ends = [*begun.values(), end][1:]
    lengths = {
        phase: last - first for (phase, first), last in zip(begun.items(), ends, strict=True)
    }
    lengths[SAVE] = sum(last - first for first, last in seen.values()) / max(1, len(seen))
    return run, lengths | {"whole": end - begin}


# ---- faults --------------------------------------------------------------------------------------


class Disk:
    """The disk under a folder. As root the folder gets a small file system of its own, which is
    filled; otherwise it is the process that can write to no file any more."""

    def __init__(self, folder: Path):
        self._folder = folder
        self.own = False

    def __enter__(self) -> "Disk":
        self._folder.mkdir(parents=True)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", str(self._folder)]
        with contextlib.suppress(FileNotFoundError):
            self.own = subprocess.run(mount, capture_output=True).returncode == 0
        return self

    def __exit__(self, *_) -> None:
        if self.own:
            subprocess.run(["umount", str(self._folder)], check=True)

    @contextlib.contextmanager
    def full(self, run: Run) -> Iterator[Callable[[], bool]]:
        """Within, what the run writes does not fit; gives what keeps it so, to be called often."""
        if not self.own:
            resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (0, 0))
            yield lambda: False
            return
        filler = self._folder / "filler"
        with filler.open("wb", buffering=0) as file:

            def fill() -> bool:
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(4096))
                return False

            fill()
            yield fill
        filler.unlink()


def strike(
    case: Case, place: Place, run: Run, disk: Disk, lengths: Mapping[str, float], limit: float
) -> tuple[str, int | None]:
    """Waits for the case's instant and lets its fault happen.

    Returns what was done in words ("" where the run ended before) and the run's exit status, None
    where it did not end.
    """
    delay = case.instant * lengths[case.phase]
    if case.phase == SAVE:
        seen: set[Path] = set()

        def due() -> bool:
            seen.update(saves_in_flight(place))
            return len(seen) >= case.save or has_begun(place, EVALUATION)

        run.until(due, limit)
    else:
        run.until(lambda: has_begun(place, case.phase), limit)
    run.until(lambda: False, delay)
    if case.kind in OF_CHECKPOINTS:
        part = harmed_part(case, place)
        run.until(lambda: bool(steps(part)), limit)
    done = deliver(case.kind, run, disk, limit)
    return (f"{done[0]} {delay:.3f} s after it began" if done[0] else ""), done[1]


def deliver(kind: str, run: Run, disk: Disk, limit: float) -> tuple[str, int | None]:
    """Lets the fault happen now; see `strike`."""
    if run.process.poll() is not None:
        return "", run.wait(limit)
    if kind == FULL_DISK:
        with disk.full(run) as keep_full:
            run.until(keep_full, limit)
            return "the disk was filled" if disk.own else "no file could grow", run.wait(0)
    if kind == INTERRUPT:
        os.killpg(run.process.pid, signal.SIGINT)
    else:
        run.process.send_signal(signal.SIGTERM if kind == TERMINATE else signal.SIGKILL)
    name = kind if kind in (INTERRUPT, TERMINATE) else "kill -9"
    return name, run.wait(limit)


def harmed_part(case: Case, place: Place) -> Path:
    return place.parts["SFT" if case.of_sft else "GRPO"]


def harm(case: Case, place: Place) -> tuple[Path, str]:
    """Truncates a file of the newest checkpoint, or flips one of its bits.

    A file is as likely as it is large. Of a finished SFT, whose parameters alone are read, it is
    one of theirs. Returns the checkpoint, and what was done to it in words.
    """
    part = harmed_part(case, place)
    checkpoint = part / "checkpoints" / str(steps(part)[-1])
    finished = case.of_sft and case.phase != SFT
    files = sorted((checkpoint / "params" if finished else checkpoint).rglob("*"))
    sizes = {path: path.stat().st_size for path in files if path.is_file()}
    rng = random.Random(case.draw)
    [path] = rng.choices([*sizes], [*sizes.values()])
    bit = rng.randrange(8 * sizes[path])
    name = path.relative_to(part)
    if case.kind == TRUNCATED:
        os.truncate(path, bit // 8)
        return checkpoint, f"{name} cut to {bit // 8} of {sizes[path]} bytes"
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)
    return checkpoint, f"bit {bit} of {name} flipped"


def half_removed(newest: Path) -> list[Path]:
    """The checkpoints that should be gone now that there is this one: a kill may have struck while
    they were removed, file by file."""
    part = newest.parent.parent
    keep = _KEPT_OF_GRPO if part.name == "run" else 1
    return [part / "checkpoints" / str(step) for step in steps(part)[:-keep]]


def phase_now(place: Place) -> str:
    """The phase in which a run at this place was last."""
    begun = [phase for phase in (SFT, GRPO, EVALUATION, REPORT) if has_begun(place, phase)]
    return begun[-1] if begun else "start"
