"""The parts that a report is made of, as plain data, and those that several reports have.

A report has `title`, `facts` (short texts), `headlines`, `names` (of its policies or methods, in
the order of their colours), `sections` and `completions` (see `completions.browser_of`). A section
has `id`, `title`, `note`, `collapsed` and `blocks`: tables (`tables.table`) and the charts below.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from permix_jax.core.fields import flat_fields
from permix_jax.evaluation.results import Evaluation
from permix_jax.report.tables import estimate, link, number_of, table

Cells = Sequence[dict | None]
CURVES = {  # metric of metrics.jsonl -> what it is
    "reward": "reward",
    "kl": "KL to the base policy, nats per token",
    "entropy": "entropy, nats per token",
    "completions/mean_length": "mean length, tokens",
    "completions/clipped_ratio": "truncated share",
    "loss": "loss",
    "grad_norm": "gradient norm",
}


def section(
    name: str, title: str, note: str, blocks: Sequence[dict], collapsed: bool = False
) -> dict:
    """`name` is its anchor. Tables without a row and charts without a point are left out."""
    blocks = [block for block in blocks if block.get("rows") or block.get("series")]
    return {"id": name, "title": title, "note": note, "collapsed": collapsed, "blocks": blocks}


def ranking(names: Sequence[str], axis: str, rows: Mapping[str | None, Cells], kind: str) -> dict:
    """A chart of estimates by persona, the highest of the first policy on top.

    Args:
      names: of the policies.
      rows: persona (None: no persona, comes first) -> an `estimate` of each policy, or None.
      kind: of the prompts whose completions a persona's row leads to.
    """

    def key(persona: str | None) -> tuple:
        known = [number_of(cell) for cell in rows[persona] if cell is not None]
        return persona is not None, -known[0] if known else 0.0

    ranked = [[persona_link(persona, kind), *rows[persona]] for persona in sorted(rows, key=key)]
    columns = {"persona": ""} | dict.fromkeys(names, ".3f")
    return table(columns, ranked) | {"type": "ranking", "axis": axis}


def lines(title: str, x: str, y: str, series: Sequence[dict], zero: bool = True) -> dict:
    """A chart of lines, small where `y`, its label, is empty; `zero`: its axis begins there.

    A series has `name`, `x`, `y` and, where it has a 95 % interval, `low` and `high` (None where
    not); `smooth` draws its running mean over it.
    """
    kept = [one for one in series if one["x"]]
    return {"type": "lines", "title": title, "x": x, "y": y, "series": kept, "zero": zero}


def over_steps(name: str, by_step: Mapping[int, dict | None]) -> dict:
    """A series of `lines`: step -> estimate."""
    known = {step: cell for step, cell in by_step.items() if cell is not None}
    limits = [cell["ci95"] or (None, None) for cell in known.values()]
    return {
        "name": name,
        "x": list(known),
        "y": [cell["value"] for cell in known.values()],
        "low": [low for low, _ in limits],
        "high": [high for _, high in limits],
    }


def curve(name: str, metrics: Sequence[Mapping], key: str) -> dict:
    """A series of `lines`: a metric over the training steps, where it is finite.

    `metrics`: rows of metrics.jsonl.
    """
    values = {row["step"]: row.get(key) for row in metrics}
    known = {step: x for step, x in values.items() if x is not None and math.isfinite(x)}
    return {"name": name, "x": list(known), "y": list(known.values()), "smooth": True}


def pss_chart(runs: Mapping[str, Sequence[Evaluation]]) -> dict:
    """The stability score over the training steps. `runs`: name -> its evaluations."""
    series = [
        over_steps(name, {e.step: estimate(e.stability, "pss") for e in evaluations})
        for name, evaluations in runs.items()
    ]
    return lines("PSS", "training step", "PSS", series)


def role_play_chart(runs: Mapping[str, Sequence[Evaluation]]) -> dict:
    """Role-play fidelity over the training steps, likewise."""
    series = [
        over_steps(name, {e.step: role_play(e) for e in evaluations})
        for name, evaluations in runs.items()
    ]
    return lines("Role-play fidelity", "training step", "role-play fidelity", series, zero=False)


def role_play(evaluation: Evaluation) -> dict | None:
    """The estimate of the share of responses in the persona's style, in conversation."""
    by_task = (evaluation.fidelity or {}).get("by_task", {})
    return estimate(by_task.get("role_play", {}), "fidelity")


def lottery_chart(stabilities: Mapping[str, Mapping]) -> dict:
    """Expected best and worst accuracy of k personas drawn: two lines a policy, from its mean on.

    `stabilities`: policy -> content of stability.json.
    """
    series = []
    for name, stability in stabilities.items():
        lottery = stability.get("lottery", {})
        for key in ("expected_best", "expected_worst"):
            values = lottery.get(key, [])
            limits = lottery.get(f"{key}_ci95", [None] * len(values))
            pairs = enumerate(zip(values, limits, strict=True), start=1)
            cells = {k: {"value": value, "ci95": ci95} for k, (value, ci95) in pairs}
            series.append(over_steps(name, cells))
    title = "Expected accuracy of the best and of the worst of k personas"
    return lines(title, "k, personas drawn", "expected accuracy of the best and the worst", series)


def differences(name: str, by_measure: Mapping[str, Mapping]) -> dict:
    """A chart of differences with their intervals, a line at 0. `name`: of what less what.

    `by_measure`: measure -> `difference` and `difference_ci95`.
    """
    rows = [[measure, estimate(entry, "difference")] for measure, entry in by_measure.items()]
    chart = table({"measure": "", name: "+.3f"}, rows)
    return chart | {"type": "ranking", "axis": name, "zero": True}


def points(title: str, x: str, y: str, series: Sequence[dict]) -> dict:
    """A chart of estimates in two dimensions. A series has `name`, estimates `x` and `y`, and
    `each`: the pairs (x, y) that they are means of."""
    return {"type": "points", "title": title, "x": x, "y": y, "series": list(series)}


def persona_link(persona: str | None, kind: str) -> dict:
    """A cell that leads to the completions under a persona."""
    name = "no persona" if persona is None else persona
    return link(name, "#completions?" + urlencode({"kind": kind, "persona": choice(persona)}))


def choice(persona: str | None) -> str:
    """A persona as a value of the browser's filter: no persona is told from one called so."""
    return "-" if persona is None else f"+{persona}"


def accuracy_section(stabilities: Mapping[str, Mapping], note: str) -> dict:
    """Accuracy by persona. `stabilities`: policy -> content of stability.json."""
    rows = {}
    for i, stability in enumerate(stabilities.values()):
        cells = {
            entry["persona"]: estimate(entry, "accuracy") for entry in stability["per_persona"]
        }
        cells[None] = estimate(stability, "accuracy_no_persona")
        _put(rows, i, len(stabilities), cells)
    chart = ranking(list(stabilities), "accuracy", rows, "problems")
    return section("personas", "Accuracy by persona", note, [chart])


def fidelity_section(fidelities: Mapping[str, Mapping], note: str) -> dict:
    """Role-play fidelity by persona. `fidelities`: policy -> content of fidelity.json."""
    rows = {}
    for i, faithful in enumerate(fidelities.values()):
        of_personas = faithful["by_task"].get("role_play", {}).get("per_persona", [])
        cells = {entry["persona"]: estimate(entry, "fidelity") for entry in of_personas}
        _put(rows, i, len(fidelities), cells)
    chart = ranking(list(fidelities), "share of responses in style", rows, "role_play")
    return section("fidelity", "Fidelity by persona", note, [chart])


def _put(rows: dict, place: int, places: int, cells: Mapping[str | None, Any]) -> None:
    for persona, cell in cells.items():
        rows.setdefault(persona, [None] * places)[place] = cell


def config_section(record: Mapping[str, Any]) -> dict:
    """All fields of a config.json, flat; those that differ from the preset are marked."""
    changed, apart = record.get("changed", []), ("config", "changed", "history")
    others = {key: value for key, value in record.items() if key not in apart}
    fields = flat_fields(record.get("config", {})) | flat_fields(others) | _history(record)
    columns, note = {"field": "", "value": ""}, "Every field as it was resolved."
    rows = [[field, config_text(value)] for field, value in fields.items()]
    if changed:
        columns["preset"] = ""
        note += " Changed: another value than in the preset."
        rows = [[*row, "changed" if row[0] in changed else ""] for row in rows]
        rows.sort(key=lambda row: row[2] == "")
    return section("config", "Configuration", note, [table(columns, rows)], collapsed=True)


def _history(record: Mapping[str, Any]) -> dict[str, str]:
    """What was changed when the run went on, by the step from which it holds."""
    return {
        f"{field}, from step {entry['step']}": f"{config_text(new)}, before {config_text(old)}"
        for entry in record.get("history", [])
        for field, (old, new) in entry["changes"].items()
    }


def config_text(value: Any) -> str:
    """A field's value as a config file would write it."""
    return '""' if value == "" else str(value)
