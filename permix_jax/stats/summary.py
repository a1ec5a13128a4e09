"""The figures of an evaluation, from the rows of its completions.jsonl."""

from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from permix_jax.core.persona import Persona
from permix_jax.core.randomness import generator
from permix_jax.stats.corrected import corrected_figures
from permix_jax.stats.fidelity import rule_fidelity
from permix_jax.stats.kappa import agreement_figures
from permix_jax.stats.lottery import lottery
from permix_jax.stats.paired import persona_effects
from permix_jax.stats.robustness import KINDS, hurt, kind_of, principled
from permix_jax.stats.samples import samples_figures
from permix_jax.stats.stability import as_entries, on_decided_problems, pss_formula, stability
from permix_jax.stats.statistics import bootstrap_weights


def summarise(
    rows: Sequence[dict],
    personas: Sequence[Persona],
    settings: Any,
    trained: Collection[str] = (),
    read: Callable[[str], str | None] | None = None,
) -> dict[str, dict]:
    """The contents of stability.json and, where role-play was asked for, of fidelity.json.

    Each has the figures of all personas and, under `by_set`, those of each set of personas.
    stability.json has, under `by_kind`, those of each `robustness.kind_of` persona, too.
    `unknown_verdicts` counts answers without a verdict. `problems_left_out` counts the problems
    that `on_decided_problems` leaves out for them. With several samples there is `at_k`, as
    `samples_figures` has it; majority@k is left out if a row lacks the field `stated`.

    Args:
      rows: of completions.jsonl in the order of the file: problems, then role-play; by persona
        (problems: none first), then problem, then sample.
      settings: with the fields `seed`, `samples`, `role_play_samples`, `resamples` and `pss` of
        `EvalSettings`. Every set of personas gets the same resamples of the problems.
      trained: the categories of the personas that training may draw.
      read: what a completion states, for rows without the field `stated`. Where there is neither,
        `agreement` has no figures of answers.
    """
    problems = [row for row in rows if row["task"] == "problems"]
    shape = (len(personas) + 1, -1, settings.samples)
    graded = _column(problems, "correct").reshape(shape)
    unknown = np.isnan(graded)
    left_out = unknown.any(axis=(0, 2))
    decided = on_decided_problems(graded)
    plain, correct = decided[0], decided[1:]
    stated = np.reshape(numbered, shape) if (numbered := numbers_of_stated(problems)) else None
    spoken = _spoken(problems, read)
    said = np.reshape(spoken, shape) if spoken else None
    in_style = {}
    if played := [row for row in rows if row["task"] == "role_play"]:
        in_style["role_play"] = _column(played, "in_style").reshape(
            len(personas), -1, settings.role_play_samples
        )
        in_style["arithmetic"] = _column(problems, "in_style").reshape(shape)[1:]

    resampling = (settings.seed, "bootstrap")  # the same in every set, for every figure of it
    weights = bootstrap_weights(decided.shape[1], settings.resamples, generator(*resampling))

    @cache  # a set may be a kind, or all that there are
    def of(members: tuple[int, ...]) -> dict[str, dict]:
        people, answers = [personas[m] for m in members], correct[list(members)]
        ids, asked = [person.id for person in people], [0, *(1 + m for m in members)]
        rng, pss = generator(*resampling), pss_formula(settings.pss)
        alike = None if stated is None else stated[asked]
        effects = persona_effects(answers, plain, ids)
        figures = stability(answers, ids, plain, rng, settings.resamples, pss)
        figures |= {
            "lottery": lottery(answers),
            "persona_effects": effects,
            "hurt": hurt(effects),
            "agreement": agreement_figures(answers, None if said is None else said[asked[1:]]),
            "corrected": as_entries(corrected_figures(answers, plain, weights, pss)),
            "principled": principled(answers, plain, people, weights),
        }
        if settings.samples > 1:
            figures["at_k"] = samples_figures(decided[asked], alike, ids, weights)
        results = {"stability": figures}
        if in_style:
            chosen = {task: values[list(members)].astype(bool) for task, values in in_style.items()}
            results["fidelity"] = rule_fidelity(chosen, ids)
        return results

    results = {name: dict(figures) for name, figures in of(tuple(range(len(personas)))).items()}
    results["stability"] |= {
        "unknown_verdicts": int(unknown.sum()),
        "problems_left_out": 0 if left_out.all() else int(left_out.sum()),
    }
    by_set = _members([persona.split for persona in personas])
    by_kind = _members([kind_of(persona, trained) for persona in personas])
    for name, result in results.items():
        result["by_set"] = {s: of(members)[name] for s, members in by_set.items()}
    kinds = [kind for kind in KINDS if kind in by_kind]
    results["stability"]["by_kind"] = {kind: of(by_kind[kind])["stability"] for kind in kinds}
    return results


def _members(groups: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Group -> the places where it stands, the groups in the order of their first ones."""
    return {
        group: tuple(i for i, other in enumerate(groups) if other == group)
        for group in dict.fromkeys(groups)
    }


def numbers_of_stated(rows: Sequence[Mapping]) -> list[int] | None:
    """The number of each row's answer, -1 for none, as in `samples`; None if one lacks `stated`."""
    if not all("stated" in row for row in rows):
        return None
    numbers = {answer: i for i, answer in enumerate(dict.fromkeys(row["stated"] for row in rows))}
    numbers[None] = -1
    return [numbers[row["stated"]] for row in rows]


def _spoken(rows: Sequence[Mapping], read: Callable | None) -> list[int] | None:
    """As `numbers_of_stated`, read from the completion where a row lacks the field."""
    if read is not None:
        rows = [r if "stated" in r else {"stated": read(r["completion"])} for r in rows]
    return numbers_of_stated(rows)


def _column(rows: Sequence[dict], name: str) -> np.ndarray:
    """NaN for None."""
    return np.array([row[name] for row in rows], float)
