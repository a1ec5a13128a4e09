"""The report of a comparison: methods over seeds, from finished runs and what compares them."""

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote

import numpy as np

from permix_jax.core.fields import flat_fields
from permix_jax.core.files import write_bytes
from permix_jax.core.places import place_of, relative_name
from permix_jax.report import content
from permix_jax.report.charts import figure_of
from permix_jax.report.compare import (
    by_method,
    compare_runs,
    comparison_table,
    competence_table,
    measures_shown,
    told_apart,
)
from permix_jax.report.completions import browser_of
from permix_jax.report.content import (
    lines,
    mean_over_seeds,
    measured,
    over_steps,
    points,
    ranking,
    section,
    text,
)
from permix_jax.report.maps import maps
from permix_jax.report.run_figures import Policy, Run, read_run
from permix_jax.report.tables import link, table
from permix_jax.report.write import as_plain, write_report
from permix_jax.stats.statistics import t_interval

_DPI = 200
Methods = dict[str, dict[int, Policy]]  # method -> seed -> policy, as by_method has them


def compare(
    workdirs: Sequence[Path],
    folder: Path | None = None,
    competence: bool = False,
    pss: str | None = None,
) -> str:
    """The comparison of finished runs as text; `folder` gets its report.

    Args:
      competence: whether `competence_table` follows.
      pss: name of the formula by which all scores are read again; None: as they were evaluated.

    Raises:
      FileNotFoundError, ValueError: a folder without a finished run, or two runs of one method
        with the same seed and config.
    """
    runs = told_apart([read_run(place_of(workdir), pss) for workdir in workdirs])
    comparison = compare_runs(runs)
    if pss:
        comparison["notes"].append(text("read_again", formula=pss))
    tables = [comparison_table(comparison), *([competence_table(runs)] if competence else [])]
    if folder is not None:
        write_comparison_report(runs, comparison, folder)
    return "\n\n".join(tables)


def write_comparison_report(runs: Sequence[Run], comparison: Mapping, folder: Path) -> None:
    """Writes report.json, report.md, report.html and the charts as PNG files.

    The charts are accuracy_by_persona.png and, if a PSS is defined, pss_over_steps.png and (with
    role-play fidelity) robustness_fidelity.png; where pairs differ in two fields, map_*.png.
    `comparison` is the result of `compare_runs`.
    """
    report = as_plain(comparison_report(runs, comparison, folder))
    for part in report["sections"]:
        for block in part["blocks"]:
            if "file" in block:
                drawn = io.BytesIO()
                figure_of([block], report["names"]).savefig(drawn, dpi=_DPI, format="png")
                write_bytes(folder / block["file"], drawn.getvalue())
    write_report(report, folder)


def comparison_report(runs: Sequence[Run], comparison: Mapping, folder: Path) -> dict:
    """The `content` of the report."""
    methods, seeds = by_method(runs), sorted({run.seed for run in runs})
    pairs = enumerate(comparison["pairs"], start=1)
    # The completions are those of the first seed that every method has.
    shared = set.intersection(*map(set, methods.values()))
    rows = {name: of[min(shared)].evaluation.rows() for name, of in methods.items() if shared}
    return {
        "title": "Comparison",
        "facts": [f"{len(runs)} runs", f"seeds {', '.join(map(str, seeds))}"],
        "headlines": [],
        "names": list(methods),
        "sections": [
            _measures(comparison),
            *maps(comparison, runs),
            *(_pair(f"pair-{i}", pair, comparison["paper"]) for i, pair in pairs),
            _more(comparison),
            _robustness_fidelity(methods),
            _steps(runs),
            _personas(methods),
            _runs(runs, folder),
            _differing(runs),
        ],
        "completions": browser_of(rows) if rows else None,
    }


def _measures(comparison: Mapping) -> dict:
    names = measures_shown(comparison)
    rows = [
        [
            name,
            len(entry["seeds"]),
            *(mean_over_seeds(entry["measures"][measure]) for measure in names),
        ]
        for name, entry in comparison["methods"].items()
    ]
    columns = {"method": "", "seeds": "d"} | dict.fromkeys(names, ".3f")
    return section("methods", [table(columns, rows)], notes=comparison["notes"])


def _pair(anchor: str, pair: Mapping, paper: Mapping) -> dict:
    ours, theirs = pair["ours"], pair["theirs"]
    kinds = (pair["difference"], pair["relative"])
    rows = [[m, *(mean_over_seeds(kind[m]) for kind in kinds), paper.get(m)] for m in kinds[0]]
    columns = {"measure": "", f"{ours} - {theirs}": "+.3f", f"{ours} / {theirs} - 1": "+.1%"}
    blocks = [table(columns | {"the paper": "+.1%"}, rows)]
    return section("pair", blocks, anchor=anchor, ours=ours, theirs=theirs, seeds=pair["seeds"])


def _more(comparison: Mapping) -> dict:
    """More than PSS, and the accuracy by kind of persona: methods, then differences."""
    tables = []
    for part, title in (("more", ""), ("kinds", "Mean accuracy by kind of persona")):
        names = list(next(iter(comparison["methods"].values()))[part])
        if part == "kinds" and len(names) < 2:
            continue
        entries = [(n, len(e["seeds"]), e[part]) for n, e in comparison["methods"].items()]
        for pair in comparison["pairs"]:
            label = f"{pair['ours']} - {pair['theirs']}"
            entries.append((label, len(pair["seeds"]), pair[part]))
        rows = [
            [name, seeds, *(mean_over_seeds(of[n]) for n in names)] for name, seeds, of in entries
        ]
        columns = {"method": "", "seeds": "d"} | dict.fromkeys(names, ".3f")
        tables.append(table(columns, rows if names else [], title))
    names = list(next(iter(comparison["methods"].values()))["more"])
    return section("compared-more", tables, names=names)


def _over_seeds(values: Sequence[float | None]) -> dict | None:
    """The estimate of a mean over seeds; None if one of the values is not known."""
    values = np.array(values, float)
    if not len(values) or not np.isfinite(values).all():
        return None
    mean, half = t_interval(values)
    return mean_over_seeds({"mean": mean, "half_width": half if np.isfinite(half) else None})


def _robustness_fidelity(methods: Methods) -> dict:
    series = []
    for name, seeds in methods.items():
        pairs = [
            [measured(of.evaluation, key) for key in ("pss", "role_play")] for of in seeds.values()
        ]
        each = [tuple(cell and cell["value"] for cell in pair) for pair in pairs]
        x, y = (_over_seeds(values) for values in zip(*each, strict=True))
        if x and y:
            series.append({"name": name, "x": x, "y": y, "each": each})
    chart = points("Robustness and fidelity", "PSS", "role-play fidelity", series)
    return section("robustness-fidelity", [chart | {"file": "robustness_fidelity.png"}])


def _steps(runs: Sequence[Run]) -> dict:
    scores: dict[str, dict[int, list]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for evaluation in run.evaluations:
            scores[run.method()][evaluation.step].append(evaluation.stability["pss"])
    cells = {
        name: {step: _over_seeds(values) for step, values in sorted(by_step.items())}
        for name, by_step in scores.items()
    }
    series = [over_steps(name, by_step) for name, by_step in cells.items()]
    chart = lines("PSS", "training step", "PSS", series) | {"file": "pss_over_steps.png"}
    steps = sorted({step for by_step in cells.values() for step in by_step})
    rows = [[step, *(by_step.get(step) for by_step in cells.values())] for step in steps]
    columns = {"step": "d"} | dict.fromkeys(cells, ".3f")
    return section("steps", [chart, table(columns, rows)], over_seeds=True)


def _personas(methods: Methods) -> dict:
    columns, labels = [], {}  # of each method; label: its name and PSS
    for name, seeds in methods.items():
        stabilities = [policy.evaluation.stability for policy in seeds.values()]
        accuracies: dict[str | None, list] = defaultdict(list)
        for stability in stabilities:
            for entry in stability["per_persona"]:
                accuracies[entry["persona"]].append(entry["accuracy"])
            accuracies[None].append(stability["accuracy_no_persona"])
        columns.append({persona: _over_seeds(of) for persona, of in accuracies.items()})
        pss = np.mean(np.array([stability["pss"] for stability in stabilities], float))
        labels[name] = f"{name}: PSS " + (f"{pss:.2f}" if np.isfinite(pss) else "-")
    axis, seeds = "accuracy on held-out problems, by persona", max(map(len, methods.values()))
    if seeds > 1:
        axis += f" (mean and 95 % interval over {seeds} seeds)"
    chart = ranking(list(methods), axis, columns, "problems")
    chart |= {"file": "accuracy_by_persona.png", "labels": labels}
    return section("personas", [chart], first=next(iter(methods)), over_seeds=True)


def _runs(runs: Sequence[Run], folder: Path) -> dict:
    shown = ("PSS", "worst", "mean", "plain", "role-play", "KL")
    rows = []
    for run in runs:
        path, name = run.workdir / "report.html", run.workdir.name
        if path.is_file():
            name = link(name, quote(PurePath(relative_name(path, folder)).as_posix()))
        rows.append([name, run.seed, *(run.trained.measures[measure].value for measure in shown)])
    columns = {"run": "", "seed": "d"} | dict.fromkeys(shown, ".3f")
    return section("runs", [table(columns, rows)])


def _differing(runs: Sequence[Run]) -> dict:
    configs: dict[str, dict[str, Any]] = {}
    for run in runs:
        configs.setdefault(run.method(), flat_fields(run.config))
    fields = sorted({field for config in configs.values() for field in config} - {"seed"})
    rows = [
        [field, *(content.config_text(config.get(field)) for config in configs.values())]
        for field in fields
    ]
    rows.sort(key=lambda row: len(set(row[1:])) == 1)
    columns = {"field": ""} | dict.fromkeys(configs, "")
    return section("config", [table(columns, rows)], collapsed=True, what="methods")
