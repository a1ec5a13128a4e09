"""The figures of an evaluation, from the rows of its completions.jsonl."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from permix_jax.core.persona import Persona
from permix_jax.core.randomness import generator
from permix_jax.stats.fidelity import rule_fidelity
from permix_jax.stats.lottery import lottery
from permix_jax.stats.paired import persona_effects
from permix_jax.stats.samples import samples_figures
from permix_jax.stats.stability import on_decided_problems, pss_formula, stability
from permix_jax.stats.statistics import bootstrap_weights


def summarise(rows: Sequence[dict], personas: Sequence[Persona], settings: Any) -> dict[str, dict]:
    """The contents of stability.json and, where role-play was asked for, of fidelity.json.

    Each has the figures of all personas and, under `by_set`, those of each set of personas.
    `unknown_verdicts` counts answers without a verdict. `problems_left_out` counts the problems
    that `on_decided_problems` leaves out for them. With several samples there is `at_k`, as
    `samples_figures` has it; majority@k is left out if a row lacks the field `stated`.

    Args:
      rows: of completions.jsonl in the order of the file: problems, then role-play; by persona
        (problems: none first), then problem, then sample.
      settings: with the fields `seed`, `samples`, `role_play_samples`, `resamples` and `pss` of
        `EvalSettings`. Every set of personas gets the same resamples of the problems.
    """
    problems = [row for row in rows if row["task"] == "problems"]
    shape = (len(personas) + 1, -1, settings.samples)
    graded = _column(problems, "correct").reshape(shape)
    unknown = np.isnan(graded)
    left_out = unknown.any(axis=(0, 2))
    decided = on_decided_problems(graded)
    plain, correct = decided[0], decided[1:]
    stated = np.reshape(numbered, shape) if (numbered := numbers_of_stated(problems)) else None
    in_style = {}
    if played := [row for row in rows if row["task"] == "role_play"]:
        in_style["role_play"] = _column(played, "in_style").reshape(
            len(personas), -1, settings.role_play_samples
        )
        in_style["arithmetic"] = _column(problems, "in_style").reshape(shape)[1:]

    def of(members: list[int]) -> dict[str, dict]:
        ids, answers = [personas[m].id for m in members], correct[members]
        rng, pss = generator(settings.seed, "bootstrap"), pss_formula(settings.pss)
        accuracy = stability(answers, ids, plain, rng, settings.resamples, pss)
        effects = persona_effects(answers, plain, ids)
        results = {
            "stability": accuracy | {"lottery": lottery(answers), "persona_effects": effects}
        }
        if settings.samples > 1:
            asked = [0, *(1 + m for m in members)]
            rng = generator(settings.seed, "bootstrap")  # the resamples of the accuracies
            weights = bootstrap_weights(decided.shape[1], settings.resamples, rng)
            alike = None if stated is None else stated[asked]
            results["stability"]["at_k"] = samples_figures(decided[asked], alike, ids, weights)
        if in_style:
            chosen = {task: values[members].astype(bool) for task, values in in_style.items()}
            results["fidelity"] = rule_fidelity(chosen, ids)
        return results

    results = of(list(range(len(personas))))
    results["stability"] |= {
        "unknown_verdicts": int(unknown.sum()),
        "problems_left_out": 0 if left_out.all() else int(left_out.sum()),
    }
    sets = dict.fromkeys(persona.split for persona in personas)
    by_set = {s: of([i for i, p in enumerate(personas) if p.split == s]) for s in sets}
    for name, result in results.items():
        result["by_set"] = {s: figures[name] for s, figures in by_set.items()}
    return results


def numbers_of_stated(rows: Sequence[Mapping]) -> list[int] | None:
    """The number of each row's answer, -1 for none, as in `samples`; None if one lacks `stated`."""
    if not all("stated" in row for row in rows):
        return None
    numbers = {answer: i for i, answer in enumerate(dict.fromkeys(row["stated"] for row in rows))}
    numbers[None] = -1
    return [numbers[row["stated"]] for row in rows]


def _column(rows: Sequence[dict], name: str) -> np.ndarray:
    """NaN for None."""
    return np.array([row[name] for row in rows], float)
