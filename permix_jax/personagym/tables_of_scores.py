"""What judges said, as a table to print."""

from collections.abc import Mapping

from permix_jax.report.overview import judge_free_table
from permix_jax.report.tables import as_text, text_table, with_interval


def overview(summary: Mapping) -> str:
    """The content of summary.json: tasks by judge, what could not be read, agreement."""
    judges = summary["by_judge"]
    rows = [
        [
            task["task"],
            with_interval(task, "score"),
            *(_number(judge["by_task"][task["task"]]) for judge in judges),
            f"{task['n']} of {task['asked']}",
        ]
        for task in summary["by_task"]
    ]
    read, asked = (sum(judge[name] for judge in judges) for name in ("n", "asked"))
    scores = [_number(judge["persona_score"]) for judge in judges]
    rows.append(
        ["PersonaScore", with_interval(summary, "persona_score"), *scores, f"{read} of {asked}"]
    )
    header = ("task", "score", *(judge["judge"] for judge in judges), "scores read")
    lines = [
        f"PersonaGym: {summary['answers']} answers under {summary['personas']} personas",
        text_table(header, rows),
        "score: 1 to 5, the mean over judges; intervals (95 %) are over personas",
    ]
    if agreement := summary["agreement"]:
        alpha = with_interval(agreement, "krippendorff_alpha")
        lines.append(f"agreement of judges: Krippendorff's alpha {alpha}")
    return "\n".join(lines)


def judge_free_overview(figures: Mapping) -> str:
    """The content of judge_free.json: whose personas the reference recognises."""
    table = judge_free_table({**figures["by_task"], "all tasks": figures})
    return "\n".join(
        [
            f"PersonaGym without a judge: {figures['n']} answers under {figures['personas']} "
            f"personas, by the likelihoods of {figures['reference']}",
            text_table(*as_text(table)),
            f"identified: share of answers likeliest under their own persona, of "
            f"{figures['candidates']}; intervals (95 %) are over personas",
        ]
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
