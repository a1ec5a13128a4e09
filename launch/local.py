r"""Runs a command of launch/ in several processes on this machine, each with a CPU device.

  python launch/local.py --processes=2 launch/train.py \
      --config=configs/permix.py --config.mesh.data=2

The processes train one run together, like the hosts of a cluster (docs/scale.md). Repeat the
command to continue where it stopped.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from permix_jax.app.cli import STOPPED, Parser

_SECONDS_BETWEEN_LOOKS = 0.1
_ENDS = (0, STOPPED)


def main() -> int:
    parser = Parser(__doc__)
    parser.add_argument("--processes", type=int, required=True, metavar="N", help="how many")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="launch/train.py and its flags")
    args = parser.parse_args()
    if args.processes < 1 or not args.command:
        parser.error("give --processes=N, at least 1, and then the command")

    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # XLA takes the number of its threads from NPROC.
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "NPROC": str(max(1, cores // args.processes))}
    several = [f"--coordinator={coordinator}", f"--processes={args.processes}"]
    running = [
        subprocess.Popen([sys.executable, *args.command, *several, f"--process={i}"], env=env)
        for i in range(args.processes)
    ]
    # Ctrl-C reaches the processes by itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: [process.terminate() for process in running])
    while not any(process.poll() not in (None, *_ENDS) for process in running):
        if all(process.poll() in _ENDS for process in running):
            return max(process.returncode for process in running)
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return _end(running)


def _end(running: Sequence[subprocess.Popen]) -> int:
    """Ends those that wait for the one that failed, frozen ones too; the status of that one."""
    number, code = next(
        (i, p.returncode) for i, p in enumerate(running) if p.returncode not in (None, *_ENDS)
    )
    for process in running:
        process.kill()
        process.wait()
    if code < 0:  # otherwise it has said why
        name = signal.Signals(-code).name
        print(
            f"error: process {number} was ended by {name}, and with it the others; what is saved "
            "stays, and the same command goes on from there",
            file=sys.stderr,
        )
    return abs(code)


if __name__ == "__main__":
    sys.exit(main())
