"""Which persona each rollout gets: the difference between PerMix and plain RLVR.

Every draw is a pure function of (seed, step, problem[, rollout]) and, if the weights adapt, of the
running accuracies, so a row does not depend on the batch it sits in. A larger share only adds
personas to those that a smaller one gives; a larger harmful share only exchanges some for harmful
ones. Paraphrasing changes the words of a persona, not which one is drawn.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from permix_jax.core.field_rules import call_with, valid_value
from permix_jax.core.persona import Persona
from permix_jax.core.randomness import generator
from permix_jax.personas import adaptive
from permix_jax.personas.adaptive import AdaptiveState
from permix_jax.personas.paraphrases import TEMPLATES, paraphrase


@dataclass(frozen=True)
class Mixture:
    """How personas are mixed into the prompts of a run.

    `train` and `harmful` are the personas of splits train and harmful_train. The other attributes
    are the fields `personas.*` of the config (docs/config.md): `weights` "category" is uniform over
    categories, then within; "adaptive", its floor and its decay are those of `adaptive.py`;
    `paraphrase` gives a group (level "problem") or a rollout one of TEMPLATES.

    Raises:
      ValueError: any value that is impossible, or leaves nothing to draw; names field and remedy.
    """

    train: tuple[Persona, ...]
    harmful: tuple[Persona, ...]
    share: float
    level: str
    weights: str
    category_weights: str
    harmful_share: float
    curriculum_steps: int
    paraphrase: bool
    adaptive_floor: float
    adaptive_decay: float

    def __post_init__(self):
        _require_valid(self)

    @property
    def personas(self) -> tuple[Persona, ...]:
        """The K personas in the order of an `AdaptiveState`."""
        return (*self.train, *self.harmful)


def build_mixture(personas: Sequence[Persona], values: Mapping[str, Any]) -> Mixture:
    """The mixture of those of a task's personas that may be drawn; `values` is `config.personas`.

    Raises:
      ValueError: as `Mixture`.
    """
    train, harmful = (
        tuple(persona for persona in personas if persona.split == split)
        for split in ("train", "harmful_train")
    )
    train = _spread(train, values.get("count", 0))
    harmful = harmful if values["harmful_share"] else ()
    return call_with(Mixture, values, train=train, harmful=harmful)


def _spread(personas: tuple[Persona, ...], count: int) -> tuple[Persona, ...]:
    """`count` of them at even distances in their order, which goes by category; 0: all."""
    if not 0 < count < len(personas):
        return personas
    return tuple(personas[len(personas) * (2 * i + 1) // (2 * count)] for i in range(count))


def shares_at(mixture: Mixture, step: int) -> tuple[float, float]:
    """`share` and `harmful_share` at a step (1, 2, ...), after the curriculum."""
    grown = min(1.0, step / mixture.curriculum_steps) if mixture.curriculum_steps else 1.0
    return mixture.share * grown, mixture.harmful_share * grown


def adaptive_weights(mixture: Mixture, state: AdaptiveState) -> np.ndarray:
    """Float64 [K]: `adaptive.weights` of `mixture.personas`, each among those of its split.

    Apart, because harmful personas are meant to be wrong: next to them no other one would look bad.
    """
    cut = len(mixture.train)
    train = {name: values[:cut] for name, values in state.items()}
    harmful = {name: values[cut:] for name, values in state.items()}
    return np.concatenate([adaptive.weights(s, mixture.adaptive_floor) for s in (train, harmful)])


def assign(
    mixture: Mixture,
    seed: int,
    step: int,
    num_problems: int,
    group_size: int,
    first_problem: int = 0,
    state: AdaptiveState | None = None,
) -> list[list[Persona | None]]:
    """Draws the personas of one step's rollouts, or of a host's part in them.

    Args:
      seed, step: what the draws depend on, with the index of the problem in the step.
      num_problems, group_size: the shape of the result.
      first_problem: index in the step of the first of these problems.
      state: the running accuracies of `mixture.personas`; used where weights are "adaptive".

    Returns:
      [num_problems][group_size], None for a plain prompt.

    Raises:
      ValueError: weights are "adaptive" and there is no state.
    """
    share, harmful_share = shares_at(mixture, step)
    weights = _draw_weights(mixture, state)
    cut = len(mixture.train)
    cumulative = [None, None] if weights is None else [*map(_cumulative, np.split(weights, [cut]))]
    train, harmful = zip((mixture.train, mixture.harmful), cumulative, strict=True)

    rows = []
    for problem in range(first_problem, first_problem + num_problems):
        rng = generator(seed, "persona", step, problem)
        if rng.random() >= share:
            rows.append([None] * group_size)
            continue
        is_harmful = generator(seed, "persona/harmful", step, problem).random() < harmful_share
        pool = harmful if is_harmful else train
        if mixture.level == "problem":
            persona = _reworded(mixture, _pick(rng, *pool), seed, step, problem)
            rows.append([persona] * group_size)
        else:
            indices = [(step, problem, rollout) for rollout in range(group_size)]
            drawn = (_pick(generator(seed, "persona", *at), *pool) for at in indices)
            rows.append(
                [_reworded(mixture, p, seed, *at) for p, at in zip(drawn, indices, strict=True)]
            )
    return rows


def _pick(
    rng: np.random.Generator, pool: Sequence[Persona], cumulative: np.ndarray | None
) -> Persona:
    """One of `pool`, uniformly where there are no cumulative probabilities."""
    if cumulative is None:
        return pool[rng.integers(len(pool))]
    return pool[np.searchsorted(cumulative, rng.random(), side="right")]


def _reworded(mixture: Mixture, persona: Persona, seed: int, *indices: int) -> Persona:
    if not mixture.paraphrase:
        return persona
    return paraphrase(persona, generator(seed, "paraphrase", *indices).integers(len(TEMPLATES)))


def _draw_weights(mixture: Mixture, state: AdaptiveState | None) -> np.ndarray | None:
    """Float64 [K] by which the personas of each split are drawn; None where all are alike."""
    if mixture.weights == "adaptive":
        if state is None:
            raise ValueError("personas.weights is 'adaptive'; give the running accuracies, state")
        weights = adaptive_weights(mixture, state)
    elif mixture.weights == "category":
        size = Counter((persona.split, persona.category) for persona in mixture.personas)
        weights = np.array([1 / size[p.split, p.category] for p in mixture.personas])
    elif mixture.category_weights:
        weights = np.ones(len(mixture.personas))
    else:
        return None
    factors = _category_factors(mixture)
    return weights * [factors.get(persona.category, 1.0) for persona in mixture.personas]


def _cumulative(weights: np.ndarray) -> np.ndarray:
    """Cumulative probabilities; the last one is exactly 1, above every draw."""
    total = np.cumsum(weights)
    return total / total[-1] if len(total) else total


def _category_factors(mixture: Mixture) -> dict[str, float]:
    """What `category_weights` says, for the categories that it names."""
    text, known = mixture.category_weights, {p.category: None for p in mixture.personas}
    factors: dict[str, float] = {}
    for part in text.split(",") if text else ():
        name, _, number = (piece.strip() for piece in part.rpartition(":"))
        factor = _number(number)
        if not name or not 0 <= factor < math.inf or name in factors:
            raise ValueError(
                f"personas.category_weights is {text!r}; write each category once, with a weight "
                "of 0 or more, such as 'profession:2,mood:0.5'"
            )
        if name not in known:
            raise ValueError(
                f"personas.category_weights names {name!r}; the categories in training are "
                f"{', '.join(sorted(known))}"
            )
        factors[name] = factor
    return factors


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _require_valid(m: Mixture) -> None:
    """Raises ValueError for the first value that is impossible by itself or with these personas."""
    for field in fields(m)[2:]:
        valid_value(f"personas.{field.name}", getattr(m, field.name))
    factors = _category_factors(m)
    if m.share == 0:
        return
    for name, split, pool in (
        ("share", "train", m.train),
        ("harmful_share", "harmful_train", m.harmful),
    ):
        value = getattr(m, name)
        if value > 0 and not pool:
            raise ValueError(
                f"personas.{name} is {value} but there are no personas to draw; "
                f"add some of split {split}, or set it to 0"
            )
        if value > 0 and not any(factors.get(persona.category, 1.0) for persona in pool):
            raise ValueError(
                f"personas.category_weights is {m.category_weights!r}, which leaves no persona of "
                f"split {split} to draw; give one of its categories a weight above 0"
            )
