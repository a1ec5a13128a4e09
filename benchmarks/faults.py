"""A run under faults ends as one without: python benchmarks/faults.py --kills=50

Runs a shrunk job (`tiny`, with its SFT) twice without a fault, and then for each case in a fresh
workdir and cache. There it is killed, or stopped, or its disk fills, at a random instant of a
phase, or its newest checkpoint is damaged; the same command is started until it ends. In the end
metrics but for clocks, parameters, optimiser, evaluations and completions must equal those of the
first run, bit for bit; and on the way nothing that was saved may be lost. Prints a table; the exit
status is 1 where anything differs. What is promised: docs/reliability.md.

A case is a function of --seed and its number: --seed=S --case=N repeats it, as nearly as a clock
allows. The folder of a case where something differs is kept. Linux; as root the disk that fills is
a real one of 32 MiB.
"""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from fault_cases import FULL_DISK, Case, draw_case  # noqa: E402
from fault_compare import Place, differences  # noqa: E402
from fault_player import Player  # noqa: E402
from fault_runs import Disk, Run, phase_lengths  # noqa: E402

from permix_jax.report.tables import text_table  # noqa: E402

_FIRST_LIMIT = 3600.0  # seconds of the first run, which compiles
_SHOWN = 5  # of the things that differ in a case
CONTROL = "no fault"


class Outcome(NamedTuple):
    """row: of the table. faults: that struck. restarts: of the command. found: what differs."""

    row: str
    name: str
    faults: int
    restarts: int
    found: list[str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--kills", type=int, default=50, help="cases, each with a fault or two")
    add("--seed", type=int, default=0, help="of what is drawn for the cases")
    add("--case", type=int, action="append", help="this case alone, by its number; may be repeated")
    add("--folder", type=Path, default=Path("runs/faults"), help="of the runs; made if need be")
    args = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # of a job in the background, too
    folder = args.folder.absolute()
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(folder / "xla"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

    reference, control, lengths = uninterrupted(folder)
    numbers = args.case or range(args.kills)
    outcomes = [control]
    for number in numbers:
        outcomes.append(suffer(draw_case(args.seed, number), folder, reference, lengths))
    print(campaign_table(outcomes))
    wrong = any(outcome.found for outcome in outcomes)
    print(f"seed {args.seed}: {'SOMETHING DIFFERS' if wrong else 'nothing differs'}")
    sys.exit(int(wrong))


def uninterrupted(folder: Path) -> tuple[Place, Outcome, Mapping[str, float]]:
    """The reference; a second run without a fault, compared with it; seconds of its phases."""
    reference, again = (Place(folder / name) for name in ("reference", "again"))
    for place in (reference, again):
        shutil.rmtree(place.folder, ignore_errors=True)
    run = Run(reference)
    if run.wait(_FIRST_LIMIT) != 0:
        sys.exit(f"faults.py: the run fails without a fault:\n{run.words}")
    run, lengths = phase_lengths(again, _FIRST_LIMIT)
    if run.wait(_FIRST_LIMIT) != 0:
        sys.exit(f"faults.py: the run fails without a fault:\n{run.words}")
    found = differences(reference, again)
    shown = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in lengths.items())
    print(f"without a fault: {shown}", *found, sep="\n  ", flush=True)
    shutil.rmtree(again.folder)
    return reference, Outcome(CONTROL, "the second run", 0, 0, found), lengths


# ---- a case --------------------------------------------------------------------------------------


def suffer(case: Case, folder: Path, reference: Place, lengths: Mapping[str, float]) -> Outcome:
    """Plays the case in a folder of its own, which is kept where something differs."""
    place, kept = Place(folder / f"case-{case.number}"), folder / f"case-{case.number}-differs"
    for each in (place.folder, kept):
        shutil.rmtree(each, ignore_errors=True)
    with Disk(place.folder) if case.kind == FULL_DISK else nullcontext() as disk:
        player = Player(case, place, disk, lengths)
        player.play()
        found = player.found or differences(reference, place)
        if found:
            shutil.copytree(place.folder, kept)
            (kept / "words.txt").write_text(player.words)
            (kept / "differences.txt").write_text("\n".join(found) + "\n")
    shutil.rmtree(place.folder)
    more = [f"and {len(found) - _SHOWN} lines more: {kept}"] if found[_SHOWN:] else []
    verdict = [*found[:_SHOWN], *more] or ["nothing differs"]
    print(case, *player.done, *verdict, sep="\n  ", flush=True)
    return Outcome(case.row, f"case {case.number}", player.faults, player.starts - 1, found)


def campaign_table(outcomes: Sequence[Outcome]) -> str:
    """A line for each kind of fault, and one for all."""
    by_row: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        by_row.setdefault(outcome.row, []).append(outcome)
    lines = [[row, *_sums(group)] for row, group in sorted(by_row.items())]
    header = ["fault", "cases", "faults", "restarts", "in the end"]
    return text_table(header, [*lines, ["all", *_sums(outcomes)]])


def _sums(outcomes: Sequence[Outcome]) -> list[str]:
    wrong = [outcome for outcome in outcomes if outcome.found]
    first = f"; {wrong[0].name}: {wrong[0].found[0]}" if wrong else ""
    verdict = f"{len(wrong)} differ{first}" if wrong else "nothing differs"
    faults, restarts = (sum(getattr(o, name) for o in outcomes) for name in ("faults", "restarts"))
    return [str(len(outcomes)), str(faults), str(restarts), verdict]


if __name__ == "__main__":
    main()
