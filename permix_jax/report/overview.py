"""The tables of evaluations, for the terminal and for reports."""

from collections.abc import Iterator, Mapping

from permix_jax.evaluation.results import Evaluation
from permix_jax.report.content import text
from permix_jax.report.tables import as_text, estimate, table, text_table, with_interval

_ACCURACIES = ("accuracy_mean", "accuracy_worst", "accuracy_best", "accuracy_no_persona")
_HURTING = 5  # personas listed
_DRAWN = (1, 2, 4, 8, 16, 32, 64)  # numbers of personas drawn in the lottery


def summary_table(evals: Mapping[str, tuple[dict, dict | None]]) -> str:
    """What a run prints at its end: a row for each evaluation, in at most 110 columns.

    `evals`: name of the row -> (content of stability.json, content of fidelity.json or None).
    """
    header = ["policy", "PSS [95 % CI]", "mean", "worst", "best", "plain"]
    header += ["role-play [95 % CI]", "arithmetic [95 % CI]"]
    rows = []
    for name, (stability, fidelity) in evals.items():
        by_task = fidelity["by_task"] if fidelity else {}
        accuracies = [f"{stability[key]:.3f}" for key in _ACCURACIES]
        tasks = [by_task.get(task, {}) for task in ("role_play", "arithmetic")]
        faithful = [with_interval(entry, "fidelity") for entry in tasks]
        rows.append([name, with_interval(stability, "pss"), *accuracies, *faithful])
    notes = left_out_lines({name: stability for name, (stability, _) in evals.items()})
    lines = [text_table(header, rows), *notes, text("summary_legend")]
    several = samples_table({name: stability for name, (stability, _) in evals.items()})
    if several["rows"]:
        lines += ["", several["title"], text_table(*as_text(several)), text("samples_legend")]
    return "\n".join(lines)


def overview(evaluation: Evaluation) -> str:
    """What launch/evaluate.py prints: all tables of one evaluation."""
    contents = (evaluation.stability, evaluation.fidelity, evaluation.judge_free)
    stability, faithful, judged = ({"": content} if content else {} for content in contents)
    made_of = (stability_table, more_table, kinds_table, samples_table, lottery_table)
    made_of += (effects_table,)
    tables = [made(stability) for made in made_of]
    tables += [fidelity_table(faithful), judge_free_table(tasks_of(judged))]
    first, *others = [
        f"{table['title']}\n{text_table(*as_text(table))}" for table in tables if table["rows"]
    ]
    notes = [text("evaluation_legend"), *left_out_lines(stability)]
    return "\n\n".join(["\n".join([first, *notes]), *others])


def left_out_lines(stabilities: Mapping[str, Mapping]) -> list[str]:
    """A line for each policy whose stability.json counts answers without a verdict."""
    return [
        text("without_verdict", policy=policy, answers=answers, problems=of["problems_left_out"])
        for policy, of in stabilities.items()
        if (answers := of.get("unknown_verdicts", 0))
    ]


# The tables below are of one policy, named "", or of several: policy -> content of its JSON file.


def stability_table(stabilities: Mapping[str, Mapping]) -> dict:
    """Stability by persona set."""
    keys = ("pss", *_ACCURACIES, "flip_rate")
    shown = ("PSS", "mean", "worst", "best", "plain", "flips")
    rows = [
        [name, len(content["per_persona"]), *(estimate(content, key) for key in keys)]
        for name, content in _by_set(stabilities)
    ]
    columns = {"personas": "", "number": "d"} | dict.fromkeys(shown, ".3f")
    return table(columns, rows, "Stability")


# Figure -> where stability.json has it, its key and its meaning.
_MORE = {
    "PSS, corrected": ("corrected", "pss", "without the noise of few problems, which lowers PSS"),
    "Worst persona minus none": ("", "worst_minus_none", "what a persona costs at most"),
    "the same, corrected": ("corrected", "worst_minus_none", "without the noise of few problems"),
    "Personas that hurt": ("hurt", "share", "share that is significantly worse than none (Holm)"),
    "Verdicts alike (kappa)": ("agreement.verdict", "kappa", "right on the same problems; 1: all"),
    "Answers alike (kappa)": ("agreement.answer", "kappa", "the same answers, wrong ones too"),
    "Worst-case utility": (
        "principled",
        "worst_case_utility",
        "the worst neutral persona minus none",
    ),
    "Expertise advantage": ("principled", "expertise_advantage", "expert personas minus none"),
}


def more_table(
    stabilities: Mapping[str, Mapping], apart: Mapping[str, Mapping] | None = None
) -> dict:
    """More than PSS of each stability.json that has it: a row for each figure that one of them has.

    apart: `compare_policies` of the two, which adds a column with the difference where it has it.
    """
    columns = {"measure": ""} | {name or "value": ".3f" for name in stabilities}
    columns |= {"difference": "+.3f"} if apart else {}
    rows = []
    for label, (place, key, meaning) in _MORE.items():
        cells = []
        for stability in stabilities.values():
            of = stability if "corrected" in stability else {}  # older ones have none of these
            for part in filter(None, place.split(".")):
                of = of.get(part, {})
            cells.append(estimate(of, key))
        if any(cells):
            known = estimate(apart.get(key, {}), "difference") if apart and not place else None
            rows.append([label, *cells, *([known] if apart else []), meaning])
    return table(columns | {"what it is": ""}, rows, "More than PSS")


def kinds_table(stabilities: Mapping[str, Mapping]) -> dict:
    """The main figures by kind of persona, of each stability.json that has several kinds."""
    keys = ("pss", "accuracy_mean", "accuracy_worst", "worst_minus_none")
    rows = []
    for policy, stability in stabilities.items():
        kinds = stability.get("by_kind", {})
        for kind, of in kinds.items() if len(kinds) > 1 else ():
            cells = [estimate(of, key) for key in keys]
            name = f"{_prefix(policy, stabilities)}{kind}"
            rows.append([name, len(of["per_persona"]), *cells, of["hurt"]["share"]])
    formats = {"PSS": ".3f", "mean": ".3f", "worst": ".3f", "worst - none": "+.3f", "hurt": ".2f"}
    columns = {"kind of persona": "", "number": "d"} | formats
    return table(columns, rows, "By kind of persona")


def samples_table(stabilities: Mapping[str, Mapping]) -> dict:
    """pass@k, average@k and majority@k by persona set, of each stability.json that has them.

    average@k is not shown again as pass@1 and majority@1.
    """
    keys, shown = ("mean", "worst", "no_persona"), ("mean", "worst", "plain")
    rows = [
        [f"{name}, {measure}", *(estimate(figures, key) for key in keys)]
        for name, content in _by_set(stabilities)
        for measure, figures in content.get("at_k", {}).items()
        if not measure.endswith("@1")
    ]
    return table({"personas": ""} | dict.fromkeys(shown, ".3f"), rows, "Several answers")


def lottery_table(stabilities: Mapping[str, Mapping]) -> dict:
    """The persona lottery by persona set, of each stability.json that has it."""
    most = max(len(stability["per_persona"]) for stability in stabilities.values())
    drawn = [k for k in _DRAWN if k < most] + [most]
    rows = []
    for name, content in _by_set(stabilities):
        for side in ("best", "worst") if "lottery" in content else ():
            expected = content["lottery"][f"expected_{side}"]
            cells = [expected[k - 1] if k <= len(expected) else None for k in drawn]
            rows.append([f"{name}, {side}", *cells])
    columns = {"personas": ""} | {f"k = {k}": ".3f" for k in drawn}
    return table(columns, rows, "Persona lottery: expected accuracy of k personas drawn")


def effects_table(stabilities: Mapping[str, Mapping]) -> dict:
    """The personas that hurt most, of each stability.json that has them."""
    rows = []
    for policy, stability in stabilities.items():
        for entry in stability.get("persona_effects", [])[:_HURTING]:
            name = f"{_prefix(policy, stabilities)}{entry['persona']}"
            cells = (entry["accuracy"], estimate(entry, "effect"), entry["p"], entry["p_adjusted"])
            rows.append([name, *cells])
    formats = {"accuracy": ".3f", "minus plain": "+.3f", "p": ".2g", "p adjusted": ".2g"}
    return table({"persona": ""} | formats, rows, "Personas that hurt most (p adjusted by Holm)")


def fidelity_table(fidelities: Mapping[str, Mapping]) -> dict:
    """Fidelity by the exact rule, by persona set."""
    tasks = list(dict.fromkeys(task for of in fidelities.values() for task in of["by_task"]))
    rows = [
        [name, *(estimate(content["by_task"].get(task, {}), "fidelity") for task in tasks)]
        for name, content in _by_set(fidelities)
    ]
    columns = {"personas": ""} | dict.fromkeys(tasks, ".3f")
    return table(columns, rows, "Fidelity by the exact rule")


_JUDGE_FREE = {  # column -> where its figure is in a task's, its key and format
    "identified": (["identification"], "share", ".3f"),
    "chance": (["identification"], "chance", ".3f"),
    "gain, nats/token": (["gain_per_token"], "gain", "+.3f"),
    "margin": (["gain_per_token"], "margin", "+.3f"),
    "style distance, bits": (["style_distance"], "distance", ".3f"),
    "AUC against the rule": (["agreement", "gain"], "auc", ".3f"),
}


def judge_free_table(by_task: Mapping[str, Mapping]) -> dict:
    """A row for each entry of `by_task`; columns without a figure are left out."""
    columns, cells = {"task": ""}, []
    for title, (path, key, spec) in _JUDGE_FREE.items():
        entries = list(by_task.values())
        for part in path:
            entries = [entry.get(part) or {} for entry in entries]
        if any(entries):
            columns[title] = spec
            cells.append([estimate(entry, key) for entry in entries])
    return table(columns, list(zip(by_task, *cells, strict=True)), "Fidelity without a judge")


def tasks_of(judged: Mapping[str, Mapping]) -> dict[str, Mapping]:
    """The judge_free.json of policies by task and policy, for `judge_free_table`."""
    tasks = dict.fromkeys(task for measured in judged.values() for task in measured["by_task"])
    return {
        f"{_prefix(policy, judged)}{task}": measured["by_task"][task]
        for task in tasks
        for policy, measured in judged.items()
        if task in measured["by_task"]
    }


def has_sets(result: Mapping) -> bool:
    """Whether a stability.json or fidelity.json has several persona sets."""
    return len(result.get("by_set", {})) > 1


def _by_set(results: Mapping[str, Mapping]) -> Iterator[tuple[str, Mapping]]:
    """Name and content of each persona set; where there are several, of all together too."""
    for policy, result in results.items():
        sets = dict(result.get("by_set") or {"together": result})
        if has_sets(result):
            sets["together"] = result
        for name, content in sets.items():
            yield f"{_prefix(policy, results)}{name}", content


def _prefix(policy: str, policies: Mapping) -> str:
    return f"{policy}: " if len(policies) > 1 else ""
