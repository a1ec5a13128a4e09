"""Finds training problems that the test set has too, exactly or reworded; and doubles.

Two questions are the same word for word if they differ in case, spacing and sentence punctuation
alone; other signs count: k > 0 or k < 0. They are the same in other words if their sets of token
4-grams have a Jaccard index >= SIMILAR, and equal answers: many differ in a constant alone.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
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
    asked, similar = {question_key(problem) for problem in test}, similar_in(test)
    kept, exact = [], 0
    for problem in train:
        if question_key(problem) in asked:
            exact += 1
        elif not any(same_answer(problem, other) for other in similar(problem)):
            kept.append(problem)
    return Overlap(kept, exact, len(train) - exact - len(kept))


def without_doubles(problems: Sequence[Problem]) -> list[Problem]:
    """The first problem of each question, without questions whose problems differ in the answer."""
    groups = defaultdict(list)
    for problem in problems:
        groups[question_key(problem)].append(problem)
    agreed = (them for them in groups.values() if all(same_answer(them[0], p) for p in them[1:]))
    return [first for first, *_ in agreed]


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


def similar_in(problems: Sequence[Problem]) -> Callable[[Problem], list[Problem]]:
    """Finds those of `problems` with a Jaccard index >= SIMILAR to a problem.

    It takes time proportional to the grams that they share, not to all pairs.
    """
    sizes, holders = [], defaultdict(list)
    for place, problem in enumerate(problems):
        own = grams(problem.prompt)
        sizes.append(len(own))
        for gram in own:
            holders[gram].append(place)

    def similar(problem: Problem) -> list[Problem]:
        own = grams(problem.prompt)
        shared = Counter(place for gram in own for place in holders.get(gram, ()))
        places = (at for at, n in shared.items() if n >= SIMILAR * (len(own) + sizes[at] - n))
        return [problems[place] for place in places]

    return similar
