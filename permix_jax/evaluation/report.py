"""What a run shows at its end: the table it prints and `report.html`."""

import json
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import jinja2
from markupsafe import Markup

from permix_jax.evaluation.charts import accuracy_by_persona, training_curve
from permix_jax.evaluation.results import Evaluation, read_evaluations, read_json, read_jsonl
from permix_jax.evaluation.tables import text_table
from permix_jax.files import write_text

CURVES = {
    "reward": "reward",
    "kl": "KL to the base policy",
    "entropy": "entropy, nats per token",
    "completions/mean_length": "mean length, tokens",
    "completions/clipped_ratio": "truncated share",
    "grad_norm": "gradient norm",
}
PROBLEMS_SHOWN = {"problems": 3, "role_play": 2}


def summary_table(evals: Mapping[str, tuple[dict, dict | None]]) -> str:
    """The table to print: a row for each evaluation, in at most 110 columns.

    `evals`: name of the row -> (content of stability.json, content of fidelity.json or None).
    """
    header = ["policy", "PSS [95 % CI]", "mean", "worst", "best", "plain"]
    header += ["role-play [95 % CI]", "arithmetic [95 % CI]"]
    rows = []
    for name, (stability, fidelity) in evals.items():
        accuracies = ("accuracy_mean", "accuracy_worst", "accuracy_best", "accuracy_no_persona")
        rows.append(
            [
                name,
                _estimate(stability, "pss"),
                *(f"{stability[key]:.3f}" for key in accuracies),
                _task_fidelity(fidelity, "role_play"),
                _task_fidelity(fidelity, "arithmetic"),
            ]
        )
    return "\n".join(
        [
            text_table(header, rows),
            "mean, worst, best: accuracy over the personas; plain: accuracy without a persona;",
            "role-play, arithmetic: share of responses in the persona's style, by kind of prompt",
        ]
    )


def write_report(workdir: Path) -> Path:
    """Writes `report.html` of a run into its workdir and returns its path.

    One file that loads nothing: styles and charts are inline, and everything a model wrote is
    escaped. What the run does not have (training steps, some metric, a style rule, saved
    completions) is left out of it.

    Raises:
      FileNotFoundError: no config.json or no evaluation in `workdir`.
      ValueError: a file in it is not JSON (path and line are named).
    """
    workdir = Path(workdir)
    run = read_json(workdir / "config.json")
    evaluations = _base_and_trained(read_evaluations(workdir))
    metrics = read_jsonl(workdir / "metrics.jsonl")
    stabilities = {name: evaluation.stability for name, evaluation in evaluations.items()}
    completions = {
        name: read_jsonl(workdir / "eval" / str(evaluation.step) / "completions.jsonl")
        for name, evaluation in evaluations.items()
    }
    page = _template().render(
        title=f"{run['name']}:{run['preset']}" if run.get("preset") else run["name"],
        headlines=_headlines(evaluations),
        facts=_facts(run, evaluations),
        names=list(evaluations),
        measures=_measures(evaluations),
        curves=_curves(metrics),
        personas_chart=accuracy_by_persona(stabilities),
        samples=_samples(completions, _telling_personas(next(iter(stabilities.values())))),
        config=json.dumps(run, indent=2, ensure_ascii=False),
    )
    path = workdir / "report.html"
    write_text(path, page)
    return path


def _template() -> jinja2.Template:
    source = resources.files(__package__).joinpath("report.html.jinja").read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source)


def _base_and_trained(evaluations: Sequence[Evaluation]) -> dict[str, Evaluation]:
    """The first and the last evaluation of a run, under the names the report gives them."""
    last = evaluations[-1]
    named = {"base": evaluations[0]} if evaluations[0].step == 0 else {}
    return named | ({"trained": last} if last.step > 0 else {})


def _estimate(entry: Mapping, key: str) -> str:
    """The number and, where the entry has it, its interval: 0.970 [0.950, 0.990]."""
    interval = entry.get(f"{key}_ci95")
    bounds = " [{:.3f}, {:.3f}]".format(*interval) if interval else ""
    return f"{entry[key]:.3f}{bounds}"


def _task_fidelity(fidelity: Mapping | None, task: str) -> str:
    by_task = fidelity["by_task"] if fidelity else {}
    return _estimate(by_task[task], "fidelity") if task in by_task else "-"


def _measures(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, str, list[str]]]:
    """Rows of the report's table: (measure, what it is, its value in each evaluation)."""
    stability_rows = [
        ("Persona stability (PSS)", "worst / best accuracy under a persona", "pss"),
        ("Accuracy, mean", "over the personas", "accuracy_mean"),
        ("Accuracy, worst persona", "", "accuracy_worst"),
        ("Accuracy, best persona", "", "accuracy_best"),
        ("Accuracy, range", "best minus worst", "accuracy_range"),
        ("Accuracy, spread", "standard deviation over the personas", "accuracy_std"),
        ("Accuracy, no persona", "the plain prompt", "accuracy_no_persona"),
        ("Flip rate", "chance that answers under two personas differ in correctness", "flip_rate"),
    ]
    rows = [
        (label, meaning, [_estimate(e.stability, key) for e in evaluations.values()])
        for label, meaning, key in stability_rows
    ]
    if any(e.fidelity for e in evaluations.values()):
        for task in ("role_play", "arithmetic"):
            values = [_task_fidelity(e.fidelity, task) for e in evaluations.values()]
            label = f"Fidelity, {task.replace('_', '-')}"
            rows.append((label, "responses in the persona's style", values))
    return rows


def _headlines(evaluations: Mapping[str, Evaluation]) -> list[tuple[str, list[str]]]:
    """The figures on top: (what, its value in each evaluation)."""

    def each(value):
        return [value(evaluation) for evaluation in evaluations.values()]

    headlines = [
        ("persona stability (PSS)", each(lambda e: f"{e.stability['pss']:.2f}")),
        ("accuracy, worst persona", each(lambda e: f"{e.stability['accuracy_worst']:.2f}")),
    ]
    if all(each(lambda e: e.fidelity and "role_play" in e.fidelity["by_task"])):
        role_play = each(lambda e: f"{e.fidelity['by_task']['role_play']['fidelity']:.2f}")
        headlines.append(("role-play fidelity", role_play))
    return headlines


def _facts(run: Mapping, evaluations: Mapping[str, Evaluation]) -> list[str]:
    """The line under the title."""
    facts = [f"{name}: step {evaluation.step}" for name, evaluation in evaluations.items()]
    if "seed" in run.get("config", {}):
        facts.append(f"seed {run['config']['seed']}")
    if run.get("device"):
        facts.append(str(run["device"]))
    if run.get("git"):
        facts.append(f"git {run['git'][:12]}")
    return facts


def _curves(metrics: Sequence[Mapping]) -> list[tuple[str, Markup]]:
    """(caption, chart) of every known metric that has at least one finite value."""
    curves = []
    for key, caption in CURVES.items():
        points = [
            (row["step"], row[key])
            for row in metrics
            if row.get(key) is not None and math.isfinite(row[key])
        ]
        if points:
            curves.append((caption, training_curve(*zip(*points, strict=True), caption)))
    return curves


def _telling_personas(stability: Mapping) -> list[str | None]:
    """No persona, and those with the lowest, the median and the highest accuracy."""
    ranked = sorted(stability["per_persona"], key=lambda entry: entry["accuracy"])
    picked = [ranked[0], ranked[len(ranked) // 2], ranked[-1]]
    return list(dict.fromkeys([None, *(entry["persona"] for entry in picked)]))


def _samples(
    completions: Mapping[str, Sequence[Mapping]], personas: Sequence[str | None]
) -> list[dict]:
    """For the first problems of each kind: the first completion under each persona, side by side.

    Returns [{"prompt", "answer", "rows": [(persona, {evaluation: completion row})]}].
    """
    first = {}  # (task, problem) -> persona -> evaluation -> completion row
    for name, rows in completions.items():
        for row in rows:
            by_persona = first.setdefault((row["task"], row["problem"]), {})
            by_persona.setdefault(row["persona"], {}).setdefault(name, row)

    samples = []
    for task, shown in PROBLEMS_SHOWN.items():
        for key in [key for key in first if key[0] == task][:shown]:
            by_persona = first[key]
            example = next(row for pair in by_persona.values() for row in pair.values())
            samples.append(
                {
                    "prompt": example["prompt"],
                    "answer": example["answer"] if task == "problems" else None,
                    "rows": [(p, by_persona[p]) for p in personas if p in by_persona],
                }
            )
    return samples
