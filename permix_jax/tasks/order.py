"""Which problems a step trains on: a pure function of (seed, step)."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from permix_jax.core.problem import Problem
from permix_jax.core.randomness import generator


def problems_of_step(
    problems: Sequence[Problem], seed: int, step: int, count: int, host: int = 0, hosts: int = 1
) -> list[Problem]:
    """The part of `host` in the `count` problems of `step` (1, 2, ...).

    Every epoch is a new permutation of all problems. A step begins where the last one ended, also
    across epochs. The parts of hosts 0, 1, ..., hosts - 1, in this order, are the whole step.

    Raises:
      ValueError: `count` is no multiple of `hosts`, or there is no such host.
    """
    if count % hosts or not 0 <= host < hosts:
        raise ValueError(
            f"host {host} of {hosts} cannot take its part of train.problems_per_step = {count}; "
            f"use a multiple of {hosts}"
        )
    first, share = (step - 1) * count, count // hosts
    positions = range(first + host * share, first + (host + 1) * share)
    epochs_and_ranks = (divmod(position, len(problems)) for position in positions)
    return [problems[_permutation(seed, epoch, len(problems))[i]] for epoch, i in epochs_and_ranks]


@lru_cache(maxsize=4)
def _permutation(seed: int, epoch: int, length: int) -> np.ndarray:
    return generator(seed, "order", epoch).permutation(length)
