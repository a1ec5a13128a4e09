"""Which personas lose fidelity: its change under each, by the base's accuracy under it.

Rewards tilt a policy towards the styles in which it is right (docs/method.md). So the personas with
the lowest accuracy of the base should lose most fidelity.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from permix_jax.report.run_figures import Run
from permix_jax.report.tables import text_table
from permix_jax.stats.statistics import t_interval


class ByCompetence(NamedTuple):
    """correlation: Pearson's, over personas, of the base's accuracy and the change of fidelity; NaN
    where one is constant. weaker, stronger: the mean change over the half of the personas with the
    lower and the higher accuracy. The middle one of an odd number is in neither.
    """

    correlation: float
    weaker: float
    stronger: float


def by_competence(accuracy: np.ndarray, change: np.ndarray) -> ByCompetence:
    """`accuracy` [A] is the base's, `change` [A] that of fidelity, for A >= 2 personas."""
    half, order = len(accuracy) // 2, np.argsort(accuracy)
    varies = np.ptp(accuracy) > 0 and np.ptp(change) > 0
    return ByCompetence(
        float(np.corrcoef(accuracy, change)[0, 1]) if varies else np.nan,
        float(change[order[:half]].mean()),
        float(change[order[-half:]].mean()),
    )


def competence_table(runs: Sequence[Run]) -> str:
    """A row for each method and kind of prompt: means over seeds and their 95 % t intervals.

    Raises ValueError where a run has no evaluation of its base, or no fidelity by persona.
    """
    changes = defaultdict(list)
    for run in runs:
        before, after = run.evaluations[0], run.evaluations[-1]
        if before.step or not before.fidelity or not after.fidelity:
            raise ValueError(
                f"{run.workdir}: no fidelity by persona of base and trained policy; leave out "
                "--competence, which is for runs of the embedded world"
            )
        accuracy = _by_persona(before.stability["per_persona"], "accuracy")
        for task in before.fidelity["by_task"]:
            base, trained = (
                _by_persona(e.fidelity_of(task)["per_persona"], "fidelity") for e in (before, after)
            )
            changes[run.name, task.replace("_", "-")].append(
                by_competence(accuracy, trained - base)
            )
    rows = [
        [name, task, str(len(each)), *(_cell(values) for values in zip(*each, strict=True))]
        for (name, task), each in changes.items()
    ]
    header = ["fidelity of", "on", "seeds", "correlation", "weaker half", "stronger half"]
    return "\n".join([text_table(header, rows), *_LEGEND])


_LEGEND = (
    "change of fidelity by persona: its correlation with the base's accuracy under it, and its",
    "mean over the personas that the base does worse, and better, under; ± 95 % over seeds",
)


def _by_persona(entries: Sequence[dict], key: str) -> np.ndarray:
    """Values in the order of the personas' names, which all evaluations share."""
    return np.array([entry[key] for entry in sorted(entries, key=lambda e: e["persona"])])


def _cell(values: Sequence[float]) -> str:
    mean, half = t_interval(values)
    return f"{mean:+.3f}" + ("" if np.isnan(half) else f" ±{half:.3f}")
