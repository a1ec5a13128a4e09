"""The answers of a finished evaluation as arrays, and a measure of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from permix_jax.core.randomness import generator
from permix_jax.stats.paired import Graded
from permix_jax.stats.samples import majority_at, pass_at
from permix_jax.stats.stability import on_decided_problems
from permix_jax.stats.statistics import bootstrap_weights
from permix_jax.stats.summary import numbers_of_stated

_RESAMPLES = 1000


class Measure(NamedTuple):
    """One of `run_figures.measures_of`, or of `more_figures`, of a policy.

    value: NaN where it is not known.
    resampled: [_RESAMPLES] over the items; NaN where they are not known. All policies share the
      draws, so that two that were asked the same are paired.
    items: the personas and problems that the policy was asked; None: not known.
    """

    value: float
    resampled: np.ndarray
    items: tuple | None


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


def unknown() -> tuple[np.ndarray, None]:
    """The resamples and items of a measure whose items are not known."""
    return np.full(_RESAMPLES, np.nan), None


def weights_of(kind: str, asked: Answers) -> np.ndarray:
    """[_RESAMPLES, problem], the same for all policies that were asked as many problems."""
    draws = generator(0, f"compare/{kind}")
    return bootstrap_weights(len(asked.problems), _RESAMPLES, draws)
