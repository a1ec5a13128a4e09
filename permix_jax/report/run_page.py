"""The report of a run, its base policy beside what it trained, and that of one evaluation."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from permix_jax.core.field_rules import fixed_fields
from permix_jax.core.places import from_relative, place_of
from permix_jax.evaluation.results import (
    Evaluation,
    read_best,
    read_evaluation,
    read_evaluations,
    read_json,
    read_jsonl,
)
from permix_jax.report import content, overview
from permix_jax.report.compare import compare_answers
from permix_jax.report.completions import browser_of, changes_section
from permix_jax.report.content import CURVES, curve, lines, measured, section
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
    "role_play": ("Fidelity, role-play", "responses in the persona's style"),
    "arithmetic": ("Fidelity, arithmetic", "responses in the persona's style"),
}
_HEADLINES = {
    "persona stability (PSS)": "pss",
    "accuracy, worst persona": "accuracy_worst",
    "role-play fidelity": "role_play",
}


def write_run_report(workdir: Path) -> None:
    """Writes report.json, report.md and report.html of a run into its workdir.

    What the run does not have (training steps, some metric, a style rule, saved completions) is
    left out.

    Raises:
      FileNotFoundError: no config.json or no evaluation in `workdir`.
      ValueError: a file in it is not JSON (path and line are named).
    """
    workdir = place_of(workdir)
    write_report(run_report(workdir), workdir)


def run_report(workdir: Path) -> dict:
    """The `content` of a run's report."""
    record = read_json(workdir / "config.json")
    evaluations = read_evaluations(workdir)
    first, last = evaluations[0], evaluations[-1]
    policies = {"base": first} if first.step == 0 else {}
    policies |= {"trained": last} if last.step > 0 else {}
    rows = {name: policy.rows() for name, policy in policies.items()}
    config, preset = record.get("config", {}), record.get("preset")
    facts = [f"{name}: step {policy.step}" for name, policy in policies.items()]
    facts += [f"seed {config['seed']}"] if "seed" in config else []
    facts += [str(record["device"])] if record.get("device") else []
    facts += [f"git {record['git'][:12]}"] if record.get("git") else []
    if start := record.get("start"):
        facts.append(f"begins with step {start['step']} of {start['run']}")
    facts += best_lines(workdir)
    metrics = read_jsonl(workdir / "metrics.jsonl")
    warned = [[w.step, w.alarm.finding, w.alarm.remedy] for w in warned_of(metrics)]
    warnings = table({"step": "d", "what was seen": "", "what to do": ""}, warned)
    results, more, personas, *others = _sections_of(policies, rows, config)
    sections = [section("warnings", [warnings]), results, more, personas]
    sections += [
        _over_steps(evaluations),
        *others,
        _training(metrics),
        content.config_section(record),
    ]
    title = f"{record['name']}:{preset}" if preset else record["name"]
    return _report(title, facts, policies, sections, rows)


def write_evaluation_report(folder: Path) -> str:
    """Writes report.json, report.md and report.html beside the JSON of a finished evaluation;
    returns the table to print. Its run's base is beside it if that was asked the same.

    Raises FileNotFoundError or ValueError where a file is missing or damaged.
    """
    evaluation, identity = read_evaluation(folder), _identity(folder)
    policy = identity.get("policy", {})
    model, run = policy.get("model"), policy.get("run")
    name = Path(model).name if model else f"step {policy.get('step', '?')}"
    policies = {name: evaluation}
    of_run = from_relative(folder, run or "")
    base = of_run / "eval" / "0"
    if run and base.resolve() != folder.resolve() and (base / "stability.json").is_file():
        if _asked(base) == _asked(folder):
            policies = {"base": read_evaluation(base), name: evaluation}
    rows = {policy: of.rows() for policy, of in policies.items()}
    sections = _sections_of(policies, rows, identity.get("config", {}))
    sections.append(content.config_section(identity))
    facts = [f"run: {of_run.name}" if run else f"model: {model}"]
    write_report(_report(f"Evaluation of {name}", facts, policies, sections, rows), folder)
    return overview.overview(evaluation)


def _report(
    title: str,
    facts: Sequence[str],
    policies: Mapping[str, Evaluation],
    sections: Sequence[dict],
    rows: Mapping[str, Sequence[Mapping]],
) -> dict:
    headlines = []
    for label, key in _HEADLINES.items():
        cells = [measured(policy, key) for policy in policies.values()]
        if any(cells):
            headlines.append({"label": label, "values": [of and of["value"] for of in cells]})
    return {
        "title": title,
        "facts": facts,
        "names": list(policies),
        "headlines": headlines,
        "sections": sections,
        "completions": browser_of(rows),
    }


def _identity(folder: Path) -> dict:
    path = folder / "evaluation.json"
    return read_json(path) if path.is_file() else {}


def _asked(folder: Path) -> dict:
    """What an evaluation asks of its policy; older ones name fields that change no answer."""
    identity = _identity(folder)
    return identity | {"policy": {}, "config": fixed_fields(identity.get("config", {}))}


def _sections_of(
    policies: Mapping[str, Evaluation], rows: Mapping[str, Sequence[Mapping]], config: Mapping
) -> list[dict]:
    """The sections about evaluations side by side, the one to compare with first.

    Args:
      rows: policy -> the rows of its completions.jsonl.
      config: its `eval` fields are those of the evaluations.
    """
    stabilities = {name: e.stability for name, e in policies.items()}
    faithful = {name: e.fidelity for name, e in policies.items() if e.fidelity}
    judged = {name: e.judge_free for name, e in policies.items() if e.judge_free}
    undecided, apart = overview.left_out_lines(stabilities), _apart(rows, config)
    more = overview.more_table(stabilities, apart) | {"title": ""}
    by_set = [overview.stability_table(stabilities), overview.fidelity_table(faithful)]
    several = any(map(overview.has_sets, stabilities.values()))
    lottery = [
        made(stabilities)
        for made in (content.lottery_chart, overview.lottery_table, overview.effects_table)
    ]
    return [
        section("results", [_results(policies, apart)], undecided=undecided),
        section("more", [more, overview.kinds_table(stabilities)]),
        section("personas", [content.accuracy_chart(stabilities)], first=next(iter(policies))),
        changes_section(rows),
        section("fidelity", [content.fidelity_chart(faithful)]),
        section(
            "judge-free", [overview.judge_free_table(overview.tasks_of(judged)) | {"title": ""}]
        ),
        section("sets", by_set if several else []),
        section("samples", [overview.samples_table(stabilities) | {"title": ""}]),
        section("lottery", lottery),
    ]


def _apart(rows: Mapping[str, Sequence[Mapping]], config: Mapping) -> dict | None:
    """How far the second of two policies is from the first; None where that is not known."""
    if len(rows) != 2:
        return None
    theirs, ours = rows.values()
    return compare_answers(ours, theirs, config.get("eval", {}))


def _results(policies: Mapping[str, Evaluation], apart: Mapping | None) -> dict:
    columns = {"measure": ""} | dict.fromkeys(policies, ".3f")
    if apart:
        before, after = policies
        columns[f"{after} - {before}"] = "+.3f"
    body = []
    for key, (label, meaning) in _MEASURES.items():
        cells = [measured(policy, key) for policy in policies.values()]
        difference = [estimate(apart.get(key, {}), "difference")] if apart else []
        if any(cells) or not label.startswith("Fidelity"):
            body.append([label, *cells, *difference, meaning])
    return table(columns | {"what it is": ""}, body)


def best_lines(workdir: Path) -> list[str]:
    """Which checkpoint is the best of a run, and where it ended early; [] where nobody asked."""
    if not (best := read_best(workdir)):
        return []
    figure, step, stopped = best["figure"], best["step"], best["stopped_at"]
    found = f"best {figure}: {best['value']:.3f} at step {step}" if step else f"no {figure} at all"
    return [found, *([f"stopped early at step {stopped}: no new best"] if stopped else [])]


def _over_steps(evaluations: Sequence[Evaluation]) -> dict:
    shown = {
        "PSS": "pss",
        "mean accuracy": "accuracy_mean",
        "worst persona": "accuracy_worst",
        "no persona": "accuracy_no_persona",
    }
    rows = [[e.step, *(measured(e, key) for key in shown.values())] for e in evaluations]
    blocks = [
        content.chart_over_steps("PSS", "pss", {"PSS": evaluations}),
        table({"step": "d"} | dict.fromkeys(shown, ".3f"), rows),
    ]
    return section("steps", blocks if len(evaluations) > 1 else [])


def _training(metrics: Sequence[Mapping]) -> dict:
    """Curves of CURVES that have a finite value, and their means over parts of the run."""
    parts = np.array_split([row["step"] for row in metrics], min(10, len(metrics)) or 1)
    curves = {caption: curve(caption, metrics, key) for key, caption in CURVES.items()}
    curves = {caption: series for caption, series in curves.items() if series["x"]}
    known = [dict(zip(series["x"], series["y"], strict=True)) for series in curves.values()]
    means = []
    for part in parts if metrics else ():
        of_part = [[values[step] for step in part if step in values] for values in known]
        cells = [float(np.mean(values)) if values else None for values in of_part]
        means.append([f"{part[0]} to {part[-1]}", *cells])
    charts = [lines(caption, "training step", "", [of]) for caption, of in curves.items()]
    charts.append(content.chart_by_prompt(metrics))
    columns = {"steps": ""} | dict.fromkeys(curves, ".3g")
    blocks = [*charts, table(columns, means, "Means over parts of the run")]
    return section("training", blocks if curves else [])
