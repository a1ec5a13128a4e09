"""Which training problems occur in the test set, word for word or in other words; and doubles.

Questions are the same word for word if nothing but case, spacing and the punctuation of sentences
differs: letters and digits alone would take k > 0 and k < 0 for the same. They are the same in
other words if their answers are equal and their sets of token 4-grams have a Jaccard index of at
least SIMILAR. Equal answers are asked for, since many problems differ in a constant only.
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
    """`kept`: the training problems that are not in the test set; how many are, by kind."""

    kept: list[Problem]
    exact: int
    reworded: int


def without_overlap(train: Sequence[Problem], test: Sequence[Problem]) -> Overlap:
    """The training problems (with bare questions) that do not occur in `test` (likewise)."""
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
    """Each question once, its first problem; none of those whose answers differ."""
    groups = defaultdict(list)
    for problem in problems:
        groups[question_key(problem)].append(problem)
    agreeing = (
        group for group in groups.values() if all(same_answer(group[0], p) for p in group[1:])
    )
    return [group[0] for group in agreeing]


def question_key(problem: Problem) -> str:
    """Equal for questions that are the same word for word."""
    return _SPACING.sub("", problem.prompt.lower())


def same_answer(one: Problem, two: Problem) -> bool:
    """Whether the gold answers are the same, as far as can be told without algebra."""
    if one.answer.strip() == two.answer.strip():
        return True
    return grade_answer(rf"\boxed{{{two.answer}}}", one) == 1.0


def grams(text: str) -> frozenset[tuple[str, ...]]:
    """The token 4-grams of a text; of a shorter one its tokens, as one gram."""
    tokens = _TOKEN.findall(text.lower())
    starts = range(max(1, len(tokens) - GRAM + 1))
    return frozenset(tuple(tokens[start : start + GRAM]) for start in starts)


class _GramIndex:
    """Finds similar questions in time that grows with the grams they share, not with all pairs."""

    def __init__(self, problems: Iterable[Problem]):
        self._sizes = []
        self._holders = defaultdict(list)
        for place, problem in enumerate(problems):
            found = grams(problem.prompt)
            self._sizes.append(len(found))
            for gram in found:
                self._holders[gram].append(place)

    def similar(self, problem: Problem) -> list[int]:
        """The places of the indexed problems of Jaccard index >= SIMILAR."""
        own = grams(problem.prompt)
        shared = Counter(place for gram in own for place in self._holders.get(gram, ()))
        return [
            place
            for place, count in shared.items()
            if count >= SIMILAR * (len(own) + self._sizes[place] - count)
        ]
