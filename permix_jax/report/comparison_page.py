"""The report of a comparison: methods over seeds, from finished runs and what compares them."""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
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
    ranking,
    section,
)
from permix_jax.report.run_figures import MEASURES, Figures, Run, read_run
from permix_jax.report.tables import link, table
from permix_jax.report.write import as_plain, write_report
from permix_jax.stats.statistics import t_interval

_SEEDS = "Means over seeds; in brackets, or as bars and bands, 95 % intervals over seeds"
_DPI = 200


def compare(workdirs: Sequence[Path], folder: Path | None = None, competence: bool = False) -> str:
    """The comparison of finished runs as text; see `compare_runs`. Its report goes to `folder`.

    `competence`: followed by `competence_table`.

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

    These are robustness_fidelity.png, left out without role-play fidelity, pss_over_steps.png and
    accuracy_by_persona.png. The first two are left out, too, where no run has a defined PSS.

    Args:
      comparison: what `compare_runs` gives for the runs.
    """
    report = as_plain(comparison_report(runs, comparison, folder))
    folder.mkdir(parents=True, exist_ok=True)
    for part in report["sections"]:
        for block in part["blocks"]:
            if "file" in block:
                figure_of([block], report["names"]).savefig(folder / block["file"], dpi=_DPI)
    write_report(report, folder)


def comparison_report(runs: Sequence[Run], comparison: Mapping, folder: Path) -> dict:
    """The content of the report, see `content`."""
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


class _Seed(NamedTuple):
    """A method's policy of one seed."""

    figures: Figures
    evaluation: Evaluation


def _methods(runs: Sequence[Run], names: Sequence[str]) -> dict[str, dict[int, _Seed]]:
    """Method -> seed -> policy, in the order of `names`. Of runs with one base the first speaks."""
    methods: dict[str, dict[int, _Seed]] = {name: {} for name in names}
    for run in runs:
        if run.base is not None:
            base = _Seed(run.base, run.evaluations[0])
            methods[_full("base", run)].setdefault(run.seed, base)
        methods[_full(run.name, run)][run.seed] = _Seed(run.trained, run.evaluations[-1])
    return methods


def _full(name: str, run: Run) -> str:
    return f"{name}:{run.preset}" if run.preset else name


def _cell(entry: Mapping) -> dict | None:
    """The estimate of what `compare_runs` says of a measure."""
    mean, half = entry["mean"], entry["half_width"]
    interval = None if half is None or mean is None else [mean - half, mean + half]
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
    rows = [
        [
            measure,
            _cell(pair["difference"][measure]),
            _cell(pair["relative"][measure]),
            paper.get(measure),
        ]
        for measure in MEASURES
    ]
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
    values = np.array(values, float)
    if not len(values) or not np.isfinite(values).all():
        return None
    mean, half = t_interval(values)
    return {"value": mean, "ci95": [mean - half, mean + half] if np.isfinite(half) else None}


def _robustness_fidelity(methods: Mapping) -> dict:
    series = []
    for name, seeds in methods.items():
        each = [(f.values["PSS"], f.values["role-play"]) for f, _ in seeds.values()]
        x, y = (_over_seeds(values) for values in zip(*each, strict=True))
        if x and y:
            series.append({"name": name, "x": x, "y": y, "each": each})
    chart = points("Robustness and fidelity", "PSS", "role-play fidelity", series)
    chart["file"] = "robustness_fidelity.png"
    return section("robustness-fidelity", chart["title"], f"{_SEEDS}; small: each seed.", [chart])


def _steps(runs: Sequence[Run]) -> dict:
    found: dict[str, dict[int, list]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for evaluation in run.evaluations:
            found[_full(run.name, run)][evaluation.step].append(evaluation.stability["pss"])
    cells = {
        name: {step: _over_seeds(values) for step, values in sorted(by_step.items())}
        for name, by_step in found.items()
    }
    series = [over_steps(name, by_step) for name, by_step in cells.items()]
    chart = lines("PSS", "training step", "PSS", series) | {"file": "pss_over_steps.png"}
    steps = sorted({step for by_step in cells.values() for step in by_step})
    rows = [[step, *(by_step.get(step) for by_step in cells.values())] for step in steps]
    columns = {"step": "d"} | dict.fromkeys(cells, ".3f")
    return section("steps", "PSS over steps", f"{_SEEDS}.", [chart, table(columns, rows)])


def _personas(methods: Mapping) -> dict:
    found: dict[str | None, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for name, seeds in methods.items():
        for _, evaluation in seeds.values():
            for entry in evaluation.stability["per_persona"]:
                found[entry["persona"]][name].append(entry["accuracy"])
            found[None][name].append(evaluation.stability["accuracy_no_persona"])
    rows = {
        persona: [_over_seeds(by_method.get(name, ())) for name in methods]
        for persona, by_method in found.items()
    }
    seeds = max(len(seeds) for seeds in methods.values())
    axis = "accuracy on held-out problems, by persona"
    if seeds > 1:
        axis += f" (mean and 95 % interval over {seeds} seeds)"
    chart = ranking(list(methods), axis, rows, "problems")
    chart |= {"file": "accuracy_by_persona.png", "labels": _labels(methods)}
    note = f"{_SEEDS}. The highest accuracy of {next(iter(methods))} on top."
    return section("personas", "Accuracy by persona", note, [chart])


def _labels(methods: Mapping[str, Mapping[int, _Seed]]) -> dict[str, str]:
    """Method -> its name and PSS."""
    means = {
        name: np.mean([seed.figures.values["PSS"] for seed in seeds.values()])
        for name, seeds in methods.items()
    }
    texts = {name: f"{mean:.2f}" if np.isfinite(mean) else "-" for name, mean in means.items()}
    return {name: f"{name}: PSS {text}" for name, text in texts.items()}


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
    """The fields of the config in which methods differ, and all others of the first run."""
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


def _completions(methods: Mapping[str, Mapping[int, _Seed]]) -> dict | None:
    """Of the first seed that every method has."""
    shared = set.intersection(*(set(seeds) for seeds in methods.values()))
    if not shared:
        return None
    first = min(shared)
    return browser_of({name: seeds[first].evaluation.rows() for name, seeds in methods.items()})
