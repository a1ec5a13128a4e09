"""The results of PersonaGym as text for the terminal."""

from collections.abc import Mapping

from permix_jax.report.overview import judge_free_table
from permix_jax.report.tables import as_text, text_table, with_interval


def scores_text(summary: Mapping) -> str:
    """The content of summary.json: scores by task and judge, how many were read, agreement."""
    judges = summary["by_judge"]
    header = ["task", "score", *(judge["judge"] for judge in judges), "scores read"]
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
    total = with_interval(summary, "persona_score")
    rows.append(["PersonaScore", total, *scores, f"{read} of {asked}"])
    lines = [
        f"PersonaGym: {summary['answers']} answers under {summary['personas']} personas",
        text_table(header, rows),
        "score: 1 to 5, the mean over judges; intervals (95 %) are over personas",
    ]
    if agreement := summary["agreement"]:
        alpha = with_interval(agreement, "krippendorff_alpha")
        lines.append(f"agreement of judges: Krippendorff's alpha {alpha}")
    return "\n".join(lines)


def judge_free_text(content: Mapping) -> str:
    """The content of judge_free.json: how well the reference recognises the personas."""
    table = judge_free_table({**content["by_task"], "all tasks": content})
    return "\n".join(
        [
            f"PersonaGym without a judge: {content['n']} answers under {content['personas']} "
            f"personas, by the likelihoods of {content['reference']}",
            text_table(*as_text(table)),
            f"identified: share of answers likeliest under their own persona, of "
            f"{content['candidates']}; intervals (95 %) are over personas",
        ]
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
