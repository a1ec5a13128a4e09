"""What personas cost and bring: by kind of persona, and by the measures of Principled Personas.

Arrays are as in `stability`: correct [persona, problem, sample], plain [problem, sample].
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from permix_jax.core.persona import Persona
from permix_jax.stats import extremes
from permix_jax.stats.stability import difference_interval, with_plain_first
from permix_jax.stats.statistics import gather_means

LEVEL = 0.05  # family-wise, of the personas that count as worse than none
EXPERTS = "expertise"  # the bank's category of personas who calculate for a living, or for fun
KINDS = ("trained persona", "trained category", "new category", "harmful", "neutral")


def kind_of(persona: Persona, trained: Collection[str]) -> str:
    """One of KINDS. `trained`: the categories of the personas that training may draw.

    "trained persona": of the split train. "trained category", "new category": held out, and of a
    category that training has, or has not. The others are the splits of the same name.
    """
    if persona.split == "train":
        return "trained persona"
    if persona.split == "heldout":
        return "trained category" if persona.category in trained else "new category"
    return persona.split


def hurt(effects: Sequence[Mapping]) -> dict:
    """The personas that are significantly worse than none: their `share`, and which they are.

    A persona counts if its effect is negative and its p value, adjusted by Holm for all personas
    that are asked together, is at most LEVEL. So with 95 % confidence none is counted that is not
    worse. That makes the share a lower bound, and it has no interval of its own: with few problems
    it is 0.

    Args:
      effects: of `paired.persona_effects`, with `persona`, `effect` and `p_adjusted`.
    """
    worse = [e["persona"] for e in effects if e["effect"] < 0 and e["p_adjusted"] <= LEVEL]
    return {"share": len(worse) / len(effects), "personas": worse}


def principled(
    correct: np.ndarray, plain: np.ndarray, personas: Sequence[Persona], weights: np.ndarray
) -> dict:
    """The two measures of accuracy of Principled Personas (Luz de Araujo et al. 2025, 2508.19764).

    `worst_case_utility`: the lowest accuracy under an irrelevant persona minus that without one.
    Irrelevant are the neutral ones: a name, a fact that has no bearing, a setting.
    `expertise_advantage`: accuracy under an expert of the task minus that without a persona. The
    paper has one expert for each task. The bank has several (held out, of the category EXPERTS),
    and this is the mean over them.

    Each has its `_ci95`, over the population of problems, and the `irrelevant` or `experts` that it
    is of. A measure without such personas is left out.

    Args:
      weights: [resample, problem] of the bootstrap.
    """
    result: dict = {}
    if irrelevant := [i for i, p in enumerate(personas) if p.split == "neutral"]:
        means = gather_means(with_plain_first(correct[irrelevant], plain), weights)
        result["worst_case_utility"] = float(means.estimate[1:].min() - means.estimate[0])
        result["worst_case_utility_ci95"] = extremes.worst_minus_first_interval(means)
        result["irrelevant"] = [personas[i].id for i in irrelevant]
    if experts := [i for i, p in enumerate(personas) if _expert(p)]:
        means = gather_means(with_plain_first(correct[experts], plain))
        interval = difference_interval(means, range(1, 1 + len(experts)))
        result["expertise_advantage"] = float(means.estimate[1:].mean() - means.estimate[0])
        result["expertise_advantage_ci95"] = interval
        result["experts"] = [personas[i].id for i in experts]
    return result


def _expert(persona: Persona) -> bool:
    return persona.split == "heldout" and persona.category == EXPERTS
