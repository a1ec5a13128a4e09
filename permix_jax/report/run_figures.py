"""The measures of a finished run, with resamples for intervals over seeds and problems."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from permix_jax.core.randomness import generator
from permix_jax.evaluation.results import Evaluation, read_best, read_evaluations, read_json
from permix_jax.stats.paired import Graded
from permix_jax.stats.samples import majority_at, pass_at
from permix_jax.stats.stability import accuracy_figures, on_decided_problems, pss_formula
from permix_jax.stats.statistics import bootstrap_weights, pooled_means
from permix_jax.stats.summary import numbers_of_stated

STABILITY = {  # measure -> its key in stability.json
    "PSS": "pss",
    "worst": "accuracy_worst",
    "mean": "accuracy_mean",
    "plain": "accuracy_no_persona",
}
# measure -> its kind of prompt in fidelity.json, and that in completions.jsonl
_FIDELITY = {"role-play": ("role_play", "role_play"), "arithmetic": ("arithmetic", "problems")}
MEASURES = (*STABILITY, *_FIDELITY, "KL")
_RESAMPLES = 1000
_UNKNOWN = (np.full(_RESAMPLES, np.nan), None)


class Measure(NamedTuple):
    """One of `measures_of` of a policy.

    value: NaN where it is not known.
    resampled: [_RESAMPLES] over the items; NaN where they are not known. All policies share the
      draws, so that two that were asked the same are paired.
    items: the personas and problems that the policy was asked; None: not known.
    """

    value: float
    resampled: np.ndarray
    items: tuple | None


class Policy(NamedTuple):
    """An evaluation of a run, and its measures by name: MEASURES and, with n > 1 answers to each
    problem, pass@n and majority@n, means over the personas."""

    evaluation: Evaluation
    measures: Mapping[str, Measure]

    def measure(self, name: str) -> Measure:
        """That of the name; one without a known value if the policy lacks it."""
        return self.measures.get(name, Measure(np.nan, *_UNKNOWN))


@dataclass(frozen=True)
class Run:
    """A finished run, with all its evaluations by step. The base is None if it has no step 0."""

    workdir: Path
    name: str
    preset: str
    config: Mapping[str, Any]
    base: Policy | None
    trained: Policy
    evaluations: Sequence[Evaluation]

    @property
    def seed(self) -> int:
        return self.config["seed"]

    def method(self, name: str = "") -> str:
        """The run's method, or that of another name, with the run's preset."""
        return f"{name or self.name}:{self.preset}" if self.preset else name or self.name


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
        base=_policy(first, pss) if first.step == 0 else None,
        trained=_policy(evaluations[-1], pss),
        evaluations=evaluations,
    )


def _policy(evaluation: Evaluation, pss: str) -> Policy:
    kl = evaluation.folder / "kl.json"
    values = {name: evaluation.stability[key] for name, key in STABILITY.items()}
    values["KL"] = read_json(kl)["kl"] if kl.is_file() else None
    answers, drawn = read_answers(evaluation.rows()), {}
    if asked := answers.get("problems"):
        (correct, plain), weights = asked.graded(), _weights("problems", asked)
        accuracy, alone = pooled_means(correct, weights), pooled_means(plain[None], weights)
        figures = accuracy_figures(accuracy, alone[:, 0], pss_formula(pss))
        drawn = {name: (figures[key], asked[:2]) for name, key in STABILITY.items()}
    for name, (task, kind) in _FIDELITY.items():
        values[name] = evaluation.fidelity_of(task).get("fidelity")
        if values[name] is not None and (asked := answers.get(kind)):
            in_style = asked.in_style[asked.personas[0] is None :]
            drawn[name] = (pooled_means(in_style, _weights(kind, asked)).mean(axis=-1), asked[:2])
    for name, figures in _at_most(evaluation.stability).items():
        values[name] = figures["mean"]
        if asked := answers.get("problems"):
            by_problem = asked.at_most(name)[1:, :, None]
            drawn[name] = (pooled_means(by_problem, weights).mean(axis=-1), asked[:2])
    measures = {
        name: Measure(np.nan if values[name] is None else values[name], *drawn.get(name, _UNKNOWN))
        for name in dict.fromkeys([*MEASURES, *values])
    }
    return Policy(evaluation, measures)


def _at_most(stability: Mapping) -> dict[str, Mapping]:
    """pass@n and majority@n of a stability.json; n is the number of answers to a problem."""
    figures = stability.get("at_k", {})
    n = next((name.partition("@")[2] for name in figures if name.startswith("average@")), "")
    return {name: figures[name] for name in (f"pass@{n}", f"majority@{n}") if name in figures}


def measures_of(policies: Iterable[Policy]) -> list[str]:
    """MEASURES, and the other measures that one of the policies has."""
    return list(dict.fromkeys([*MEASURES, *(name for of in policies for name in of.measures)]))


class Answers(NamedTuple):
    """All answers of one kind: `correct` and `in_style` f64 [persona, problem, sample], NaN where
    they are not known. Persona None, the plain prompt, comes first if it was asked.

    `stated`: int [persona, problem, sample], as in `stats/samples.py`; None where it is not known.
    """

    personas: tuple[str | None, ...]
    problems: tuple[str, ...]
    correct: np.ndarray
    in_style: np.ndarray
    stated: np.ndarray | None = None

    def at_most(self, name: str) -> np.ndarray:
        """ "pass@n" or "majority@n" of the n samples, [persona, problem], on decided problems."""
        correct = on_decided_problems(self.correct)
        samples = correct.shape[-1]
        if name.startswith("pass"):
            return pass_at(correct, samples)
        return majority_at(correct, self.stated, samples)

    def graded(self) -> Graded:
        """On decided problems; the answers must include those to the plain prompt."""
        correct = on_decided_problems(self.correct)
        return Graded(correct[1:], correct[0])


def read_answers(rows: Sequence[Mapping]) -> dict[str, Answers]:
    """The rows of completions.jsonl by task, in any order. Problems and personas are sorted."""
    result = {}
    for task in dict.fromkeys(row["task"] for row in rows):
        of_task = [row for row in rows if row["task"] == task]
        keys = [(row["persona"], row["problem"], row.get("sample", 0)) for row in of_task]
        axes, places = [], []
        for values in zip(*keys, strict=True):
            names = sorted(set(values), key=lambda name: (name is not None, name))
            place = {name: i for i, name in enumerate(names)}
            axes.append(tuple(names))
            places.append([place[value] for value in values])
        arrays = np.full((2, *map(len, axes)), np.nan)
        for i, field in enumerate(("correct", "in_style")):
            arrays[i][tuple(places)] = np.array([row.get(field) for row in of_task], float)
        stated = None
        if numbers := numbers_of_stated(of_task):
            stated = np.full(arrays.shape[1:], -1)
            stated[tuple(places)] = numbers
        result[task] = Answers(*axes[:2], *arrays, stated)
    return result


def _weights(kind: str, asked: Answers) -> np.ndarray:
    draws = generator(0, f"compare/{kind}")
    return bootstrap_weights(len(asked.problems), _RESAMPLES, draws)
