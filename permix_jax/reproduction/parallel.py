"""Runs of a comparison side by side, each in a process of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from permix_jax.app.workdir import require_same_config
from permix_jax.core.files import read_json
from permix_jax.core.progress import Progress
from permix_jax.core.stop import StopRequest
from permix_jax.reproduction.methods import Job

_SECONDS_BETWEEN_LOOKS = 0.2


def run_jobs(
    jobs: Sequence[Job],
    logs: Path,
    processes: int,
    stop: StopRequest,
    on_finished: Callable[[Job, float], None],
) -> None:
    """Does all jobs that are not finished, `processes` at a time.

    Several processes divide the cores of the CPU equally. A single process has the device that JAX
    finds.

    Args:
      logs: folder of a log file for each run.
      on_finished: called with a job that has just ended and the seconds that it took.

    Raises:
      ValueError: a workdir belongs to another config. Or a run failed: raised after all others have
        ended, with the last line of its log.
      Stopped: `stop` was requested; the runs were stopped and are saved.
    """
    for job in jobs:
        if (job.workdir / "config.json").exists():
            require_same_config(job.workdir, job.config, "--out")
    waiting = [job for job in jobs if not finished(job)]
    running: dict[subprocess.Popen, tuple[Job, float]] = {}
    failures = []
    logs.mkdir(parents=True, exist_ok=True)
    with Progress("comparison, runs", len(jobs), len(jobs) - len(waiting)) as progress:
        try:
            while waiting or running:
                while waiting and len(running) < processes:
                    job = waiting.pop(0)
                    running[_start(job, logs, processes)] = (job, time.monotonic())
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                stop.check()
                for process in [p for p in running if p.poll() is not None]:
                    job, begin = running.pop(process)
                    process.stdin.close()
                    if process.returncode:
                        failures.append(f"{job.workdir.name} failed: {_last_line(job, logs)}")
                    else:
                        on_finished(job, time.monotonic() - begin)
                    progress.advance()
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
    if failures:
        raise ValueError(f"{'; '.join(failures)} (its log is in {logs})")


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def finished(job: Job) -> bool:
    """Whether the run has done all steps; it writes its report last."""
    if not (job.workdir / "report.html").exists():
        return False
    record = read_json(job.workdir / "config.json", "remove the folder")
    return record["config"]["train"]["steps"] == job.config["train"]["steps"]


def _start(job: Job, logs: Path, processes: int) -> subprocess.Popen:
    env = dict(os.environ)
    if processes > 1:
        threads = str(max(1, cores() // processes))
        # XLA takes the number of its threads from NPROC.
        env |= {"JAX_PLATFORMS": "cpu", "NPROC": threads, "OMP_NUM_THREADS": threads}
    with _log(job, logs).open("a") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "permix_jax.reproduction.one_run"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            env=env,
            text=True,
            start_new_session=True,  # Ctrl-C reaches it as a stop request from here, once
        )
    process.stdin.write(json.dumps(job._asdict(), default=str) + "\n")
    process.stdin.flush()
    return process


def _log(job: Job, logs: Path) -> Path:
    return logs / f"{job.workdir.name}.log"


def _last_line(job: Job, logs: Path) -> str:
    lines = _log(job, logs).read_text("utf-8", errors="replace").strip().splitlines()
    return lines[-1].removeprefix("error: ") if lines else "it said nothing"
