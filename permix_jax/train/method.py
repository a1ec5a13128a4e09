"""The functions that make the method: give your own for any of them, and nothing else changes."""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from ml_collections import ConfigDict

from permix_jax.core.persona import Persona
from permix_jax.personas.mixture import Mixture, assign
from permix_jax.rewards.terms import Term, reward_terms
from permix_jax.train.advantages import group_advantages


class Method(NamedTuple):
    """Who gets which persona, what is rewarded, and what an advantage is; the defaults are ours.

    All must be pure functions of their arguments: a resumed run calls them again.

    Attributes:
      assign: (mixture, seed, step, num_problems, group_size, state=running accuracies) ->
        [num_problems][group_size] personas of `mixture.personas`, or None; as `mixture.assign`.
        With personas.level = problem, one persona for all rollouts of a problem.
      terms: of the reward, beside those that `config.rewards` gives a weight.
      advantages: (rewards f32 [N], NaN where the verdict is unknown; groups int [N];
        grpo.advantage_scale) -> finite float [N]; as `group_advantages`.
    """

    assign: Callable[..., Sequence[Sequence[Persona | None]]] = assign
    terms: Sequence[Term] = ()
    advantages: Callable[[np.ndarray, np.ndarray, str], np.ndarray] = group_advantages


PERMIX = Method()


def all_terms(method: Method, config: ConfigDict) -> list[Term]:
    """The terms of `config.rewards`, then the method's own; ValueError if two have one name."""
    terms = [*reward_terms(config.rewards, config.rewards.overlong_tokens), *method.terms]
    names = [term.name for term in terms]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"method.terms: two terms are called {doubled[0]!r}; rename one")
    return terms


def require_used(method: Method, config: ConfigDict) -> None:
    """Raises ValueError for parts of a method that `train.method` would leave unused."""
    all_terms(method, config)
    used = {"grpo": Method._fields, "sft": (), "distill": ("assign",)}[config.train.method]
    for part in describe(method):
        if part not in used:
            raise ValueError(
                f"method.{part} is given, and train.method = {config.train.method} does not use "
                "it: leave it out, or use grpo"
            )


def describe(method: Method) -> dict[str, Any]:
    """The parts that are not ours, as plain values for config.json: names, and hashes of sources.

    Two descriptions are equal where the names and, as far as Python knows them, the source texts
    are; what a function calls, or closes over, is not looked at.
    """
    own = {name: getattr(method, name) for name in ("assign", "advantages")}
    parts: dict[str, Any] = {
        name: _describe(part) for name, part in own.items() if part is not getattr(PERMIX, name)
    }
    if method.terms:
        parts["terms"] = {t.name: f"{t.weight} * {_describe(t.value)}" for t in method.terms}
    return parts


def _describe(function: Callable) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    name = f"{named.__module__}.{named.__qualname__}"
    try:
        source = inspect.getsource(named)
    except (OSError, TypeError):  # typed into a prompt, or built in
        return name
    return f"{name} (sha256 {hashlib.sha256(source.encode()).hexdigest()[:12]})"


def require_assigned(
    rows: Sequence[Sequence[Persona | None]],
    mixture: Mixture,
    num_problems: int,
    group_size: int,
    shared: bool,
) -> None:
    """Raises ValueError where `assign` gave what cannot be asked.

    `shared`: whether all rollouts of a problem have the same prompt.
    """
    if [len(row) for row in rows] != [group_size] * num_problems:
        raise ValueError(
            f"method.assign gave rows of {sorted({len(row) for row in rows})} personas for "
            f"{len(rows)} problems; give {group_size} for each of {num_problems}"
        )
    known = {persona.id for persona in mixture.personas}
    for problem, row in enumerate(rows):
        if shared and any(persona != row[0] for persona in row):
            raise ValueError(
                f"method.assign gave problem {problem} of the step several personas: set "
                "personas.level to rollout, and personas.share above 0"
            )
        for persona in row:
            if persona is not None and persona.id not in known:
                raise ValueError(
                    f"method.assign gave persona {persona.id!r}, which the mixture has not; use "
                    "those of mixture.personas"
                )


def as_advantages(values: np.ndarray, size: int) -> np.ndarray:
    """What `advantages` gave, as f32 [size]; ValueError for another shape or what is not finite."""
    values = np.asarray(values, np.float32)
    if values.shape != (size,) or not np.isfinite(values).all():
        raise ValueError(
            f"method.advantages gave shape {values.shape}, {np.isfinite(values).sum()} of them "
            f"finite; give {size} finite numbers, 0 where the reward is NaN"
        )
    return values
