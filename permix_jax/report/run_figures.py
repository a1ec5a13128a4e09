"""The measures of a finished run, with resamples for intervals over seeds and problems."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from permix_jax.core.randomness import generator
from permix_jax.evaluation.results import Evaluation, read_best, read_evaluations, read_json
from permix_jax.stats.paired import Graded
from permix_jax.stats.stability import (
    accuracy_figures,
    on_decided_problems,
    pss_formula,
)
from permix_jax.stats.statistics import bootstrap_weights, pooled_means

STABILITY = {  # measure -> its key in stability.json
    "PSS": "pss",
    "worst": "accuracy_worst",
    "mean": "accuracy_mean",
    "plain": "accuracy_no_persona",
}
_FIDELITY = {"role-play": "role_play", "arithmetic": "arithmetic"}
MEASURES = (*STABILITY, *_FIDELITY, "KL")
_RESAMPLES = 1000


class PolicyMeasures(NamedTuple):
    """The MEASURES of one policy.

    values: NaN where a measure is not known.
    resampled: [_RESAMPLES] over the items; NaN where they are not known. All policies share the
      draws, so that two that were asked the same are paired.
    items: what the policy was asked; None: not known.
    """

    values: dict[str, float]
    resampled: dict[str, np.ndarray]
    items: dict[str, tuple | None]


@dataclass(frozen=True)
class Run:
    """A finished run, with all its evaluations by step."""

    workdir: Path
    name: str
    preset: str
    config: Mapping[str, Any]
    base: PolicyMeasures | None
    trained: PolicyMeasures
    evaluations: Sequence[Evaluation]

    @property
    def seed(self) -> int:
        return self.config["seed"]


def read_run(workdir: Path) -> Run:
    """Raises FileNotFoundError or ValueError where the run has no evaluation of its last step."""
    evaluations = read_evaluations(workdir)
    record = read_json(workdir / "config.json")
    config, last = record["config"], evaluations[-1].step
    steps = config.get("train", {}).get("steps", last)
    steps = read_best(workdir).get("stopped_at") or steps
    if last == 0 or last < steps:
        raise ValueError(
            f"{workdir}: the last evaluation is of step {last}, train.steps is {steps}; "
            "run launch/train.py to its end"
        )
    first, pss = evaluations[0], config.get("eval", {}).get("pss", "min_over_max")
    return Run(
        workdir=workdir,
        name=record["name"],
        preset=record.get("preset", ""),
        config=config,
        base=_measures(first, pss) if first.step == 0 else None,
        trained=_measures(evaluations[-1], pss),
        evaluations=evaluations,
    )


def _measures(evaluation: Evaluation, pss: str) -> PolicyMeasures:
    kl = evaluation.folder / "kl.json"
    figures = [evaluation.stability[key] for key in STABILITY.values()]
    figures += [evaluation.fidelity_of(task).get("fidelity") for task in _FIDELITY.values()]
    figures.append(read_json(kl)["kl"] if kl.is_file() else None)
    values = dict(zip(MEASURES, map(_number, figures), strict=True))
    resampled = dict.fromkeys(MEASURES, np.full(_RESAMPLES, np.nan))
    items: dict[str, tuple | None] = dict.fromkeys(MEASURES)

    answers = read_answers(evaluation.rows())
    if "problems" in answers:
        asked = answers["problems"]
        graded, weights = asked.graded(), _weights("problems", len(asked.problems))
        drawn = accuracy_figures(
            pooled_means(graded.correct, weights),
            pooled_means(graded.plain[None], weights)[:, 0],
            pss_formula(pss),
        )
        resampled |= {name: drawn[key] for name, key in STABILITY.items()}
        items |= dict.fromkeys(STABILITY, (asked.personas, asked.problems))
    for name, task in (("role-play", "role_play"), ("arithmetic", "problems")):
        if np.isfinite(values[name]) and task in answers:
            asked = answers[task]
            weights = _weights(task, len(asked.problems))
            under_persona = [i for i, persona in enumerate(asked.personas) if persona is not None]
            resampled[name] = pooled_means(asked.in_style[under_persona], weights).mean(axis=-1)
            items[name] = (asked.personas, asked.problems)
    return PolicyMeasures(values, resampled, items)


class Answers(NamedTuple):
    """All answers of one kind: `correct` and `in_style` f64 [persona, problem, sample], NaN where
    they are not known. Persona None, the plain prompt, comes first if it was asked."""

    personas: tuple[str | None, ...]
    problems: tuple[str, ...]
    correct: np.ndarray
    in_style: np.ndarray

    def graded(self) -> Graded:
        """On decided problems; the answers must include those to the plain prompt."""
        correct = on_decided_problems(self.correct)
        return Graded(correct[1:], correct[0])


def read_answers(rows: Sequence[Mapping]) -> dict[str, Answers]:
    """The rows of completions.jsonl by task, in any order. Problems and personas are sorted."""
    result = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        personas = sorted({r["persona"] for r in of_task}, key=lambda p: (p is not None, p))
        problems = sorted({row["problem"] for row in of_task})
        samples = sorted({row.get("sample", 0) for row in of_task})
        axes = [
            {name: i for i, name in enumerate(names)} for names in (personas, problems, samples)
        ]
        arrays = np.full((2, *map(len, axes)), np.nan)
        for row in of_task:
            keys = (row["persona"], row["problem"], row.get("sample", 0))
            place = tuple(axis[key] for axis, key in zip(axes, keys, strict=True))
            for i, field in enumerate(("correct", "in_style")):
                arrays[(i, *place)] = _number(row.get(field))
        result[task] = Answers(tuple(personas), tuple(problems), *arrays)
    return result


def _weights(kind: str, items: int) -> np.ndarray:
    return bootstrap_weights(items, _RESAMPLES, generator(0, f"compare/{kind}"))


def _number(value: Any) -> float:
    return float("nan") if value is None else float(value)
