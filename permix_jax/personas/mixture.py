"""Draws a persona for each rollout: the difference between PerMix and plain RLVR.

Every draw is a pure function of (seed, step, problem[, rollout]) and, if the weights adapt, of the
running accuracies. So a row does not depend on its batch. A larger share only adds personas to the
draws of a smaller one; a larger harmful share only replaces some of them by harmful ones.
Paraphrasing changes the words of a persona, not which one is drawn.
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
    are the fields `personas.*` of the config (docs/config.md). `paraphrase` draws one of TEMPLATES
    for a group (level "problem") or for a rollout.

    Raises:
      ValueError: a value is impossible, or no persona can be drawn; names field and remedy.
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
        for field in fields(self)[2:]:
            valid_value(f"personas.{field.name}", getattr(self, field.name))
        factors = _category_factors(self)
        pools = (("share", "train", self.train), ("harmful_share", "harmful_train", self.harmful))
        for name, split, pool in pools if self.share else ():
            if (value := getattr(self, name)) and not pool:
                raise ValueError(
                    f"personas.{name} is {value} but there are no personas to draw; "
                    f"add some of split {split}, or set it to 0"
                )
            if value and not any(factors.get(persona.category, 1.0) for persona in pool):
                raise ValueError(
                    f"personas.category_weights is {self.category_weights!r}, which leaves no "
                    f"persona of split {split} to draw; give one of its categories a weight above 0"
                )

    @property
    def personas(self) -> tuple[Persona, ...]:
        """The K personas in the order of an `AdaptiveState`."""
        return (*self.train, *self.harmful)


def build_mixture(personas: Sequence[Persona], values: Mapping[str, Any]) -> Mixture:
    """The mixture of a task's personas that training may draw; `values` is `config.personas`.

    `count` takes that many personas at even distances in the bank's order, which goes by category.
    Raises as `Mixture`.
    """
    train, harmful = (
        tuple(persona for persona in personas if persona.split == split)
        for split in ("train", "harmful_train")
    )
    if 0 < (count := values.get("count", 0)) < len(train):
        train = tuple(train[len(train) * (2 * i + 1) // (2 * count)] for i in range(count))
    harmful = harmful if values["harmful_share"] else ()
    return call_with(Mixture, values, train=train, harmful=harmful)


def shares_at(mixture: Mixture, step: int) -> tuple[float, float]:
    """`share` and `harmful_share` at a step (1, 2, ...), after the curriculum."""
    grown = min(1.0, step / mixture.curriculum_steps) if mixture.curriculum_steps else 1.0
    return mixture.share * grown, mixture.harmful_share * grown


def adaptive_weights(mixture: Mixture, state: AdaptiveState) -> np.ndarray:
    """Float64 [K]: `adaptive.weights` of `mixture.personas`, computed for each split alone.

    Harmful personas are meant to be wrong: next to them no other persona would look bad.
    """
    cut = len(mixture.train)
    parts = ({n: x[part] for n, x in state.items()} for part in (slice(cut), slice(cut, None)))
    return np.concatenate([adaptive.weights(part, mixture.adaptive_floor) for part in parts])


def assign(
    mixture: Mixture,
    seed: int,
    step: int,
    num_problems: int,
    group_size: int,
    state: AdaptiveState | None = None,
) -> list[list[Persona | None]]:
    """Draws the personas of a step's rollouts, [num_problems][group_size]; None is a plain prompt.

    Seed, step and the index of the problem in the step decide a draw. Weights "adaptive" need the
    `state`, the running accuracies of `mixture.personas`: ValueError without it.
    """
    share, harmful_share = shares_at(mixture, step)
    weights, cumulative = _draw_weights(mixture, state), [None, None]
    if weights is not None:
        totals = [np.cumsum(part) for part in np.split(weights, [len(mixture.train)])]
        # The last probability is exactly 1, above every draw.
        cumulative = [total / total[-1:] for total in totals]
    train, harmful = zip((mixture.train, mixture.harmful), cumulative, strict=True)

    def draw(pool: tuple, rng: np.random.Generator, *indices: int) -> Persona:
        """One persona of a pool, uniformly if the pool has no cumulative probabilities."""
        personas, cumulative = pool
        if cumulative is None:
            persona = personas[rng.integers(len(personas))]
        else:
            persona = personas[np.searchsorted(cumulative, rng.random(), side="right")]
        if not mixture.paraphrase:
            return persona
        return paraphrase(persona, generator(seed, "paraphrase", *indices).integers(len(TEMPLATES)))

    rows = []
    for problem in range(num_problems):
        rng = generator(seed, "persona", step, problem)
        if rng.random() >= share:
            rows.append([None] * group_size)
            continue
        is_harmful = generator(seed, "persona/harmful", step, problem).random() < harmful_share
        pool = harmful if is_harmful else train
        if mixture.level == "problem":
            rows.append([draw(pool, rng, step, problem)] * group_size)
        else:
            places = [(step, problem, rollout) for rollout in range(group_size)]
            rows.append([draw(pool, generator(seed, "persona", *at), *at) for at in places])
    return rows


def _draw_weights(mixture: Mixture, state: AdaptiveState | None) -> np.ndarray | None:
    """Float64 [K], by which the personas of each split are drawn; None if all are equal."""
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


def _category_factors(mixture: Mixture) -> dict[str, float]:
    """The factors that `category_weights` names, by category."""
    text, known = mixture.category_weights, {p.category for p in mixture.personas}
    factors: dict[str, float] = {}
    for part in text.split(",") if text else ():
        name, _, number = (piece.strip() for piece in part.rpartition(":"))
        try:
            factor = float(number)
        except ValueError:
            factor = math.nan
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
