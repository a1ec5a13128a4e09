"""Grades completions off the main thread, the hard ones in processes of their own."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import NamedTuple

import numpy as np

from permix_jax.core.problem import Grade, Problem, Undecided
from permix_jax.rewards.pool import ERROR, NO_TIME, TIMEOUT, Decision, Pool

MAX_REMEMBERED = 100_000
RETRY_PATIENCE = 10  # times the seconds and steps that a pair has at first

UNKNOWN = (TIMEOUT, NO_TIME, ERROR)


class Grades(NamedTuple):
    """`correct`: f32 [N], 1, 0, or NaN where the verdict is unknown.

    `metrics`, of this call, count completions: those whose verdict is unknown, by cause, as
    verifier/timeouts, verifier/errors (of a grading process) and verifier/unparseable_gold (it
    states nothing); and those that the rule left to the grading processes, as verifier/undecided.
    verifier/symbolic_share is the share of the latter.
    """

    correct: np.ndarray
    metrics: dict[str, float]


def join_grades(parts: Sequence[Grades]) -> Grades:
    """The grades of all parts, one after another, as one batch."""
    correct = np.concatenate([part.correct for part in parts])
    metrics = {name: sum(part.metrics[name] for part in parts) for name in parts[0].metrics}
    metrics["verifier/symbolic_share"] = metrics["verifier/undecided"] / max(1, len(correct))
    return Grades(correct, metrics)


class Verifier(AbstractContextManager):
    """Grades batches of completions in a thread of its own; close it, or use it in a `with`.

    Args:
      rule: (completion, problem) -> Grade; see `permix_jax.rewards.grade`.
      workers: grading processes, which start at once; 0 if the rule decides everything itself.
      item_seconds: what one undecided pair may take; the verdict of a longer one is unknown. It
        is remembered, so that the pair does not take as long again.
      batch_seconds: what all undecided pairs of a batch may take; what is left then is unknown.
    """

    def __init__(
        self,
        rule: Callable[[str, Problem], Grade],
        workers: int = 2,
        item_seconds: float = 5.0,
        batch_seconds: float = 60.0,
    ):
        self._rule, self._batch_seconds = rule, batch_seconds
        self._pool = Pool(workers, item_seconds) if workers else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="verifier")
        # What is known of a pair, and with how much patience it was sought; the latest stand last.
        self._remembered: dict[Undecided, tuple[Decision, int]] = {}

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

    def decide(self, pairs: Iterable[Undecided], retry: bool = False) -> dict[Undecided, Decision]:
        """True or False for each pair, or one of UNKNOWN; waits for what was submitted before."""
        return self._thread.submit(self._decide, list(pairs), retry).result()

    def close(self) -> None:
        """Ends the workers; a batch that is under way fails. Idempotent."""
        if self._pool:
            self._pool.close()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def __exit__(self, *error: object) -> None:
        self.close()

    def _grade(self, texts: list[str], problems: list[Problem], retry: bool) -> Grades:
        grades = [self._rule(*each) for each in zip(texts, problems, strict=True)]
        undecided = [grade for grade in grades if isinstance(grade, Undecided)]
        decisions = self._decide(undecided, retry)
        final = [decisions[g] if isinstance(g, Undecided) else g for g in grades]
        correct = np.array([math.nan if d in UNKNOWN else float(d) for d in final], np.float32)
        unknown = Counter(decision for decision in final if decision in UNKNOWN)
        metrics = {
            "verifier/timeouts": unknown[TIMEOUT] + unknown[NO_TIME],
            "verifier/errors": unknown[ERROR],
            "verifier/unparseable_gold": np.isnan(correct).sum() - unknown.total(),
            "verifier/undecided": len(undecided),
            "verifier/symbolic_share": len(undecided) / max(1, len(grades)),
        }
        return Grades(correct, {name: float(value) for name, value in metrics.items()})

    def _decide(self, pairs: list[Undecided], retry: bool) -> dict[Undecided, Decision]:
        """Each pair is graded once, for a group of completions repeats its answers."""
        found = {pair: self._remembered.pop(pair, None) for pair in pairs}
        new = [pair for pair, known in found.items() if known is None]
        if new and self._pool is None:
            raise ValueError(
                f"the rule left {new[0].answer[:40]!r} undecided, but workers is 0; use 1 or more"
            )
        if new:
            decisions = self._pool.grade(new, self._batch_seconds)
            found |= {pair: (decision, 1) for pair, decision in zip(new, decisions, strict=True)}
        if retry:  # each alone, but for what was so already
            for pair, (decision, patience) in found.items():
                if decision in UNKNOWN and patience < RETRY_PATIENCE:
                    (decision,) = self._pool.grade([pair], math.inf, RETRY_PATIENCE)
                    found[pair] = decision, RETRY_PATIENCE
        # NO_TIME and ERROR tell of the batch or of the machine, and not of the pair.
        lasting = {p: known for p, known in found.items() if known[0] not in (NO_TIME, ERROR)}
        self._remembered |= lasting
        while len(self._remembered) > MAX_REMEMBERED:
            del self._remembered[next(iter(self._remembered))]
        return {pair: decision for pair, (decision, _) in found.items()}
