"""The content of a report as plain data: its parts, and the sections that several reports share.

A report has `title`, `facts` (short texts), `headlines`, `names` (its policies or methods, in the
order of their colours), `sections` and `completions` (`completions.browser_of`). A section has
`id`, `title`, `note`, `collapsed` and `blocks`: tables (`tables.table`) and the charts below.
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
    """`name` is the anchor. Tables without rows and charts without points are left out."""
    blocks = [block for block in blocks if block.get("rows") or block.get("series")]
    return {"id": name, "title": title, "note": note, "collapsed": collapsed, "blocks": blocks}


def ranking(names: Sequence[str], axis: str, rows: Mapping[str | None, Cells], kind: str) -> dict:
    """A chart of estimates by persona. The highest of the first policy is on top.

    Args:
      names: the policies.
      rows: persona (None: no persona, comes first) -> an `estimate` of each policy, or None.
      kind: a row links to the completions to prompts of this kind.
    """

    def key(persona: str | None) -> tuple:
        known = [number_of(cell) for cell in rows[persona] if cell is not None]
        return persona is not None, -known[0] if known else 0.0

    ranked = [[persona_link(persona, kind), *rows[persona]] for persona in sorted(rows, key=key)]
    columns = {"persona": ""} | dict.fromkeys(names, ".3f")
    return table(columns, ranked) | {"type": "ranking", "axis": axis}


def lines(title: str, x: str, y: str, series: Sequence[dict], zero: bool = True) -> dict:
    """A chart of lines, drawn small if its label `y` is empty. `zero`: the y axis begins at 0.

    A series has `name`, `x` and `y`. It may have `low` and `high`, the limits of 95 % intervals,
    or `smooth`, which draws its running mean.
    """
    kept = [one for one in series if one["x"]]
    return {"type": "lines", "title": title, "x": x, "y": y, "series": kept, "zero": zero}


def over_steps(name: str, by_step: Mapping[int, dict | None]) -> dict:
    """A series of `lines` from estimates by step."""
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
    """A series of `lines`: a metric of the rows of metrics.jsonl, where it is finite."""
    values = {row["step"]: row.get(key) for row in metrics}
    known = {step: x for step, x in values.items() if x is not None and math.isfinite(x)}
    return {"name": name, "x": list(known), "y": list(known.values()), "smooth": True}


def pss_chart(runs: Mapping[str, Sequence[Evaluation]]) -> dict:
    """The stability score over the training steps. `runs`: name -> its evaluations."""
    series = [over_steps(name, {e.step: pss(e) for e in of}) for name, of in runs.items()]
    return lines("PSS", "training step", "PSS", series)


def role_play_chart(runs: Mapping[str, Sequence[Evaluation]]) -> dict:
    """Role-play fidelity over the training steps. `runs`: name -> its evaluations."""
    series = [over_steps(name, {e.step: role_play(e) for e in of}) for name, of in runs.items()]
    return lines("Role-play fidelity", "training step", "role-play fidelity", series, zero=False)


def pss(evaluation: Evaluation) -> dict | None:
    """The estimate of the stability score."""
    return estimate(evaluation.stability, "pss")


def role_play(evaluation: Evaluation) -> dict | None:
    """The estimate of the share of role-play responses in the persona's style."""
    return estimate(evaluation.fidelity_of("role_play"), "fidelity")


def lottery_chart(stabilities: Mapping[str, Mapping]) -> dict:
    """Expected best and worst accuracy of k personas drawn: two lines for each policy.

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
    """A chart of differences with their intervals, and a line at 0. `name`: such as "a - b".

    `by_measure`: measure -> `difference` and `difference_ci95`.
    """
    rows = [[measure, estimate(entry, "difference")] for measure, entry in by_measure.items()]
    chart = table({"measure": "", name: "+.3f"}, rows)
    return chart | {"type": "ranking", "axis": name, "zero": True}


def points(title: str, x: str, y: str, series: Sequence[dict]) -> dict:
    """A chart of estimates in two dimensions. A series has `name`, the estimates `x` and `y`, and
    `each`: the pairs (x, y) whose means they are."""
    return {"type": "points", "title": title, "x": x, "y": y, "series": list(series)}


def persona_link(persona: str | None, kind: str) -> dict:
    """A cell that links to the completions under a persona."""
    # The filter's value tells no persona from a persona that is called "no persona".
    name, value = ("no persona", "-") if persona is None else (persona, f"+{persona}")
    return link(name, "#completions?" + urlencode({"kind": kind, "persona": value}))


def accuracy_section(stabilities: Mapping[str, Mapping], note: str) -> dict:
    """Accuracy by persona. `stabilities`: policy -> content of stability.json."""
    columns = [
        {entry["persona"]: estimate(entry, "accuracy") for entry in stability["per_persona"]}
        | {None: estimate(stability, "accuracy_no_persona")}
        for stability in stabilities.values()
    ]
    chart = ranking(list(stabilities), "accuracy", _by_persona(columns), "problems")
    return section("personas", "Accuracy by persona", note, [chart])


def fidelity_section(fidelities: Mapping[str, Mapping], note: str) -> dict:
    """Role-play fidelity by persona. `fidelities`: policy -> content of fidelity.json."""
    entries = [
        content["by_task"].get("role_play", {}).get("per_persona", [])
        for content in fidelities.values()
    ]
    columns = [{entry["persona"]: estimate(entry, "fidelity") for entry in of} for of in entries]
    axis = "share of responses in style"
    chart = ranking(list(fidelities), axis, _by_persona(columns), "role_play")
    return section("fidelity", "Fidelity by persona", note, [chart])


def _by_persona(columns: Sequence[Mapping[str | None, Any]]) -> dict[str | None, Cells]:
    personas = dict.fromkeys(persona for column in columns for persona in column)
    return {persona: [column.get(persona) for column in columns] for persona in personas}


def config_section(record: Mapping[str, Any]) -> dict:
    """All fields of a config.json. Those that differ from the preset are marked and come first."""
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
    """The fields that were changed when the run was resumed."""
    return {
        f"{field}, from step {entry['step']}": f"{config_text(new)}, before {config_text(old)}"
        for entry in record.get("history", [])
        for field, (old, new) in entry["changes"].items()
    }


def config_text(value: Any) -> str:
    """A field's value as a config file would write it."""
    return '""' if value == "" else str(value)
