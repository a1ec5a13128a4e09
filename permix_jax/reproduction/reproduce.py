"""The paper's comparison, from a config to a table and plots."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from permix_jax.core.field_rules import require_read
from permix_jax.core.files import write_json, write_text
from permix_jax.core.stop import StopRequest
from permix_jax.evaluation.results import read_jsonl
from permix_jax.report.compare import compare_runs, comparison_table
from permix_jax.report.comparison_page import write_comparison_report
from permix_jax.report.run_figures import Run, read_run
from permix_jax.reproduction.methods import Job, jobs_of
from permix_jax.reproduction.parallel import cores, run_jobs


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
    processes = config.reproduce.processes or cores()
    with StopRequest() as stop:
        run_jobs(jobs, out / "logs", processes, stop, _say)
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


def _say(job: Job, seconds: float) -> None:
    measures = read_run(job.workdir).trained.measures
    figures = "  ".join(f"{name} {measures[name].value:.3f}" for name in ("PSS", "role-play"))
    print(f"{job.workdir.name}  {figures}  {seconds:.0f} s", flush=True)
