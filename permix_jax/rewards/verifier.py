"""The verifier's thread: buys no verdict, but that sampling goes on while answers are graded."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np

from permix_jax.core.problem import Grade, Problem


class Grades(NamedTuple):
    """`correct`: f32 [N], 1, 0, or NaN where the gold answer states nothing.

    `metrics`, of this call: verifier/unparseable_gold counts the completions of the latter kind.
    """

    correct: np.ndarray
    metrics: dict[str, float]


def join_grades(parts: Sequence[Grades]) -> Grades:
    """The grades of all parts, one after another, as one batch."""
    correct = np.concatenate([part.correct for part in parts])
    return Grades(correct, {name: sum(p.metrics[name] for p in parts) for name in parts[0].metrics})


class Verifier(AbstractContextManager):
    """Grades batches of completions in a thread of its own; close it, or use it in a `with`.

    Args:
      rule: (completion, problem) -> Grade; see `permix_jax.rewards.grade`.
    """

    def __init__(self, rule: Callable[[str, Problem], Grade]):
        self._rule = rule
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verifier")

    def submit(self, texts: Sequence[str], problems: Sequence[Problem]) -> "Future[Grades]":
        """Grades texts[i] as an answer to problems[i]; what the rule raises, the future raises."""
        if len(texts) != len(problems):
            raise ValueError(f"{len(texts)} texts for {len(problems)} problems; give one for each")
        return self._thread.submit(self._grade, list(texts), list(problems))

    def close(self) -> None:
        """Waits for the batch that is under way; later ones are cancelled. Idempotent."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __exit__(self, *error: object) -> None:
        self.close()

    def _grade(self, texts: list[str], problems: list[Problem]) -> Grades:
        grades = [self._rule(*each) for each in zip(texts, problems, strict=True)]
        correct = np.array(grades, np.float32)
        return Grades(correct, {"verifier/unparseable_gold": float(np.isnan(correct).sum())})
