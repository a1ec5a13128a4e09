"""Which persona each rollout gets: the difference between PerMix and plain RLVR.

Every draw is a pure function of (seed, step, problem[, rollout]), so a row does not depend on the
batch it sits in, and a larger `share` only adds personas to those that a smaller one gives.
"""

from collections.abc import Sequence

from permix_jax.personas.persona import Persona
from permix_jax.randomness import generator

LEVELS = ("problem", "rollout")


def assign(
    seed: int,
    step: int,
    num_problems: int,
    group_size: int,
    personas: Sequence[Persona],
    share: float,
    level: str,
) -> list[list[Persona | None]]:
    """Draws the personas of one step's rollouts, uniformly from `personas`.

    Args:
      seed, step: what the draws depend on, with the index of the problem in the step.
      num_problems, group_size: the shape of the result.
      personas: those that may be drawn; may be empty only where `share` is 0.
      share: probability that a problem carries a persona at all; 0 is plain RLVR.
      level: "problem", one persona for all rollouts of a problem, or "rollout", one for each.

    Returns:
      [num_problems][group_size], None for a plain prompt.

    Raises:
      ValueError: share outside [0, 1], unknown level, or share > 0 without personas.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"personas.share is {share}; it is a probability, from 0 to 1")
    if level not in LEVELS:
        raise ValueError(f"personas.level is {level!r}; choose {' or '.join(map(repr, LEVELS))}")
    if share > 0 and not personas:
        raise ValueError(
            f"personas.share is {share} but there are no personas to draw; "
            "add some of split train, or set it to 0"
        )
    rows = []
    for problem in range(num_problems):
        rng = generator(seed, "persona", step, problem)
        if rng.random() >= share:
            rows.append([None] * group_size)
        elif level == "problem":
            rows.append([personas[rng.integers(len(personas))]] * group_size)
        else:
            draws = (generator(seed, "persona", step, problem, r) for r in range(group_size))
            rows.append([personas[draw.integers(len(personas))] for draw in draws])
    return rows
