"""Finds training problems that the test set has too, exactly or reworded; and doubles.

Two questions are the same word for word if they differ in case, spacing and sentence punctuation
alone; other signs count, for k > 0 and k < 0 are not the same. They are the same in other words if
their answers are equal and their sets of token 4-grams have a Jaccard index of at least SIMILAR.
Answers must be equal because many problems differ in a constant alone.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from permix_jax.core.problem import Problem
from permix_jax.rewards.grade import grade_answer

SIMILAR = 0.35
GRAM = 4

_SPACING = re.compile(r"[\s$.,?]|\\[,;:! ]|\\left\b|\\right\b")
_TOKEN = re.compile(r"[a-z]+|[0-9]+|[^\sa-z0-9]")


class Overlap(NamedTuple):
    """`kept`: training problems that the test set lacks. `exact`, `reworded`: how many it has."""

    kept: list[Problem]
    exact: int
    reworded: int


def without_overlap(train: Sequence[Problem], test: Sequence[Problem]) -> Overlap:
    """The training problems that do not occur in `test`; both have bare questions."""
    index = _GramIndex(test)
    asked = {question_key(problem) for problem in test}
    kept, exact = [], 0
    for problem in train:
        if question_key(problem) in asked:
            exact += 1
        elif not any(same_answer(problem, test[other]) for other in index.similar(problem)):
            kept.append(problem)
    return Overlap(kept, exact, len(train) - exact - len(kept))


def without_doubles(problems: Sequence[Problem]) -> list[Problem]:
    """The first problem of each question, without questions whose problems differ in the answer."""
    groups = defaultdict(list)
    for problem in problems:
        groups[question_key(problem)].append(problem)
    return [
        first
        for first, *others in groups.values()
        if all(same_answer(first, other) for other in others)
    ]


def question_key(problem: Problem) -> str:
    """A text that is equal for questions that are the same word for word."""
    return _SPACING.sub("", problem.prompt.lower())


def same_answer(first: Problem, second: Problem) -> bool:
    """Whether the gold answers are equal, decided without algebra."""
    equal = first.answer.strip() == second.answer.strip()
    return equal or grade_answer(rf"\boxed{{{second.answer}}}", first) == 1.0


def grams(text: str) -> frozenset[tuple[str, ...]]:
    """The token 4-grams of a text; a shorter text is one gram."""
    tokens = _TOKEN.findall(text.lower())
    starts = range(max(1, len(tokens) - GRAM + 1))
    return frozenset(tuple(tokens[start : start + GRAM]) for start in starts)


class _GramIndex:
    """Finds similar questions in time proportional to the grams they share, not to all pairs."""

    def __init__(self, problems: Iterable[Problem]):
        self._sizes = []
        self._holders = defaultdict(list)
        for place, problem in enumerate(problems):
            own = grams(problem.prompt)
            self._sizes.append(len(own))
            for gram in own:
                self._holders[gram].append(place)

    def similar(self, problem: Problem) -> list[int]:
        """The places of the indexed problems with a Jaccard index >= SIMILAR."""
        own = grams(problem.prompt)
        shared = Counter(place for gram in own for place in self._holders.get(gram, ()))
        return [
            place
            for place, count in shared.items()
            if count >= SIMILAR * (len(own) + self._sizes[place] - count)
        ]
