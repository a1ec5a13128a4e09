"""The content of a report as plain data: its parts, and the charts that several reports share.

A report has `title`, `facts` (short texts), `headlines`, `names` (its policies or methods, in the
order of their colours), `sections` and `completions` (`completions.browser_of`). A section has
`id`, `title`, `note`, `collapsed` and `blocks`: tables (`tables.table`) and the charts below.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import jinja2

from permix_jax.core.fields import flat_fields
from permix_jax.evaluation.results import Evaluation
from permix_jax.report.tables import estimate, link, number_of, table

CURVES = {  # metric of metrics.jsonl -> what it is
    "reward": "reward",
    "kl": "KL to the base policy, nats per token",
    "entropy": "entropy, nats per token",
    "completions/mean_length": "mean length, tokens",
    "completions/clipped_ratio": "truncated share",
    "loss": "loss",
    "grad_norm": "gradient norm",
}
_TRAINED_UNDER = re.compile("persona/.+/accuracy")  # in metrics.jsonl
TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("permix_jax.report", ""),
    autoescape=jinja2.select_autoescape(["html.jinja"]),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEXTS = TEMPLATES.get_template("texts.jinja").module


def text(name: str, **values: Any) -> str:
    """The text `name` of texts.jinja, which is told `values`."""
    return getattr(_TEXTS, name)(**values).removesuffix("\n")


def section(
    name: str, blocks: Sequence[dict], *, anchor: str = "", collapsed: bool = False, **values: Any
) -> dict:
    """A section whose title and note are the `text` of its name.

    Its id is `anchor`, or its name. Tables without rows and charts without points are left out.
    """
    title, _, note = text(name.replace("-", "_"), **values).partition("\n")
    blocks = [block for block in blocks if block.get("rows") or block.get("series")]
    said = {"id": anchor or name, "title": title, "note": note, "collapsed": collapsed}
    return said | {"blocks": blocks}


def measured(evaluation: Evaluation, key: str) -> dict | None:
    """The estimate of a figure of stability.json or, by the kind of prompt, of fidelity."""
    of_task = estimate(evaluation.fidelity_of(key), "fidelity")
    return estimate(evaluation.stability, key) or of_task


def persona_link(persona: str | None, kind: str) -> dict:
    """A cell that links to the completions under a persona."""
    # The filter's value tells no persona from a persona that is called "no persona".
    name, value = ("no persona", "-") if persona is None else (persona, f"+{persona}")
    return link(name, "#completions?" + urlencode({"kind": kind, "persona": value}))


def ranking(
    names: Sequence[str], axis: str, columns: Sequence[Mapping[str | None, Any]], kind: str
) -> dict:
    """A chart of estimates by persona. The highest of the first policy is on top.

    Args:
      names: the policies.
      columns: of each policy, persona (None: no persona, comes first) -> an `estimate` or None.
      kind: a row links to the completions to prompts of this kind.
    """
    personas = dict.fromkeys(persona for column in columns for persona in column)
    rows = {persona: [column.get(persona) for column in columns] for persona in personas}

    def key(persona: str | None) -> tuple:
        known = [number_of(cell) for cell in rows[persona] if cell is not None]
        return persona is not None, -known[0] if known else 0.0

    ranked = [[persona_link(persona, kind), *rows[persona]] for persona in sorted(rows, key=key)]
    chart = table({"persona": ""} | dict.fromkeys(names, ".3f"), ranked)
    return chart | {"type": "ranking", "axis": axis}


def accuracy_chart(stabilities: Mapping[str, Mapping]) -> dict:
    """Accuracy by persona. `stabilities`: policy -> content of stability.json."""
    columns = [
        {entry["persona"]: estimate(entry, "accuracy") for entry in stability["per_persona"]}
        | {None: estimate(stability, "accuracy_no_persona")}
        for stability in stabilities.values()
    ]
    return ranking(list(stabilities), "accuracy", columns, "problems")


def fidelity_chart(fidelities: Mapping[str, Mapping]) -> dict:
    """Role-play fidelity by persona. `fidelities`: policy -> content of fidelity.json."""
    entries = [
        content["by_task"].get("role_play", {}).get("per_persona", [])
        for content in fidelities.values()
    ]
    columns = [{entry["persona"]: estimate(entry, "fidelity") for entry in of} for of in entries]
    return ranking(list(fidelities), "share of responses in style", columns, "role_play")


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


def chart_by_prompt(metrics: Sequence[Mapping]) -> dict:
    """The share of right answers in training, without a persona and with one (the mean over those
    of a step), as `lines`; without series where no step has both kinds of prompt."""
    series = {"without a persona": [], "with a persona": []}
    for row in metrics:
        found = {name: x for name, x in row.items() if _TRAINED_UNDER.fullmatch(name)}
        plain = found.pop("persona/none/accuracy", None)
        mean = sum(found.values()) / len(found) if found else None
        for name, value in zip(series, (plain, mean), strict=True):
            series[name].append({"step": row["step"], "accuracy": value})
    curves = [curve(name, rows, "accuracy") for name, rows in series.items()]
    both = all(of["x"] for of in curves)
    return lines("right answers", "training step", "right answers", curves if both else [])


def chart_over_steps(
    label: str, key: str, runs: Mapping[str, Sequence[Evaluation]], zero: bool = True
) -> dict:
    """A figure of `measured` over the training steps. `runs`: name -> its evaluations."""
    series = [over_steps(name, {e.step: measured(e, key) for e in of}) for name, of in runs.items()]
    return lines(label, "training step", label, series, zero)


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


def points(title: str, x: str, y: str, series: Sequence[dict]) -> dict:
    """A chart of estimates in two dimensions. A series has `name`, the estimates `x` and `y`, and
    `each`: the pairs (x, y) whose means they are."""
    return {"type": "points", "title": title, "x": x, "y": y, "series": list(series)}


def mean_over_seeds(entry: Mapping[str, Any]) -> dict | None:
    """An entry of `compare_runs` as an estimate; None where its mean is not known."""
    mean, half = entry["mean"], entry["half_width"]
    interval = None if half is None else [mean - half, mean + half]
    return None if mean is None else {"value": mean, "ci95": interval}


def grid(
    title: str, x: str, y: str, xs: Sequence, ys: Sequence, rows: Sequence[Sequence[dict | None]]
) -> dict:
    """A map of estimates: a row for each of `ys`, and in it a cell for each of `xs`."""
    return {
        "type": "grid",
        "title": title,
        "x": x,
        "y": y,
        "xs": list(xs),
        "ys": list(ys),
        "series": [list(row) for row in rows],
    }


def config_section(record: Mapping[str, Any]) -> dict:
    """All fields of a config.json. Those that differ from the preset are marked and come first."""
    changed, apart = record.get("changed", []), ("config", "changed", "history")
    others = {key: value for key, value in record.items() if key not in apart}
    fields = flat_fields(record.get("config", {})) | flat_fields(others)
    for entry in record.get("history", []):  # when the run was resumed
        for field, (old, new) in entry["changes"].items():
            changes = f"{config_text(new)}, before {config_text(old)}"
            fields[f"{field}, from step {entry['step']}"] = changes
    columns = {"field": "", "value": ""}
    rows = [[field, config_text(value)] for field, value in fields.items()]
    if changed:
        columns["preset"] = ""
        rows = [[*row, "changed" if row[0] in changed else ""] for row in rows]
        rows.sort(key=lambda row: row[2] == "")
    what = "changed" if changed else ""
    return section("config", [table(columns, rows)], collapsed=True, what=what)


def config_text(value: Any) -> str:
    """A field's value as a config file would write it."""
    return '""' if value == "" else str(value)
