"""The paper's comparison, from a config to runs side by side, a table and plots."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from permix_jax.app.workdir import require_same_config
from permix_jax.core.field_rules import require_read
from permix_jax.core.files import read_json, write_json, write_text
from permix_jax.core.progress import Progress
from permix_jax.core.stop import StopRequest
from permix_jax.evaluation.results import read_jsonl
from permix_jax.report.compare import compare_runs, comparison_table
from permix_jax.report.comparison_page import write_comparison_report
from permix_jax.report.run_figures import Run, read_run
from permix_jax.reproduction.methods import Job, jobs_of

_SECONDS_BETWEEN_LOOKS = 0.2


def reproduce(config: ConfigDict, out: Path, preset: str = "", changed: Sequence[str] = ()) -> str:
    """Does the runs of the comparison in `out` that are not finished, and returns the table.

    `changed` names the fields with another value than in the preset; a field that no run reads is
    refused.

    Raises:
      ValueError: bad input, or a run that failed, in one line.
      Stopped: Ctrl-C or SIGTERM; everything done so far is saved.
    """
    jobs, about = jobs_of(config, out, preset), {"reproduce": config.reproduce.to_dict()}
    require_read([job.config | about for job in jobs], changed, "reproduce")
    with StopRequest() as stop:
        _run_jobs(jobs, out / "logs", config.reproduce.processes or _cores(), stop)
    runs = [read_run(job.workdir) for job in jobs]
    comparison = compare_runs(runs)
    comparison["tokens"] = tokens_by_method(runs)
    comparison["notes"] += [
        f"{name}: {t['generated'] / 1e3:.0f} thousand tokens generated a run, "
        f"{t['trained'] / 1e3:.0f} trained on"
        for name, t in comparison["tokens"].items()
    ]
    table = comparison_table(comparison)
    write_json(out / "comparison.json", comparison)
    write_text(out / "comparison.txt", table + "\n")
    write_comparison_report(runs, comparison, out)
    return table


def tokens_by_method(runs: Sequence[Run]) -> dict[str, dict[str, float]]:
    """Mean tokens over seeds that a run of each method has `generated` and `trained` on.

    Generated tokens were sampled in training from any policy, also for distillation and rehearsal.
    GRPO trains on each token that it generates, once per epoch.
    """
    counts: dict[str, list[tuple[float, float]]] = {}
    for run in runs:
        rows = read_jsonl(run.workdir / "metrics.jsonl")
        epochs = run.config["grpo"]["epochs"]
        generated = sum(row["tokens/generated"] for row in rows)
        trained = sum(row.get("tokens/trained", epochs * row["tokens/generated"]) for row in rows)
        counts.setdefault(run.name, []).append((generated, trained))
    means = {name: np.mean(each, axis=0).tolist() for name, each in counts.items()}
    return {name: dict(zip(("generated", "trained"), m, strict=True)) for name, m in means.items()}


def _run_jobs(jobs: Sequence[Job], logs: Path, processes: int, stop: StopRequest) -> None:
    """Does all jobs that are not finished, `processes` at a time, each in a process of its own.

    Several processes divide the cores of the CPU equally. A single process has the device that JAX
    finds. `logs` gets a log file of each run.

    Raises:
      ValueError: a workdir belongs to another config. Or a run failed: raised after all others have
        ended, with the last line of its log.
      Stopped: `stop` was requested; the runs were stopped and are saved.
    """
    for job in jobs:
        if (job.workdir / "config.json").exists():
            require_same_config(job.workdir, job.config, "--out")
    waiting = [job for job in jobs if not finished(job)]
    running: dict[subprocess.Popen, tuple[Job, Path, float]] = {}
    failures = []
    logs.mkdir(parents=True, exist_ok=True)
    with Progress("comparison, runs", len(jobs), len(jobs) - len(waiting)) as progress:
        try:
            while waiting or running:
                while waiting and len(running) < processes:
                    job = waiting.pop(0)
                    log = logs / f"{job.workdir.name}.log"
                    running[_start(job, log, processes)] = (job, log, time.monotonic())
                time.sleep(_SECONDS_BETWEEN_LOOKS)
                stop.check()
                for process in [p for p in running if p.poll() is not None]:
                    job, log, begin = running.pop(process)
                    process.stdin.close()
                    if process.returncode:
                        said = log.read_text("utf-8", errors="replace").strip().splitlines()
                        last = said[-1].removeprefix("error: ") if said else "it said nothing"
                        failures.append(f"{job.workdir.name} failed: {last}")
                    else:
                        _say(job, time.monotonic() - begin)
                    progress.advance()
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
    if failures:
        raise ValueError(f"{'; '.join(failures)} (its log is in {logs})")


def _say(job: Job, seconds: float) -> None:
    measures = read_run(job.workdir).trained.measures
    figures = "  ".join(f"{name} {measures[name].value:.3f}" for name in ("PSS", "role-play"))
    print(f"{job.workdir.name}  {figures}  {seconds:.0f} s", flush=True)


def finished(job: Job) -> bool:
    """Whether the run has done all steps; it writes its report last."""
    if not (job.workdir / "report.html").exists():
        return False
    record = read_json(job.workdir / "config.json", "remove the folder")
    return record["config"]["train"]["steps"] == job.config["train"]["steps"]


def _start(job: Job, log: Path, processes: int) -> subprocess.Popen:
    env = dict(os.environ)
    if processes > 1:
        threads = str(max(1, _cores() // processes))
        # XLA takes the number of its threads from NPROC.
        env |= {"JAX_PLATFORMS": "cpu", "NPROC": threads, "OMP_NUM_THREADS": threads}
    with log.open("a") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "permix_jax.reproduction.one_run"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env=env,
            text=True,
            start_new_session=True,  # Ctrl-C reaches it as a stop request from here, once
        )
    process.stdin.write(json.dumps(job._asdict(), default=str) + "\n")
    process.stdin.flush()
    return process


def _cores() -> int:
    """Cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1
