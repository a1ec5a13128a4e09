"""The report of a run: its base policy beside what it trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from permix_jax.evaluation.results import (
    Evaluation,
    read_best,
    read_evaluations,
    read_json,
    read_jsonl,
)
from permix_jax.report.compare import compare_answers
from permix_jax.report.completions import browser_of, changes_section
from permix_jax.report.content import (
    CURVES,
    accuracy_section,
    config_section,
    curve,
    fidelity_section,
    lines,
    lottery_chart,
    pss_chart,
    section,
)
from permix_jax.report.overview import (
    LEGEND,
    effects_table,
    fidelity_table,
    has_sets,
    judge_free_table,
    left_out_lines,
    lottery_table,
    stability_table,
    tasks_of,
)
from permix_jax.report.tables import estimate, table
from permix_jax.report.write import write_report
from permix_jax.stats.alarms import warned_of

_MEASURES = {
    "pss": ("Persona stability (PSS)", "worst / best accuracy, unless eval.pss says otherwise"),
    "accuracy_mean": ("Accuracy, mean", "over the personas"),
    "accuracy_worst": ("Accuracy, worst persona", ""),
    "accuracy_best": ("Accuracy, best persona", ""),
    "accuracy_range": ("Accuracy, range", "best minus worst"),
    "accuracy_std": ("Accuracy, spread", "standard deviation over the personas"),
    "accuracy_no_persona": ("Accuracy, no persona", "the plain prompt"),
    "flip_rate": ("Flip rate", "chance that answers under two personas differ in correctness"),
}
_RESULTS = (
    "On held-out problems. In brackets: 95 % intervals over the problems, paired across personas "
    "and policies. With few problems, PSS near 1 is measured too low."
)


def write_run_report(workdir: Path) -> None:
    """Writes report.json, report.md and report.html of a run into its workdir.

    What the run does not have (training steps, some metric, a style rule, saved completions) is
    left out.

    Raises:
      FileNotFoundError: no config.json or no evaluation in `workdir`.
      ValueError: a file in it is not JSON (path and line are named).
    """
    write_report(run_report(Path(workdir)), Path(workdir))


def run_report(workdir: Path) -> dict:
    """The `content` of a run's report."""
    record = read_json(workdir / "config.json")
    evaluations = read_evaluations(workdir)
    first, last = evaluations[0], evaluations[-1]
    policies = {"base": first} if first.step == 0 else {}
    policies |= {"trained": last} if last.step > 0 else {}
    rows = {name: policy.rows() for name, policy in policies.items()}
    results, personas, *others = sections_of(policies, rows, record.get("config", {}))
    metrics = read_jsonl(workdir / "metrics.jsonl")
    preset = record.get("preset")
    return {
        "title": f"{record['name']}:{preset}" if preset else record["name"],
        "facts": [*_facts(record, policies), *best_lines(workdir)],
        "names": list(policies),
        "headlines": headlines(policies),
        "sections": [
            _warnings(metrics),
            results,
            personas,
            _over_steps(evaluations),
            *others,
            _training(metrics),
            config_section(record),
        ],
        "completions": browser_of(rows),
    }


def sections_of(
    policies: Mapping[str, Evaluation], rows: Mapping[str, Sequence[Mapping]], config: Mapping
) -> list[dict]:
    """The sections about evaluations side by side, the one to compare with first.

    Args:
      rows: policy -> the rows of its completions.jsonl.
      config: its `eval` fields are those of the evaluations.
    """
    first = next(iter(policies))
    ranked = f"The highest accuracy of {first} on top; the bars are 95 % intervals."
    stabilities = {name: e.stability for name, e in policies.items()}
    results_note = " ".join([_RESULTS, *(f"{line}." for line in left_out_lines(stabilities))])
    faithful = {name: e.fidelity for name, e in policies.items() if e.fidelity}
    judged = {name: e.judge_free for name, e in policies.items() if e.judge_free}
    return [
        section("results", "Results", results_note, [_results(policies, rows, config)]),
        accuracy_section(stabilities, ranked),
        changes_section(rows),
        fidelity_section(faithful, "By the task's exact rule; the bars are 95 % intervals."),
        section(
            "judge-free",
            "Fidelity without a judge",
            "By the likelihoods of a frozen reference model; docs/evaluation.md defines each.",
            [judge_free_table(tasks_of(judged)) | {"title": ""}],
        ),
        section(
            "sets",
            "By persona set",
            ". ".join(LEGEND) + ".",
            [stability_table(stabilities), fidelity_table(faithful)]
            if any(map(has_sets, stabilities.values()))
            else [],
        ),
        section(
            "lottery",
            "Persona lottery",
            "What a persona drawn by chance does to accuracy. The bands hold for all k at once.",
            [made(stabilities) for made in (lottery_chart, lottery_table, effects_table)],
        ),
    ]


def _results(policies: Mapping[str, Evaluation], rows: Mapping, config: Mapping) -> dict:
    columns = {"measure": ""} | dict.fromkeys(policies, ".3f")
    apart = None
    if len(policies) == 2:
        theirs, ours = rows.values()
        apart = compare_answers(ours, theirs, config.get("eval", {}))
    if apart:
        before, after = policies
        columns[f"{after} - {before}"] = "+.3f"
    body = []
    for key, (label, meaning) in _MEASURES.items():
        cells = [estimate(policy.stability, key) for policy in policies.values()]
        difference = [estimate(apart.get(key, {}), "difference")] if apart else []
        body.append([label, *cells, *difference, meaning])
    for task in ("role_play", "arithmetic"):
        cells = [estimate(policy.fidelity_of(task), "fidelity") for policy in policies.values()]
        if any(cells):
            label = f"Fidelity, {task.replace('_', '-')}"
            difference = [None] if apart else []
            body.append([label, *cells, *difference, "responses in the persona's style"])
    return table(columns | {"what it is": ""}, body)


def headlines(policies: Mapping[str, Evaluation]) -> list[dict]:
    """The figures on top of the report: `label`, and the `values` of the policies."""
    of = policies.values()
    rows = {
        "persona stability (PSS)": [p.stability["pss"] for p in of],
        "accuracy, worst persona": [p.stability["accuracy_worst"] for p in of],
        "role-play fidelity": [p.fidelity_of("role_play").get("fidelity") for p in of],
    }
    return [{"label": label, "values": row} for label, row in rows.items() if {*row} != {None}]


def best_lines(workdir: Path) -> list[str]:
    """Which checkpoint is the best of a run, and where it ended early; [] where nobody asked."""
    if not (best := read_best(workdir)):
        return []
    figure, step, stopped = best["figure"], best["step"], best["stopped_at"]
    found = f"best {figure}: {best['value']:.3f} at step {step}" if step else f"no {figure} at all"
    return [found, *([f"stopped early at step {stopped}: no new best"] if stopped else [])]


def _facts(record: Mapping, policies: Mapping[str, Evaluation]) -> list[str]:
    facts = [f"{name}: step {policy.step}" for name, policy in policies.items()]
    if start := record.get("start"):
        facts.append(f"base: step {start['step']} of {start['run']}")
    if "seed" in record.get("config", {}):
        facts.append(f"seed {record['config']['seed']}")
    if record.get("device"):
        facts.append(str(record["device"]))
    if record.get("git"):
        facts.append(f"git {record['git'][:12]}")
    return facts


def _warnings(metrics: Sequence[Mapping]) -> dict:
    rows = [[w.step, w.alarm.finding, w.alarm.remedy] for w in warned_of(metrics)]
    columns = {"step": "d", "what was seen": "", "what to do": ""}
    note = "Said once each, at the step that completed the condition."
    return section("warnings", "Warnings", note, [table(columns, rows)])


def _over_steps(evaluations: Sequence[Evaluation]) -> dict:
    shown = {
        "pss": "PSS",
        "accuracy_mean": "mean accuracy",
        "accuracy_worst": "worst persona",
        "accuracy_no_persona": "no persona",
    }
    rows = [[e.step, *(estimate(e.stability, key) for key in shown)] for e in evaluations]
    columns = {"step": "d"} | dict.fromkeys(shown.values(), ".3f")
    blocks = [pss_chart({"PSS": evaluations}), table(columns, rows)]
    note = "Evaluations during training; the band is the 95 % interval."
    return section("steps", "Stability over steps", note, blocks if len(evaluations) > 1 else [])


def _training(metrics: Sequence[Mapping]) -> dict:
    """Curves of CURVES that have a finite value, and their means over parts of the run."""
    steps = np.array([row["step"] for row in metrics])
    parts = np.array_split(steps, min(10, len(steps)) or 1)
    charts, columns = [], {"steps": ""}
    means: list[list] = [[f"{part[0]} to {part[-1]}"] for part in parts if part.size]
    for key, caption in CURVES.items():
        series = curve(caption, metrics, key)
        if not series["x"]:
            continue
        charts.append(lines(caption, "training step", "", [series]))
        columns[caption] = ".3g"
        known = dict(zip(series["x"], series["y"], strict=True))
        for row, part in zip(means, parts, strict=True):
            values = [known[step] for step in part if step in known]
            row.append(float(np.mean(values)) if values else None)
    note = "Faint: every step. Solid: running mean over a twentieth of the steps."
    blocks = [*charts, table(columns, means, "Means over parts of the run")] if charts else []
    return section("training", "Training", note, blocks)
