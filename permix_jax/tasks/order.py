"""Which problems a step trains on: a pure function of (seed, step)."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from permix_jax.core.problem import Problem
from permix_jax.core.randomness import generator


def problems_of_step(
    problems: Sequence[Problem], seed: int, step: int, count: int
) -> list[Problem]:
    """The `count` problems of `step` (1, 2, ...). Each epoch permutes all; a step may span two."""
    positions = range((step - 1) * count, step * count)
    epochs_and_ranks = (divmod(position, len(problems)) for position in positions)
    return [problems[_permutation(seed, epoch, len(problems))[i]] for epoch, i in epochs_and_ranks]


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    return generator(seed, "order", epoch).permutation(length)
