"""Several processes of which one dies or hangs: the others end, and say which one it was."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from permix_jax.core.watch import Sign, awaited

SILENT, WAIT = 5, 8
PROGRAM = f"""
import os, signal, sys, threading, time
from permix_jax.core.distributed import any_process, gather, initialize, on_main, watched

case, coordinator, process = sys.argv[1], sys.argv[2], int(sys.argv[3])

def hang():
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()

def fail():
    raise SystemExit("error: out of luck")

deeds = {{
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "frozen": lambda: os.kill(os.getpid(), signal.SIGSTOP),
    "hangs": hang,
    "fails": fail,
}}
initialize(coordinator, 2, process, silent_seconds={SILENT})
with watched({SILENT}, {WAIT}):
    assert gather(process) == [0, 1]
    if case == "fails-1":  # what the main process does alone is no silence
        on_main(lambda: time.sleep({SILENT} + 1.5))
    if case.endswith(str(process)):
        deeds[case[:-2]]()
    any_process(False)
"""
CASES = {
    "killed-0": "process 0 ({host}) is gone;",
    "killed-1": "no sign of life for 5 s (distributed.silent_seconds) from process 1 ({host});",
    "frozen-0": "no sign of life for 5 s (distributed.silent_seconds) from process 0 ({host});",
    "hangs-1": "8 s without a step (distributed.wait_seconds; raise it if that was work), waiting "
    "for: process 1 ({host});",
    "fails-1": "process 1 ({host}) ended: out of luck;",
}


@pytest.fixture(scope="module")
def survivors():
    """Case -> exit status of the process that nothing befell, and what it said. All at once."""
    with ThreadPoolExecutor(len(CASES)) as pool:
        return dict(zip(CASES, pool.map(_survivor, CASES), strict=True))


def _survivor(case: str) -> tuple[int, str]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        coordinator = f"localhost:{free.getsockname()[1]}"
    env = {**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "NPROC": "1"}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, case, coordinator, str(process)],
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(2)
    ]
    victim = int(case[-1])
    try:
        said = both[1 - victim].communicate(timeout=120)[1]
    finally:
        for process in both:
            process.kill()
        both[victim].communicate()
    return both[1 - victim].returncode, said


@pytest.mark.parametrize("case", CASES)
def test_the_other_process_ends_and_names_the_one_that_is_gone_or_hangs(survivors, case):
    status, said = survivors[case]
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert status == 1, said
    assert lines == [
        f"error: {CASES[case].format(host=socket.gethostname())} what is saved stays, and the same "
        "command goes on from there"
    ]


def sign(meetings: int, waits: bool) -> Sign:
    return Sign("host", 1, meetings, waits, "")


@pytest.mark.parametrize(
    ("signs", "late"),
    [
        # The others have begun to wait for a third time, and it has not.
        ([(3, True), (2, False), (3, True)], [1]),
        # It left the second meeting, in which the others still wait for a device of its own.
        ([(2, True), (2, True), (2, False)], [2]),
        # The main process is at work, alone, before it meets the others.
        ([(6, False), (7, True), (7, True)], [0]),
        # It never left the meeting that is over for the others.
        ([(4, True), (5, True)], [0]),
        ([(4, False), (4, False)], [0, 1]),
        ([(4, True), (4, True)], []),
    ],
)
def test_who_keeps_the_others_waiting(signs, late):
    assert awaited({i: sign(*one) for i, one in enumerate(signs)}) == late
