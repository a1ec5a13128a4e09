"""The records that tasks are made of."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from permix_jax.core.persona import Persona


@dataclass(frozen=True)
class Problem:
    """One prompt with its gold answer; `id` is unique within its source."""

    id: str
    prompt: str
    answer: str
    source: str
    meta: Mapping[str, Any] = field(default_factory=dict)


class Undecided(NamedTuple):
    """Two answers, as their texts, whose equality takes algebra to decide."""

    answer: str
    gold: str


# 1.0 right, 0.0 wrong, NaN: there is no gold answer, Undecided: algebra decides.
Grade = float | Undecided


@dataclass(frozen=True)
class Demonstration:
    """One supervised example: what a policy under `persona` should answer to `prompt`."""

    persona: Persona | None
    prompt: str
    completion: str


@dataclass(frozen=True)
class Task:
    """Everything that training and evaluation need to know of a source of problems.

    Attributes:
      train, test: disjoint problems for RL and for evaluation.
      personas: of all splits; RL draws from `train`, evaluation from `heldout`.
      grade: (completion text, problem) -> whether its answer is right; `rewards/verifier.py` calls
        it off the main thread.
      demonstrate: draws one SFT example, on one of the given training problems or a conversation.
      role_play: conversation prompts for fidelity; their answers are unused.
      symbolic: whether `grade` may leave an answer Undecided.
      in_style: the exact rule for "this text is in the persona's own style"; None where there is
        no such rule (every real model).
    """

    name: str
    train: Sequence[Problem]
    test: Sequence[Problem]
    personas: Sequence[Persona]
    grade: Callable[[str, Problem], Grade]
    demonstrate: Callable[[np.random.Generator, Sequence[Problem]], Demonstration]
    role_play: Sequence[Problem] = ()
    symbolic: bool = False
    in_style: Callable[[str, Persona], bool] | None = None
