"""The measures of a finished run, with resamples for intervals over seeds and problems."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from permix_jax.evaluation.results import Evaluation, read_best, read_evaluations, read_json
from permix_jax.report.answers import Measure, read_answers, unknown, weights_of
from permix_jax.report.more_figures import more_measures
from permix_jax.stats.stability import accuracy_figures, pss_formula, rescored
from permix_jax.stats.statistics import pooled_means

STABILITY = {  # measure -> its key in stability.json
    "PSS": "pss",
    "worst": "accuracy_worst",
    "mean": "accuracy_mean",
    "plain": "accuracy_no_persona",
}
# measure -> its kind of prompt in fidelity.json, and that in completions.jsonl
_FIDELITY = {"role-play": ("role_play", "role_play"), "arithmetic": ("arithmetic", "problems")}
MEASURES = (*STABILITY, *_FIDELITY, "KL")


class Policy(NamedTuple):
    """An evaluation of a run, and its measures by name: MEASURES and, with n > 1 answers to each
    problem, pass@n and majority@n, means over the personas.

    more, kinds: as `more_measures` has them.
    """

    evaluation: Evaluation
    measures: Mapping[str, Measure]
    more: Mapping[str, Measure]
    kinds: Mapping[str, Measure]

    def measure(self, name: str, part: str = "measures") -> Measure:
        """That of the name, of the field `part`; without a known value if the policy lacks it."""
        return getattr(self, part).get(name, Measure(np.nan, *unknown()))


@dataclass(frozen=True)
class Run:
    """A finished run, with all its evaluations by step. The base is None if it has no step 0.

    pss: the name of the formula that its scores are of.
    """

    workdir: Path
    name: str
    preset: str
    config: Mapping[str, Any]
    base: Policy | None
    trained: Policy
    evaluations: Sequence[Evaluation]
    pss: str

    @property
    def seed(self) -> int:
        return self.config["seed"]

    def method(self, name: str = "") -> str:
        """The run's method, or that of another name, with the run's preset."""
        return f"{name or self.name}:{self.preset}" if self.preset else name or self.name


def read_run(workdir: Path, pss: str | None = None) -> Run:
    """Raises FileNotFoundError or ValueError where the run has no evaluation of its last step.

    pss: name of the formula by which the score is read again; None: as it was evaluated.
    """
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
    if pss:
        formula = pss_formula(pss)
        evaluations = [replace(e, stability=rescored(e.stability, formula)) for e in evaluations]
    first, pss = evaluations[0], pss or formula_of(config)
    return Run(
        workdir=workdir,
        name=record["name"],
        preset=record.get("preset", ""),
        config=config,
        base=_policy(first, pss) if first.step == 0 else None,
        trained=_policy(evaluations[-1], pss),
        evaluations=evaluations,
        pss=pss,
    )


def formula_of(config: Mapping) -> str:
    """The name of the formula of a run's score."""
    return config.get("eval", {}).get("pss", "min_over_max")


def _policy(evaluation: Evaluation, pss: str) -> Policy:
    kl = evaluation.folder / "kl.json"
    values = {name: evaluation.stability[key] for name, key in STABILITY.items()}
    values["KL"] = read_json(kl)["kl"] if kl.is_file() else None
    answers, drawn, weights = read_answers(evaluation.rows()), {}, None
    if asked := answers.get("problems"):
        (correct, plain), weights = asked.graded(), weights_of("problems", asked)
        accuracy, alone = pooled_means(correct, weights), pooled_means(plain[None], weights)
        figures = accuracy_figures(accuracy, alone[:, 0], pss_formula(pss))
        drawn = {name: (figures[key], asked[:2]) for name, key in STABILITY.items()}
    for name, (task, kind) in _FIDELITY.items():
        values[name] = evaluation.fidelity_of(task).get("fidelity")
        if values[name] is not None and (asked := answers.get(kind)):
            in_style = asked.in_style[asked.personas[0] is None :]
            drawn[name] = (pooled_means(in_style, weights_of(kind, asked)).mean(axis=-1), asked[:2])
    for name, figures in _at_most(evaluation.stability).items():
        values[name] = figures["mean"]
        if asked := answers.get("problems"):
            by_problem = asked.at_most(name)[1:, :, None]
            drawn[name] = (pooled_means(by_problem, weights).mean(axis=-1), asked[:2])
    measures = {
        name: Measure(np.nan if values[name] is None else values[name], *drawn.get(name, unknown()))
        for name in dict.fromkeys([*MEASURES, *values])
    }
    more = more_measures(evaluation.stability, answers.get("problems"), weights, pss)
    return Policy(evaluation, measures, *more)


def _at_most(stability: Mapping) -> dict[str, Mapping]:
    """pass@n and majority@n of a stability.json; n is the number of answers to a problem."""
    figures = stability.get("at_k", {})
    n = next((name.partition("@")[2] for name in figures if name.startswith("average@")), "")
    return {name: figures[name] for name in (f"pass@{n}", f"majority@{n}") if name in figures}


def measures_of(policies: Iterable[Policy]) -> list[str]:
    """MEASURES, and the other measures that one of the policies has."""
    return list(dict.fromkeys([*MEASURES, *(name for of in policies for name in of.measures)]))
