"""Grades completions off the main thread, the hard ones in processes of their own."""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from permix_jax.rewards.pool import ERROR, TIMEOUT, UNREADABLE, Pool, Verdict
from permix_jax.tasks.problem import Grade, Problem, Undecided

MAX_REMEMBERED = 100_000


class Grades(NamedTuple):
    """`correct`: f32 [N], 1, 0, or NaN where the gold answer cannot be read.

    `metrics`, of this call: verifier/timeouts, verifier/errors and verifier/unparseable_gold count
    completions; verifier/symbolic_share is the share of them that the rule left undecided.
    """

    correct: np.ndarray
    metrics: dict[str, float]


def join_grades(parts: Sequence[Grades]) -> Grades:
    """The grades of all parts, one after another, as one batch."""
    correct = np.concatenate([part.correct for part in parts])
    sizes = [len(part.correct) for part in parts]
    metrics = {name: sum(part.metrics[name] for part in parts) for name in parts[0].metrics}
    shares = [part.metrics["verifier/symbolic_share"] for part in parts]
    metrics["verifier/symbolic_share"] = float(np.dot(shares, sizes) / max(1, len(correct)))
    return Grades(correct, metrics)


class Verifier:
    """Grades batches of completions in a thread of its own; close it, or use it in a `with`.

    Args:
      rule: (completion, problem) -> Grade; see `permix_jax.rewards.grade`.
      workers: grading processes; they start at once, so that they are warm when the first batch
        is there. With 0 the rule has to decide everything itself.
      item_seconds: what one undecided pair may take; a longer one scores 0.
      batch_seconds: what all undecided pairs of a batch may take; what is left then scores 0.
      tasks_per_worker: a process is replaced after so many pairs.
    """

    def __init__(
        self,
        rule: Callable[[str, Problem], Grade],
        workers: int = 2,
        item_seconds: float = 5.0,
        batch_seconds: float = 60.0,
        tasks_per_worker: int = 2000,
    ):
        self._rule, self._batch_seconds = rule, batch_seconds
        self._pool = Pool(workers, item_seconds, tasks_per_worker) if workers else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verifier")
        self._remembered: OrderedDict[Undecided, Verdict] = OrderedDict()

    def submit(self, texts: Sequence[str], problems: Sequence[Problem]) -> "Future[Grades]":
        """Grades texts[i] as an answer to problems[i]; what the rule raises, the future raises."""
        if len(texts) != len(problems):
            raise ValueError(f"{len(texts)} texts for {len(problems)} problems; give one for each")
        return self._thread.submit(self._grade, list(texts), list(problems))

    def close(self) -> None:
        """Ends the workers; a batch that is under way fails. Idempotent."""
        if self._pool:
            self._pool.close()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _grade(self, texts: list[str], problems: list[Problem]) -> Grades:
        grades = [self._rule(*each) for each in zip(texts, problems, strict=True)]
        undecided = [grade for grade in grades if isinstance(grade, Undecided)]
        verdicts = self._verdicts(undecided)
        final = [verdicts.get(g) if isinstance(g, Undecided) else g for g in grades]
        correct = np.array([_score(verdict) for verdict in final], np.float32)
        metrics = {
            "verifier/timeouts": final.count(TIMEOUT),
            "verifier/errors": final.count(ERROR),
            "verifier/unparseable_gold": int(np.isnan(correct).sum()),
            "verifier/symbolic_share": len(undecided) / max(1, len(grades)),
        }
        return Grades(correct, {name: float(value) for name, value in metrics.items()})

    def _verdicts(self, undecided: list[Undecided]) -> dict[Undecided, Verdict]:
        """Each pair is graded once, for a group of completions repeats its answers."""
        distinct = list(dict.fromkeys(undecided))
        new = [pair for pair in distinct if pair not in self._remembered]
        if new and self._pool is None:
            raise ValueError(
                f"the rule left {new[0].answer[:40]!r} undecided, but workers is 0; use 1 or more"
            )
        fresh = (
            dict(zip(new, self._pool.grade(new, self._batch_seconds), strict=True)) if new else {}
        )
        verdicts = {pair: self._remembered[pair] for pair in distinct if pair not in fresh}
        for pair in distinct:
            # A timeout tells of the machine as much as of the pair, and is not remembered.
            if pair not in fresh or fresh[pair] not in (TIMEOUT, ERROR):
                self._remembered[pair] = fresh.get(pair, verdicts.get(pair))
                self._remembered.move_to_end(pair)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return verdicts | fresh


def _score(verdict: Verdict | float) -> float:
    if verdict == UNREADABLE:
        return math.nan
    return 0.0 if verdict in (TIMEOUT, ERROR) else float(verdict)
