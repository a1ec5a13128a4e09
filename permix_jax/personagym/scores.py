"""PersonaGym's figures from judges' scores: task means, PersonaScore, intervals, agreement.

Axes: J judge, T task, P persona, A answer (within persona and task), R resample.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from permix_jax.personagym.agreement import alpha, coincidences
from permix_jax.stats.statistics import bootstrap_weights, percentile_interval, pooled_means

_SCALE = np.arange(1.0, 6.0)


def summarise_scores(
    rows: Sequence[Mapping], tasks: Sequence[str], rng: np.random.Generator, resamples: int = 2000
) -> dict:
    """The content of summary.json: plain floats, lists and dicts, None for what is not defined.

    A judge's score of a task is the mean over the scores that could be read, and a task's score the
    mean over judges. PersonaScore is the mean over `tasks`, None if one of them has no score.
    Intervals are of the bootstrap over personas.

    Args:
      rows: of scores.jsonl; every judge has a row for every answer.
    """
    judges = list(dict.fromkeys(row["judge"] for row in rows))
    personas = list(dict.fromkeys(row["persona"] for row in rows))
    scores = _array(rows, judges, tasks, personas)
    weights = bootstrap_weights(len(personas), resamples, rng)

    by_judge = _task_means(scores, np.ones((1, len(personas))))[0]  # [J, T]
    resampled = _task_means(scores, weights)  # [R, J, T]
    by_task, task_resamples = _mean_of_defined(by_judge, 0), _mean_of_defined(resampled, 1)
    per_persona = _mean_of_defined(_task_means(scores, np.eye(len(personas))), 1).mean(axis=-1)
    was_read = defaultdict(list)
    for row in rows:
        was_read[row["task"]].append(row["score"] is not None)
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
                "n": sum(was_read[task]),
                "asked": len(was_read[task]),
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
    """Krippendorff's alpha on the interval scale, because scores are averaged, and the ordinal."""
    judges, _, personas, _ = scores.shape
    units = np.moveaxis(scores, 2, 1).reshape(judges, -1)  # [J, P * T * A]
    shape = (personas, -1, _SCALE.size, _SCALE.size)
    pairs = coincidences(units, _SCALE).reshape(shape).sum(axis=1)  # [P, V, V]
    resampled = alpha(np.tensordot(weights, pairs, axes=1), _SCALE, "interval")
    return {
        "krippendorff_alpha": _plain(alpha(pairs.sum(axis=0), _SCALE, "interval")),
        "krippendorff_alpha_ci95": _interval(resampled, range(personas)),
        "krippendorff_alpha_ordinal": _plain(alpha(pairs.sum(axis=0), _SCALE, "ordinal")),
        "answers": int(((~np.isnan(units)).sum(axis=0) > 1).sum()),
    }


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
    judges, tasks = scores.shape[:2]
    means = pooled_means(scores.reshape(judges * tasks, *scores.shape[2:]), weights)
    return means.reshape(-1, judges, tasks)


def _mean_of_defined(means: np.ndarray, axis: int) -> np.ndarray:
    """The mean over judges whose mean is not NaN; NaN if there is none."""
    present = ~np.isnan(means)
    count = present.sum(axis=axis)
    total = np.where(present, means, 0.0).sum(axis=axis)
    return np.divide(total, count, out=np.full(np.shape(total), np.nan), where=count > 0)


def _interval(resampled: np.ndarray, personas) -> list[float] | None:
    """None for a single persona, or if no resample is defined."""
    if len(personas) < 2 or np.isnan(resampled).all():
        return None
    return percentile_interval(resampled)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
