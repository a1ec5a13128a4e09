"""Finished runs side by side: methods over seeds, and PerMix-RLVR against plain RLVR."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from permix_jax.evaluation.results import Evaluation, read_evaluations, read_json
from permix_jax.evaluation.statistics import t_interval
from permix_jax.evaluation.tables import text_table

HEADER = ("method", "seeds", "PSS", "worst", "mean", "plain", "role-play", "arithmetic")


@dataclass(frozen=True)
class Run:
    """A finished run; `base` and `trained` hold the measures of HEADER, NaN where there is none."""

    workdir: Path
    name: str
    preset: str
    config: Mapping[str, Any]
    base: np.ndarray | None
    trained: np.ndarray

    @property
    def seed(self) -> int:
        return self.config["seed"]


def read_run(workdir: Path) -> Run:
    """Raises FileNotFoundError or ValueError where the run has no evaluation of its last step."""
    evaluations = read_evaluations(workdir)
    record = read_json(workdir / "config.json")
    config, last = record["config"], evaluations[-1].step
    steps = config.get("train", {}).get("steps", last)
    if last == 0 or last < steps:
        raise ValueError(
            f"{workdir}: the last evaluation is of step {last}, train.steps is {steps}; "
            "run launch/train.py to its end"
        )
    return Run(
        workdir=workdir,
        name=record["name"],
        preset=record.get("preset", ""),
        config=config,
        base=_measures(evaluations[0]) if evaluations[0].step == 0 else None,
        trained=_measures(evaluations[-1]),
    )


def compare(workdirs: Sequence[Path]) -> str:
    """The comparison as text: mean ± half-width of the 95 % Student-t interval over seeds.

    One row for the base policy (step 0) and for each method; where runs called "permix" and
    "rlvr" share seeds, one for their difference, paired by seed. Runs of another preset stand in
    rows of their own. The base policy of a seed is counted once, however many runs started there.

    Raises:
      FileNotFoundError, ValueError: a folder without a finished run, or two runs of one method
        with the same seed.
    """
    runs = [read_run(Path(workdir)) for workdir in workdirs]
    rows, notes = [], []
    for preset in dict.fromkeys(run.preset for run in runs):
        suffix = f":{preset}" if preset else ""
        methods = defaultdict(list)
        for run in runs:
            if run.preset == preset:
                methods[run.name].append(run)
        trained = {name: _by_seed(group) for name, group in sorted(methods.items())}

        if base := _base_by_seed([run for run in runs if run.preset == preset]):
            rows.append(_row(f"base{suffix}", base))
        rows += [_row(f"{name}{suffix}", by_seed) for name, by_seed in trained.items()]
        if difference := _difference(trained.get("permix", {}), trained.get("rlvr", {})):
            rows.append(_row(f"permix - rlvr{suffix}", difference, sign="+"))
        notes += [note for name, group in methods.items() if (note := _mixed(name, group))]
    legend = "mean ± half-width of the 95 % t-interval over seeds; differences are paired by seed"
    return "\n".join([text_table(HEADER, rows), legend, *notes])


def _measures(evaluation: Evaluation) -> np.ndarray:
    stability, by_task = evaluation.stability, (evaluation.fidelity or {}).get("by_task", {})
    keys = ("pss", "accuracy_worst", "accuracy_mean", "accuracy_no_persona")
    fidelities = [by_task.get(task, {}).get("fidelity") for task in ("role_play", "arithmetic")]
    return np.array([*(stability[key] for key in keys), *fidelities], float)


def _by_seed(runs: Sequence[Run]) -> dict[int, np.ndarray]:
    by_seed, seen = {}, {}
    for run in runs:
        if run.seed in seen:
            raise ValueError(
                f"{seen[run.seed]} and {run.workdir}: both are {run.name} with seed {run.seed}; "
                "leave one out"
            )
        seen[run.seed], by_seed[run.seed] = run.workdir, run.trained
    return by_seed


def _base_by_seed(runs: Sequence[Run]) -> dict[int, np.ndarray]:
    bases = defaultdict(list)
    for run in runs:
        if run.base is not None:
            bases[run.seed].append(run.base)
    return {seed: np.mean(measures, axis=0) for seed, measures in bases.items()}


def _difference(
    ours: Mapping[int, np.ndarray], theirs: Mapping[int, np.ndarray]
) -> dict[int, np.ndarray]:
    return {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}


def _row(name: str, by_seed: Mapping[int, np.ndarray], sign: str = "") -> list[str]:
    columns = zip(*by_seed.values(), strict=True)
    return [name, str(len(by_seed)), *(_cell(column, sign) for column in columns)]


def _cell(values: Sequence[float], sign: str) -> str:
    mean, half_width = t_interval(values)
    if np.isnan(mean):
        return "-"
    return f"{mean:{sign}.3f} ±{'    -' if np.isnan(half_width) else f'{half_width:.3f}'}"


def _mixed(name: str, runs: Sequence[Run]) -> str:
    """A warning where runs of one method differ in more than their seed."""
    configs = [dict(_flat(run.config)) for run in runs]
    fields = sorted({field for config in configs for field in config} - {"seed"})
    differing = [f for f in fields if any(c.get(f) != configs[0].get(f) for c in configs)]
    return f"note: the runs of {name} differ in {', '.join(differing)}" if differing else ""


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
