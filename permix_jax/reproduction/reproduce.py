"""The paper's comparison, from a config to a table and plots."""

import os
from pathlib import Path

from ml_collections import ConfigDict

from permix_jax.evaluation.compare import compare_runs, comparison_table
from permix_jax.evaluation.comparison_plots import write_plots
from permix_jax.evaluation.run_figures import read_run
from permix_jax.files import write_json, write_text
from permix_jax.reproduction.methods import Job, jobs_of
from permix_jax.reproduction.parallel import run_jobs
from permix_jax.training.stop import StopRequest


def reproduce(config: ConfigDict, out: Path, preset: str = "") -> str:
    """Does all runs of the comparison below `out`, or what is left of them; returns the table.

    Raises:
      ValueError: bad input, or a run that failed, in one line.
      Stopped: Ctrl-C or SIGTERM; everything done so far is saved.
    """
    jobs = jobs_of(config, out, preset)
    processes = config.reproduce.processes or len(os.sched_getaffinity(0))
    with StopRequest() as stop:
        run_jobs(jobs, out / "logs", processes, stop, _say)
    runs = [read_run(job.workdir) for job in jobs]
    comparison = compare_runs(runs)
    table = comparison_table(comparison)
    write_json(out / "comparison.json", comparison)
    write_plots(runs, out)
    write_text(out / "comparison.txt", table + "\n")
    return table


def _say(job: Job, seconds: float) -> None:
    run = read_run(job.workdir)
    figures = "  ".join(f"{name} {run.trained.values[name]:.3f}" for name in ("PSS", "role-play"))
    print(f"{job.workdir.name}  {figures}  {seconds:.0f} s", flush=True)
