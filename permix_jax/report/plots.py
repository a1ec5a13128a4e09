"""Figures of finished runs for notebooks and scripts, with the charts of the reports.

`runs` are by name, `policies` are evaluations by name, the base first. A name has one colour in all
figures.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from permix_jax.evaluation.results import Evaluation, read_json
from permix_jax.report import content
from permix_jax.report.charts import figure_of
from permix_jax.report.compare import compare_two
from permix_jax.report.content import CURVES, curve, lines, measured, points
from permix_jax.report.run_figures import Run, read_run
from permix_jax.report.tables import estimate, table

BASE = "base"
_LABELS = {
    "worst": "accuracy, worst persona",
    "mean": "accuracy, mean over personas",
    "plain": "accuracy, no persona",
    "role-play": "fidelity, role-play",
    "arithmetic": "fidelity, arithmetic",
}


def read_runs(workdirs: Iterable[str | Path]) -> dict[str, Run]:
    """Finished runs by the names of their folders.

    Raises as `read_run`, and ValueError for two folders of one name.
    """
    runs: dict[str, Run] = {}
    for workdir in map(Path, workdirs):
        if workdir.name in runs:
            raise ValueError(
                f"{runs[workdir.name].workdir} and {workdir} have one name; rename one of them"
            )
        runs[workdir.name] = read_run(workdir)
    return runs


def policies_of(runs: Mapping[str, Run]) -> dict[str, Evaluation]:
    """The base of the first run, and what each run trained."""
    first = next(iter(runs.values())).evaluations[0]
    base = {BASE: first} if first.step == 0 else {}
    return base | {name: run.evaluations[-1] for name, run in runs.items()}


def training_curves(
    metrics: Mapping[str, Sequence[Mapping]], keys: Sequence[str] = ("reward", "kl")
) -> Figure:
    """Metrics (keys of CURVES) over the training steps, side by side, with running means.

    `metrics`: run -> rows of metrics.jsonl.
    """
    charts = []
    for key in keys:
        series = [curve(name, rows, key) for name, rows in metrics.items()]
        charts.append(lines(CURVES[key], "training step", CURVES[key], series))
    return figure_of(charts, [BASE, *metrics])


def right_by_prompt(metrics: Sequence[Mapping]) -> Figure:
    """The share of right answers in training, without a persona and with one."""
    return figure_of([content.chart_by_prompt(metrics)], [])


def over_steps(runs: Mapping[str, Run]) -> Figure:
    """The stability score and role-play fidelity of the evaluations during training."""
    evaluations = {name: run.evaluations for name, run in runs.items()}
    charts = [
        content.chart_over_steps("PSS", "pss", evaluations),
        content.chart_over_steps("role-play fidelity", "role_play", evaluations, zero=False),
    ]
    return figure_of(charts, [BASE, *runs])


def accuracy_by_persona(policies: Mapping[str, Evaluation]) -> Figure:
    """The accuracy without a persona, then by persona, the highest of the first policy on top."""
    chart = content.accuracy_chart({name: e.stability for name, e in policies.items()})
    return figure_of([chart], list(policies))


def fidelity_by_persona(policies: Mapping[str, Evaluation]) -> Figure:
    """The share of role-play responses in the persona's style."""
    chart = content.fidelity_chart({name: e.fidelity for name, e in policies.items() if e.fidelity})
    return figure_of([chart], list(policies))


def persona_lottery(policies: Mapping[str, Evaluation]) -> Figure:
    """The expected accuracy of the best and of the worst of k personas drawn."""
    chart = content.lottery_chart({name: e.stability for name, e in policies.items()})
    return figure_of([chart], list(policies))


def robustness_and_fidelity(policies: Mapping[str, Evaluation]) -> Figure:
    """The stability score against role-play fidelity: up and to the right is better."""
    pss, fidelity = (
        {name: measured(e, key) for name, e in policies.items()} for key in ("pss", "role_play")
    )
    return figure_of([_scatter("PSS", pss, "role-play fidelity", fidelity)], list(policies))


def kl_and_what_it_bought(policies: Mapping[str, Evaluation]) -> Figure:
    """KL to the base, by kind of prompt, against accuracy and against role-play fidelity."""
    kls, charts = {name: _kl_by_task(e) for name, e in policies.items()}, []
    for task, prompts, bought, key in (
        ("problems", "problems", "mean accuracy over personas", "accuracy_mean"),
        ("role_play", "conversation", "role-play fidelity", "role_play"),
    ):
        kl = {name: by_task.get(task) for name, by_task in kls.items()}
        gain = {name: measured(e, key) for name, e in policies.items()}
        charts.append(_scatter(f"KL to the base on {prompts}, nats a response", kl, bought, gain))
    return figure_of(charts, list(policies))


def paired_differences(runs: Mapping[str, Run], ours: str, theirs: str) -> Figure:
    """`ours` minus `theirs` on the same items, see `compare_two`, and a line at 0."""
    name = f"{ours} - {theirs}"
    rows = [
        [_LABELS.get(measure, measure), estimate(entry, "difference")]
        for measure, entry in compare_two(runs[ours], runs[theirs]).items()
    ]
    chart = table({"measure": "", name: "+.3f"}, rows)
    return figure_of([chart | {"type": "ranking", "axis": name, "zero": True}], ["", name])


def _kl_by_task(evaluation: Evaluation) -> dict[str, dict | None]:
    """Estimates of kl.json; the base's KL to itself is exactly 0."""
    if evaluation.step == 0:
        return dict.fromkeys(("problems", "role_play"), {"value": 0.0, "ci95": None})
    path = evaluation.folder / "kl.json"
    by_task = read_json(path)["by_task"] if path.is_file() else {}
    return {task: estimate(entry, "kl") for task, entry in by_task.items()}


def _scatter(x: str, xs: Mapping[str, dict | None], y: str, ys: Mapping[str, dict | None]) -> dict:
    series = [{"name": n, "x": xs[n], "y": ys[n], "each": []} for n in xs if xs[n] and ys[n]]
    return points("", x, y, series)
