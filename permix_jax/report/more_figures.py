"""More measures than PSS of a finished run, for comparisons: from its answers, or its files.

PSS and worst persona minus none are corrected for noise (`stats/corrected.py`), because methods are
compared here, and noise lowers both more for the more stable method.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from permix_jax.report.answers import Answers, Measure, unknown
from permix_jax.stats.corrected import corrected_figures
from permix_jax.stats.kappa import answers as ratings_of_answers
from permix_jax.stats.kappa import kappa_by_problem, verdicts
from permix_jax.stats.lottery import expected_worst
from permix_jax.stats.robustness import KINDS, hurt
from permix_jax.stats.stability import pss_formula
from permix_jax.stats.statistics import pooled_means

DRAWN = 4  # personas, of which the worst is expected
CORRECTED = {"PSS corr.": "pss", "worst - none": "worst_minus_none"}  # key in `corrected`
MORE = (*CORRECTED, "hurt", f"worst of {DRAWN}", "verdicts", "answers", "irrelevant", "experts")

Values = dict[str, tuple[float | None, np.ndarray]]  # measure -> value, resamples


def more_measures(
    stability: Mapping, asked: Answers | None, weights: np.ndarray | None, pss: str
) -> tuple[dict[str, Measure], dict[str, Measure]]:
    """Those of MORE that are known, and the mean accuracy by kind of persona, for each kind.

    What the answers do not tell, or where there are none, is that of the file, without resamples.

    Args:
      stability: content of stability.json.
      asked: the answers to the problems, without a persona, too; None: not known.
      weights: [resample, problem], as those of the other measures.
      pss: name of the formula.
    """
    values = dict(_of_file(stability))
    kinds = {kind: of["accuracy_mean"] for kind, of in stability.get("by_kind", {}).items()}
    drawn: dict[str, tuple[float, np.ndarray]] = {}
    drawn_kinds: dict[str, tuple[float, np.ndarray]] = {}
    if asked is not None and asked.personas[0] is None and len(asked.personas) > 1:
        drawn = dict(_of_answers(stability, asked, weights, pss))
        correct, _ = asked.graded()
        for kind in kinds:
            ids = [e["persona"] for e in stability["by_kind"][kind]["per_persona"]]
            if members := _places(asked, ids):
                drawn_kinds[kind] = _mean(correct[members], weights)
    items = asked[:2] if asked is not None else None
    more = _measures(MORE, values, drawn, items)
    return more, _measures(KINDS, kinds, drawn_kinds, items)


def _measures(
    names: Sequence[str], values: Mapping, drawn: Mapping, items: tuple | None
) -> dict[str, Measure]:
    """The measures of these names that are known; those of `drawn` have resamples."""
    result = {}
    for name in names:
        if name in drawn:
            value, resampled = drawn[name]
            result[name] = Measure(float(value), resampled, items)
        elif values.get(name) is not None:
            result[name] = Measure(values[name], *unknown())
    return result


def _of_file(stability: Mapping) -> Iterator[tuple[str, float | None]]:
    for name, key in CORRECTED.items():
        yield name, stability.get("corrected", {}).get(key)
    if effects := stability.get("persona_effects"):
        yield "hurt", hurt(effects)["share"]
    accuracies = [entry["accuracy"] for entry in stability["per_persona"]]
    if len(accuracies) >= DRAWN:
        yield f"worst of {DRAWN}", float(expected_worst(np.array(accuracies))[DRAWN - 1])
    agreement = stability.get("agreement", {})
    yield "verdicts", agreement.get("verdict", {}).get("kappa")
    yield "answers", agreement.get("answer", {}).get("kappa")
    principled = stability.get("principled", {})
    yield "irrelevant", principled.get("worst_case_utility")
    yield "experts", principled.get("expertise_advantage")


def _of_answers(
    stability: Mapping, asked: Answers, weights: np.ndarray, pss: str
) -> Iterator[tuple[str, tuple[float, np.ndarray]]]:
    correct, plain = asked.graded()
    corrected = corrected_figures(correct, plain, weights, pss_formula(pss))
    for name, key in CORRECTED.items():
        if corrected[key].interval is not None:
            yield name, corrected[key][:2]
    ones = np.concatenate([np.ones((1, weights.shape[1])), weights])
    accuracy, alone = pooled_means(correct, ones), pooled_means(plain[None], ones)[:, 0]
    if len(correct) >= DRAWN:
        expected = expected_worst(accuracy)[:, DRAWN - 1]
        yield f"worst of {DRAWN}", (expected[0], expected[1:])
    decided = ~np.isnan(correct).any(axis=(0, 2))
    ratings = {"verdicts": verdicts(correct)}
    if asked.stated is not None:
        ratings["answers"] = ratings_of_answers(correct, asked.stated[1:])
    for name, rated in ratings.items():
        if len(correct) > 1:
            by_problem = kappa_by_problem(rated[:, decided])
            if np.isfinite(by_problem).all():
                of = pooled_means(by_problem[None, :, None], ones[:, decided])[:, 0]
                yield name, (of[0], of[1:])
    principled = stability.get("principled", {})
    if irrelevant := _places(asked, principled.get("irrelevant", ())):
        utility = accuracy[:, irrelevant].min(axis=1) - alone
        yield "irrelevant", (utility[0], utility[1:])
    if experts := _places(asked, principled.get("experts", ())):
        advantage = accuracy[:, experts].mean(axis=1) - alone
        yield "experts", (advantage[0], advantage[1:])


def _mean(correct: np.ndarray, weights: np.ndarray) -> tuple[float, np.ndarray]:
    ones = np.concatenate([np.ones((1, weights.shape[1])), weights])
    mean = pooled_means(correct, ones).mean(axis=1)
    return mean[0], mean[1:]


def _places(asked: Answers, ids: Sequence[str]) -> list[int]:
    """Where the personas stand in `correct` of the graded answers; none if one is missing."""
    places = {persona: i for i, persona in enumerate(asked.personas[1:])}
    return [places[i] for i in ids] if all(i in places for i in ids) else []
