"""The plots of a comparison, as PNG files: methods over seeds, with 95 % intervals."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from permix_jax.evaluation.run_figures import Run
from permix_jax.evaluation.statistics import t_interval

# Okabe and Ito's palette, which colour-blind readers tell apart.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
_MARKERS = "osD^vPX*"


def write_plots(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Writes robustness_fidelity.png, pss_over_steps.png and accuracy_by_persona.png.

    Without role-play fidelity the first is left out.
    """
    groups = _methods(runs)
    styles = {
        name: {"color": _COLOURS[i % len(_COLOURS)], "marker": _MARKERS[i % len(_MARKERS)]}
        for i, name in enumerate(groups)
    }
    figures = {
        "robustness_fidelity": _robustness_fidelity(groups, styles),
        "pss_over_steps": _pss_over_steps(runs, styles),
        "accuracy_by_persona": _accuracy_by_persona(groups, styles),
    }
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, figure in figures.items():
        if figure is not None:
            written.append(folder / f"{name}.png")
            figure.savefig(written[-1], dpi=150)
    return written


def _methods(runs: Sequence[Run]) -> dict[str, list[tuple]]:
    """Method, "base" first -> [(figures, content of stability.json)] of its seeds."""
    groups, bases = defaultdict(list), {}
    for run in runs:
        if run.base is not None:
            bases.setdefault(run.seed, (run.base, run.evaluations[0].stability))
        groups[run.name].append((run.trained, run.evaluations[-1].stability))
    return {"base": list(bases.values()), **groups} if bases else dict(groups)


def _robustness_fidelity(groups: Mapping, styles: Mapping) -> Figure | None:
    axes = _axes(6.4, 4.8, "PSS: worst over best accuracy", "role-play fidelity")
    shown = False
    for name, seeds in groups.items():
        points = np.array([[f.values["PSS"], f.values["role-play"]] for f, _ in seeds])
        if not np.isfinite(points).all():
            continue
        shown = True
        (x, dx), (y, dy) = (t_interval(column) for column in points.T)
        axes.scatter(*points.T, s=12, alpha=0.4, color=styles[name]["color"], linewidths=0)
        axes.errorbar(
            x, y, np.nan_to_num(dy), np.nan_to_num(dx), label=name, capsize=3, **styles[name]
        )
    axes.legend(frameon=False)
    axes.set_title("mean and 95 % interval over seeds; small: each seed", fontsize=9)
    return axes.figure if shown else None


def _pss_over_steps(runs: Sequence[Run], styles: Mapping) -> Figure:
    axes = _axes(6.4, 4.8, "training step", "PSS")
    methods = defaultdict(lambda: defaultdict(list))
    for run in runs:
        for evaluation in run.evaluations:
            methods[run.name][evaluation.step].append(evaluation.stability["pss"])
    for name, by_step in methods.items():
        steps = sorted(by_step)
        means, halves = np.array([t_interval(by_step[step]) for step in steps]).T
        axes.plot(steps, means, label=name, markersize=4, **styles[name])
        axes.fill_between(
            steps, means - halves, means + halves, alpha=0.15, color=styles[name]["color"], lw=0
        )
    axes.set_ylim(0, 1.02)
    axes.legend(frameon=False)
    axes.set_title("mean and 95 % interval over seeds", fontsize=9)
    return axes.figure


def _accuracy_by_persona(groups: Mapping, styles: Mapping) -> Figure:
    tables = {name: _by_persona([s for _, s in seeds]) for name, seeds in groups.items()}
    first = next(iter(tables.values()))
    ranked = sorted((p for p in first if p is not None), key=lambda p: np.mean(first[p]))
    personas = [*ranked, None]
    axes = _axes(6.4, 1.2 + 0.42 * len(personas), "accuracy", "")
    offsets = np.linspace(0.28, -0.28, len(tables))
    for (name, table), offset in zip(tables.items(), offsets, strict=True):
        shown = [(i, *t_interval(table[p])) for i, p in enumerate(personas) if p in table]
        lines, means, halves = np.array(shown).T
        axes.errorbar(
            means,
            lines + offset,
            xerr=np.nan_to_num(halves),
            label=name,
            linestyle="",
            markersize=4,
            **styles[name],
        )
    labels = ["no persona" if persona is None else persona[:40] for persona in personas]
    axes.set_yticks(range(len(personas)), labels, parse_math=False)
    axes.set_xlim(0, 1.02)
    axes.figure.legend(loc="outside lower center", ncols=4, frameon=False)
    axes.set_title("mean and 95 % interval over seeds", fontsize=9)
    return axes.figure


def _by_persona(stabilities: Sequence[Mapping]) -> dict[str | None, list[float]]:
    table = defaultdict(list)
    for stability in stabilities:
        for entry in stability["per_persona"]:
            table[entry["persona"]].append(entry["accuracy"])
        table[None].append(stability["accuracy_no_persona"])
    return table


def _axes(width: float, height: float, x: str, y: str) -> Axes:
    axes = Figure(figsize=(width, height), layout="constrained").subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#dddddd", linewidth=0.5)
    axes.set_axisbelow(True)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return axes
