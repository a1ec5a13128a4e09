"""Grades completions off the main thread, the hard ones in processes of their own."""

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from permix_jax.core.problem import Grade, Problem, Undecided
from permix_jax.rewards.pool import ERROR, NO_TIME, TIMEOUT, Pool, Verdict

MAX_REMEMBERED = 100_000
RETRY_PATIENCE = 10  # times the seconds and steps that a pair has at first

_UNKNOWN = (TIMEOUT, NO_TIME, ERROR)


class Grades(NamedTuple):
    """`correct`: f32 [N], 1, 0, or NaN where the verdict is unknown.

    `metrics`, of this call, count the completions whose verdict is unknown, by cause:
    verifier/timeouts, verifier/errors (of a grading process) and verifier/unparseable_gold (the
    gold answer states nothing). verifier/undecided counts the completions that the rule left to the
    grading processes, and verifier/symbolic_share is their share of all.
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
      item_seconds: what one undecided pair may take; the verdict of a longer one is unknown. It
        is remembered, so that the pair does not take as long again.
      batch_seconds: what all undecided pairs of a batch may take; what is left then is unknown.
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
        # pair -> its verdict, and with how much patience it was sought
        self._remembered: OrderedDict[Undecided, tuple[Verdict, int]] = OrderedDict()

    def submit(
        self, texts: Sequence[str], problems: Sequence[Problem], retry: bool = False
    ) -> "Future[Grades]":
        """Grades texts[i] as an answer to problems[i]; what the rule raises, the future raises.

        With `retry` a pair whose verdict stays unknown is graded once more, alone, with
        RETRY_PATIENCE times the seconds and steps, whatever the batch has taken.
        """
        if len(texts) != len(problems):
            raise ValueError(f"{len(texts)} texts for {len(problems)} problems; give one for each")
        return self._thread.submit(self._grade, list(texts), list(problems), retry)

    def close(self) -> None:
        """Ends the workers; a batch that is under way fails. Idempotent."""
        if self._pool:
            self._pool.close()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> "Verifier":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _grade(self, texts: list[str], problems: list[Problem], retry: bool) -> Grades:
        grades = [self._rule(*each) for each in zip(texts, problems, strict=True)]
        undecided = [grade for grade in grades if isinstance(grade, Undecided)]
        verdicts = self._verdicts(undecided, retry)
        final = [verdicts.get(g) if isinstance(g, Undecided) else g for g in grades]
        correct = np.array([_score(verdict) for verdict in final], np.float32)
        timeouts, errors = final.count(TIMEOUT) + final.count(NO_TIME), final.count(ERROR)
        metrics = {
            "verifier/timeouts": timeouts,
            "verifier/errors": errors,
            "verifier/unparseable_gold": np.isnan(correct).sum() - timeouts - errors,
            "verifier/undecided": len(undecided),
            "verifier/symbolic_share": len(undecided) / max(1, len(grades)),
        }
        return Grades(correct, {name: float(value) for name, value in metrics.items()})

    def _verdicts(self, undecided: list[Undecided], retry: bool) -> dict[Undecided, Verdict]:
        """Each pair is graded once, for a group of completions repeats its answers."""
        distinct = list(dict.fromkeys(undecided))
        new = [pair for pair in distinct if pair not in self._remembered]
        if new and self._pool is None:
            raise ValueError(
                f"the rule left {new[0].answer[:40]!r} undecided, but workers is 0; use 1 or more"
            )
        found = {pair: self._remembered[pair] for pair in distinct if pair in self._remembered}
        if new:
            verdicts = self._pool.grade(new, self._batch_seconds)
            found |= {pair: (verdict, 1) for pair, verdict in zip(new, verdicts, strict=True)}
        if retry:
            found |= self._retried(found)
        self._remember(found)
        return {pair: verdict for pair, (verdict, _) in found.items()}

    def _retried(
        self, found: dict[Undecided, tuple[Verdict, int]]
    ) -> dict[Undecided, tuple[Verdict, int]]:
        """Those whose verdict is unknown, each graded alone, but for what was so already."""
        return {
            pair: (*self._pool.grade([pair], math.inf, RETRY_PATIENCE), RETRY_PATIENCE)
            for pair, (verdict, patience) in found.items()
            if verdict in _UNKNOWN and patience < RETRY_PATIENCE
        }

    def _remember(self, found: dict[Undecided, tuple[Verdict, int]]) -> None:
        """All but what tells of the batch or of the machine, and not of the pair."""
        for pair, (verdict, patience) in found.items():
            if verdict not in (NO_TIME, ERROR):
                self._remembered[pair] = verdict, patience
                self._remembered.move_to_end(pair)
        while len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)


def _score(verdict: Verdict | float) -> float:
    return math.nan if verdict in _UNKNOWN else float(verdict)
