"""The report of a comparison: methods over seeds, from finished runs and what compares them."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from permix_jax.core.fields import flat_fields
from permix_jax.evaluation.results import Evaluation
from permix_jax.report.charts import figure_of
from permix_jax.report.compare import compare_runs, comparison_table
from permix_jax.report.competence import competence_table
from permix_jax.report.completions import browser_of
from permix_jax.report.content import (
    config_text,
    lines,
    over_steps,
    points,
    pss,
    ranking,
    role_play,
    section,
)
from permix_jax.report.run_figures import MEASURES, Run, read_run
from permix_jax.report.tables import link, table
from permix_jax.report.write import as_plain, write_report
from permix_jax.stats.statistics import t_interval

_SEEDS = "Means over seeds; in brackets, or as bars and bands, 95 % intervals over seeds"
_DPI = 200
Methods = dict[str, dict[int, Evaluation]]  # method -> seed -> the evaluation of its policy


def compare(workdirs: Sequence[Path], folder: Path | None = None, competence: bool = False) -> str:
    """The comparison of finished runs as text; `folder` gets its report.

    Args:
      competence: whether `competence_table` follows.

    Raises:
      FileNotFoundError, ValueError: a folder without a finished run, or two runs of one method
        with the same seed.
    """
    runs = [read_run(Path(workdir)) for workdir in workdirs]
    comparison = compare_runs(runs)
    tables = [comparison_table(comparison), *([competence_table(runs)] if competence else [])]
    if folder is not None:
        write_comparison_report(runs, comparison, folder)
    return "\n\n".join(tables)


def write_comparison_report(runs: Sequence[Run], comparison: Mapping, folder: Path) -> None:
    """Writes report.json, report.md, report.html and the charts as PNG files.

    The charts are accuracy_by_persona.png and, if a PSS is defined, pss_over_steps.png and (with
    role-play fidelity) robustness_fidelity.png. `comparison` is the result of `compare_runs`.
    """
    report = as_plain(comparison_report(runs, comparison, folder))
    folder.mkdir(parents=True, exist_ok=True)
    for part in report["sections"]:
        for block in part["blocks"]:
            if "file" in block:
                figure_of([block], report["names"]).savefig(folder / block["file"], dpi=_DPI)
    write_report(report, folder)


def comparison_report(runs: Sequence[Run], comparison: Mapping, folder: Path) -> dict:
    """The `content` of the report."""
    methods = _methods(runs, list(comparison["methods"]))
    pairs = enumerate(comparison["pairs"], start=1)
    seeds = sorted({run.seed for run in runs})
    return {
        "title": "Comparison",
        "facts": [f"{len(runs)} runs", f"seeds {', '.join(map(str, seeds))}"],
        "headlines": [],
        "names": list(methods),
        "sections": [
            _measures(comparison),
            *(_pair(f"pair-{i}", pair, comparison["paper"]) for i, pair in pairs),
            _robustness_fidelity(methods),
            _steps(runs),
            _personas(methods),
            _runs(runs, folder),
            _differing(runs),
        ],
        "completions": _completions(methods),
    }


def _methods(runs: Sequence[Run], names: Sequence[str]) -> Methods:
    """In the order of `names`. Runs of one seed have one base; the first counts."""
    methods: Methods = {name: {} for name in names}
    for run in runs:
        if run.base is not None:
            methods[_full("base", run)].setdefault(run.seed, run.evaluations[0])
        methods[_full(run.name, run)][run.seed] = run.evaluations[-1]
    return methods


def _full(name: str, run: Run) -> str:
    return f"{name}:{run.preset}" if run.preset else name


def _cell(entry: Mapping) -> dict | None:
    """An entry of `compare_runs` as an estimate."""
    mean, half = entry["mean"], entry["half_width"]
    interval = None if half is None else [mean - half, mean + half]
    return None if mean is None else {"value": mean, "ci95": interval}


def _measures(comparison: Mapping) -> dict:
    rows = [
        [name, len(entry["seeds"]), *(_cell(entry["measures"][measure]) for measure in MEASURES)]
        for name, entry in comparison["methods"].items()
    ]
    columns = {"method": "", "seeds": "d"} | dict.fromkeys(MEASURES, ".3f")
    note = (
        f"{_SEEDS}, and over problems where seeds share them. PSS, worst, mean: accuracy over the "
        "personas; plain: without a persona; role-play, arithmetic: share of responses in the "
        "persona's style; KL(policy || base) in nats a response. "
    )
    return section(
        "methods", "Methods", note + " ".join(comparison["notes"]), [table(columns, rows)]
    )


def _pair(anchor: str, pair: Mapping, paper: Mapping) -> dict:
    ours, theirs = pair["ours"], pair["theirs"]
    kinds = (pair["difference"], pair["relative"])
    rows = [[m, *(_cell(kind[m]) for kind in kinds), paper.get(m)] for m in MEASURES]
    columns = {
        "measure": "",
        f"{ours} - {theirs}": "+.3f",
        f"{ours} / {theirs} - 1": "+.1%",
        "the paper": "+.1%",
    }
    note = (
        f"Paired by seed, {len(pair['seeds'])} of them. The paper: PSS on MATH500, fidelity on "
        "PersonaGym, other models."
    )
    return section(anchor, f"{ours} against {theirs}", note, [table(columns, rows)])


def _over_seeds(values: Sequence[float | None]) -> dict | None:
    """The estimate of a mean over seeds; None if one of the values is not known."""
    values = np.array(values, float)
    if not len(values) or not np.isfinite(values).all():
        return None
    mean, half = t_interval(values)
    return {"value": mean, "ci95": [mean - half, mean + half] if np.isfinite(half) else None}


def _robustness_fidelity(methods: Methods) -> dict:
    series = []
    for name, seeds in methods.items():
        estimates = [(pss(e), role_play(e)) for e in seeds.values()]
        each = [tuple(cell and cell["value"] for cell in pair) for pair in estimates]
        x, y = (_over_seeds(values) for values in zip(*each, strict=True))
        if x and y:
            series.append({"name": name, "x": x, "y": y, "each": each})
    chart = points("Robustness and fidelity", "PSS", "role-play fidelity", series)
    chart["file"] = "robustness_fidelity.png"
    return section("robustness-fidelity", chart["title"], f"{_SEEDS}; small: each seed.", [chart])


def _steps(runs: Sequence[Run]) -> dict:
    scores: dict[str, dict[int, list]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for evaluation in run.evaluations:
            scores[_full(run.name, run)][evaluation.step].append(evaluation.stability["pss"])
    cells = {
        name: {step: _over_seeds(values) for step, values in sorted(by_step.items())}
        for name, by_step in scores.items()
    }
    series = [over_steps(name, by_step) for name, by_step in cells.items()]
    chart = lines("PSS", "training step", "PSS", series) | {"file": "pss_over_steps.png"}
    steps = sorted({step for by_step in cells.values() for step in by_step})
    rows = [[step, *(by_step.get(step) for by_step in cells.values())] for step in steps]
    columns = {"step": "d"} | dict.fromkeys(cells, ".3f")
    return section("steps", "PSS over steps", f"{_SEEDS}.", [chart, table(columns, rows)])


def _personas(methods: Methods) -> dict:
    accuracies: dict[str | None, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for name, seeds in methods.items():
        for evaluation in seeds.values():
            for entry in evaluation.stability["per_persona"]:
                accuracies[entry["persona"]][name].append(entry["accuracy"])
            accuracies[None][name].append(evaluation.stability["accuracy_no_persona"])
    rows = {
        persona: [_over_seeds(by_method.get(name, ())) for name in methods]
        for persona, by_method in accuracies.items()
    }
    seeds = max(len(seeds) for seeds in methods.values())
    axis = "accuracy on held-out problems, by persona"
    if seeds > 1:
        axis += f" (mean and 95 % interval over {seeds} seeds)"
    chart = ranking(list(methods), axis, rows, "problems")
    chart |= {"file": "accuracy_by_persona.png", "labels": _labels(methods)}
    note = f"{_SEEDS}. The highest accuracy of {next(iter(methods))} on top."
    return section("personas", "Accuracy by persona", note, [chart])


def _labels(methods: Methods) -> dict[str, str]:
    """Method -> its name and PSS."""
    labels = {}
    for name, seeds in methods.items():
        mean = np.mean(np.array([e.stability["pss"] for e in seeds.values()], float))
        labels[name] = f"{name}: PSS " + (f"{mean:.2f}" if np.isfinite(mean) else "-")
    return labels


def _runs(runs: Sequence[Run], folder: Path) -> dict:
    shown = ("PSS", "worst", "mean", "plain", "role-play", "KL")
    rows = []
    for run in runs:
        path = run.workdir / "report.html"
        place = Path(os.path.relpath(path.resolve(), folder.resolve())).as_posix()
        name = link(run.workdir.name, quote(place)) if path.is_file() else run.workdir.name
        rows.append([name, run.seed, *(run.trained.values[measure] for measure in shown)])
    columns = {"run": "", "seed": "d"} | dict.fromkeys(shown, ".3f")
    return section(
        "runs", "Runs", "Linked where they have a report of their own.", [table(columns, rows)]
    )


def _differing(runs: Sequence[Run]) -> dict:
    configs: dict[str, dict[str, Any]] = {}
    for run in runs:
        configs.setdefault(_full(run.name, run), flat_fields(run.config))
    fields = sorted({field for config in configs.values() for field in config} - {"seed"})
    rows = [
        [field, *(config_text(config.get(field)) for config in configs.values())]
        for field in fields
    ]
    rows.sort(key=lambda row: len(set(row[1:])) == 1)
    columns = {"field": ""} | dict.fromkeys(configs, "")
    note = "Of the first run of each method; fields in which methods differ come first."
    return section("config", "Configuration", note, [table(columns, rows)], collapsed=True)


def _completions(methods: Methods) -> dict | None:
    """Those of the first seed that every method has."""
    shared = set.intersection(*(set(seeds) for seeds in methods.values()))
    if not shared:
        return None
    first = min(shared)
    return browser_of({name: seeds[first].rows() for name, seeds in methods.items()})
