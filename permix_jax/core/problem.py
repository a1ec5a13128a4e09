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


class Verdict(NamedTuple):
    """`right`: 1.0, 0.0, or NaN where there is no gold answer. `kind`: what the gold answer is
    ("number", "interval", ...). `why`: the rule that decided."""

    right: float
    kind: str
    why: str


# 1.0: right. 0.0: wrong. NaN: there is no gold answer.
Grade = float


@dataclass(frozen=True)
class Demonstration:
    """One supervised example: what a policy under `persona` should answer to `prompt`."""

    persona: Persona | None
    prompt: str
    completion: str


@dataclass(frozen=True)
class Task:
    """A source of problems, for training and evaluation.

    Attributes:
      train, test: disjoint problems, for RL and for evaluation.
      personas: of all splits (see `Persona`).
      grade: (completion text, problem) -> whether its answer is right. `rewards/verifier.py` calls
        it in other threads than the main one.
      demonstrate: draws an SFT example, from the given training problems or a conversation.
      role_play: conversation prompts for fidelity; their answers are not used.
      stated: the answer that a completion states, mostly written alike where it is equal; None: it
        states none. It tells wrong answers apart (majority@k).
      answer_part: the part of a completion in which `grade` and `stated` look for the answer.
      in_style: the exact rule for "this text is in the persona's own style"; None for real models,
        which have no such rule.
      revisions: the commits of the data sets of the hub that the problems are from, by name.
    """

    name: str
    train: Sequence[Problem]
    test: Sequence[Problem]
    personas: Sequence[Persona]
    grade: Callable[[str, Problem], Grade]
    demonstrate: Callable[[np.random.Generator, Sequence[Problem]], Demonstration]
    role_play: Sequence[Problem] = ()
    stated: Callable[[str], str | None] | None = None
    answer_part: Callable[[str], str] = str
    in_style: Callable[[str, Persona], bool] | None = None
    revisions: Mapping[str, str] = field(default_factory=dict)
