"""PersonaGym's figures from judges' scores, and their text: PersonaScore, intervals, agreement.

Agreement beyond chance is Krippendorff's alpha ("Computing Krippendorff's Alpha-Reliability",
2011). Axes: J judge, T task, P persona, A answer (within persona and task), R resample, U unit
(what is rated), V value.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from permix_jax.report.overview import judge_free_table
from permix_jax.report.tables import as_text, cell_text, text_table, with_interval
from permix_jax.stats.statistics import bootstrap_weights, percentile_interval, pooled_means

_SCALE = np.arange(1.0, 6.0)


def summarise_scores(
    rows: Sequence[Mapping], tasks: Sequence[str], rng: np.random.Generator, resamples: int = 2000
) -> dict:
    """The content of summary.json: plain floats, lists and dicts, None for what is not defined.

    A judge's score of a task is the mean over the scores that could be read, and a task's score the
    mean over judges. PersonaScore is the mean over `tasks`, None if one of them has no score.
    Intervals are of the bootstrap over personas. Every judge has a row for every answer.
    """
    judges = list(dict.fromkeys(row["judge"] for row in rows))
    personas = list(dict.fromkeys(row["persona"] for row in rows))
    scores = _array(rows, judges, tasks, personas)
    weights = bootstrap_weights(len(personas), resamples, rng)

    by_judge = _task_means(scores, np.ones((1, len(personas))))[0]  # [J, T]
    resampled = _task_means(scores, weights)  # [R, J, T]
    by_task, task_resamples = _mean_of_defined(by_judge, 0), _mean_of_defined(resampled, 1)
    per_persona = _mean_of_defined(_task_means(scores, np.eye(len(personas))), 1).mean(axis=-1)
    return {
        "persona_score": _plain(by_task.mean()),
        "persona_score_ci95": _interval(task_resamples.mean(axis=-1), personas),
        "personas": len(personas),
        "answers": len(rows) // len(judges),
        "by_task": [
            {
                "task": task,
                "score": _plain(by_task[t]),
                "score_ci95": _interval(task_resamples[:, t], personas),
                "n": int((~np.isnan(scores[:, t])).sum()),
                "asked": sum(row["task"] == task for row in rows),
            }
            for t, task in enumerate(tasks)
        ],
        "by_judge": [
            _judge_entry([row for row in rows if row["judge"] == name], tasks, by_judge[j])
            for j, name in enumerate(judges)
        ],
        "agreement": _agreement(scores, weights) if len(judges) > 1 else None,
        "per_persona": [
            {"persona": persona, "persona_score": _plain(score)}
            for persona, score in zip(personas, per_persona, strict=True)
        ],
    }


def scores_text(summary: Mapping) -> str:
    """The content of summary.json: scores by task and judge, how many were read, agreement."""
    judges = summary["by_judge"]
    header = ["task", "score", *(judge["judge"] for judge in judges), "scores read"]
    rows = [
        [
            task["task"],
            with_interval(task, "score"),
            *(cell_text(judge["by_task"][task["task"]], ".3f") for judge in judges),
            f"{task['n']} of {task['asked']}",
        ]
        for task in summary["by_task"]
    ]
    read, asked = (sum(judge[name] for judge in judges) for name in ("n", "asked"))
    scores = [cell_text(judge["persona_score"], ".3f") for judge in judges]
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
    return (
        f"PersonaGym without a judge: {content['n']} answers under {content['personas']} personas, "
        f"by the likelihoods of {content['reference']}\n{text_table(*as_text(table))}\n"
        f"identified: share of answers likeliest under their own persona, of "
        f"{content['candidates']}; intervals (95 %) are over personas"
    )


def _judge_entry(rows: Sequence[Mapping], tasks: Sequence[str], means: np.ndarray) -> dict:
    readable = sum(row["score"] is not None for row in rows)
    return {
        "judge": rows[0]["judge"],
        "persona_score": _plain(means.mean()),
        "by_task": {task: _plain(mean) for task, mean in zip(tasks, means, strict=True)},
        "n": readable,
        "asked": len(rows),
        "unreadable": len(rows) - readable,
        "unreadable_share": 1 - readable / len(rows),
        "truncated": sum(row["truncated"] for row in rows),
        "refused": sum(row["reply"] is None for row in rows),
    }


def _agreement(scores: np.ndarray, weights: np.ndarray) -> dict:
    """Alpha on the interval scale, because scores are averaged, and on the ordinal."""
    judges, _, personas, _ = scores.shape
    units = np.moveaxis(scores, 2, 1).reshape(judges, -1)  # [J, P * T * A]
    shape = (personas, -1, _SCALE.size, _SCALE.size)
    pairs = coincidences(units, _SCALE).reshape(shape).sum(axis=1)  # [P, V, V]
    resampled = alpha(np.tensordot(weights, pairs, axes=1), _SCALE)
    return {
        "krippendorff_alpha": _plain(alpha(pairs.sum(axis=0), _SCALE)),
        "krippendorff_alpha_ci95": _interval(resampled, range(personas)),
        "krippendorff_alpha_ordinal": _plain(alpha(pairs.sum(axis=0), _SCALE, ordinal=True)),
        "answers": int(((~np.isnan(units)).sum(axis=0) > 1).sum()),
    }


def coincidences(ratings: np.ndarray, values: np.ndarray) -> np.ndarray:
    """How often each pair of `values` [V] occurs in each unit, float [U, V, V].

    `ratings` is float [J, U], NaN where a judge gave none. A pair of judges counts
    1 / (judges of the unit - 1), so that a unit weighs as much as it has ratings.
    """
    counts = (ratings.T[:, :, None] == values).sum(axis=1).astype(float)  # [U, V]
    pairs = counts[:, :, None] * (counts[:, None, :] - np.eye(len(values)))
    return pairs / np.maximum(counts.sum(axis=1) - 1, 1)[:, None, None]


def alpha(pairs: np.ndarray, values: np.ndarray, ordinal: bool = False) -> np.ndarray:
    """Alpha of coincidences [..., V, V], summed over units, of `values` [V].

    It is 1 for full agreement, 0 for that of chance, negative for less than that, and NaN where no
    unit has two ratings or all ratings are equal. Two values are as far apart as the square of
    their difference or, on the ordinal scale, of that of their middle ranks.
    """
    totals = pairs.sum(axis=-1)
    number = totals.sum(axis=-1)
    places = np.cumsum(totals, axis=-1) - totals / 2 if ordinal else values
    difference = (places[..., :, None] - places[..., None, :]) ** 2
    observed = (pairs * difference).sum(axis=(-2, -1))
    expected = (totals[..., :, None] * totals[..., None, :] * difference).sum(axis=(-2, -1))
    undefined = np.full(np.shape(expected), np.nan)
    return 1 - np.divide((number - 1) * observed, expected, out=undefined, where=expected > 0)


def _array(rows, judges, tasks, personas) -> np.ndarray:
    """Scores as float [J, T, P, A]; NaN where unreadable, or where a persona has fewer answers."""
    cells = defaultdict(list)
    for row in rows:
        score = np.nan if row["score"] is None else row["score"]
        cells[row["judge"], row["task"], row["persona"]].append(score)
    array = np.full((len(judges), len(tasks), len(personas), max(map(len, cells.values()))), np.nan)
    for (judge, task, persona), values in cells.items():
        place = judges.index(judge), tasks.index(task), personas.index(persona)
        array[place][: len(values)] = values
    return array


def _task_means(scores: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Scores [J, T, P, A] and weights [R, P] -> means [R, J, T]."""
    means = pooled_means(scores.reshape(-1, *scores.shape[2:]), weights)
    return means.reshape(-1, *scores.shape[:2])


def _mean_of_defined(means: np.ndarray, axis: int) -> np.ndarray:
    """The mean over judges whose mean is not NaN; NaN if there is none."""
    return np.ma.masked_invalid(means).mean(axis=axis).filled(np.nan)


def _interval(resampled: np.ndarray, personas) -> list[float] | None:
    """None for a single persona, or if no resample is defined."""
    defined = len(personas) > 1 and not np.isnan(resampled).all()
    return percentile_interval(resampled) if defined else None


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
