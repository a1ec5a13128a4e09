"""Fewer questions: the benchmark's `light` set, and nested sub-samples."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from permix_jax.personagym.benchmark import Question


def light(questions: Sequence[Question]) -> list[Question]:
    """The first question of each task of each persona: 1,000 of the published 10,000."""
    first = {}
    for question in questions:
        first.setdefault((question.persona, question.task), question)
    return list(first.values())


def subsample(
    questions: Sequence[Question], personas: int = 0, per_task: int = 0, seed: int = 0
) -> list[Question]:
    """Draws `personas` personas and `per_task` questions of each task; 0 takes all.

    The draw depends on the seed and the texts, not on their order. A smaller draw is a subset of a
    larger one. The result keeps the order of `questions`.

    Raises:
      ValueError: a number is negative or more than there are.
    """
    groups: dict[str, dict[str, list[Question]]] = defaultdict(lambda: defaultdict(list))
    for question in questions:
        groups[question.persona][question.task].append(question)

    kept = set()
    for persona in _draw("personas", list(groups), personas, seed):
        for task, asked in groups[persona].items():
            ids = [question.id for question in asked]
            kept.update(_draw(f"per_task for {persona!r}, {task}", ids, per_task, seed))
    return [question for question in questions if question.id in kept]


def _draw(field: str, names: Sequence[str], count: int, seed: int) -> list[str]:
    if not 0 <= count <= len(names):
        raise ValueError(f"{field} is {count}: give 0 (all) to {len(names)}")

    hashes = {name: hashlib.sha256(f"{seed}\n{name}".encode()).digest() for name in names}
    return sorted(names, key=hashes.__getitem__)[: count or None]
