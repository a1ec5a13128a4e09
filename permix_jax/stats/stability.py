"""How much accuracy depends on the persona: the persona stability score (PSS) and other figures.

The paper's abstract names the score and does not give its formula. The formulas here are ours.
Arrays: correct [persona, problem, sample] and plain [problem, sample] are 1 where an answer is
right, 0 where it is wrong, NaN where it could not be scored.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from permix_jax.core.field_rules import valid_value
from permix_jax.stats import extremes
from permix_jax.stats.statistics import (
    Z_95,
    Means,
    bootstrap_weights,
    gather_means,
    percentile_interval,
    pooled_means,
    quotient,
    require_axes,
    require_ids,
)

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # [..., persona], plain [...] -> [...]


def pss_min_over_max(accuracy: np.ndarray, plain: np.ndarray | None = None) -> np.ndarray:
    """Worst over best accuracy, [..., persona] -> [...]; NaN where the best is 0."""
    return quotient(accuracy.min(axis=-1), accuracy.max(axis=-1))


def pss_mean_over_plain(accuracy: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Mean accuracy over personas divided by that without one; NaN where the latter is 0.

    It can exceed 1, and does not see how unequal the personas are.
    """
    return quotient(accuracy.mean(axis=-1), plain)


def pss_one_minus_range(accuracy: np.ndarray, plain: np.ndarray | None = None) -> np.ndarray:
    """1 - (best - worst accuracy), [..., persona] -> [...]. A policy that is always wrong has 1."""
    return 1 - np.ptp(accuracy, axis=-1)


def pss_worst_over_plain(accuracy: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Worst accuracy over that without a persona, [..., persona] -> [...]; NaN where that is 0.

    It asks what a persona costs at most. It exceeds 1 where every persona helps.
    """
    return quotient(accuracy.min(axis=-1), plain)


def pss_one_minus_cv(accuracy: np.ndarray, plain: np.ndarray | None = None) -> np.ndarray:
    """1 - std / mean over personas, [..., persona] -> [...]; NaN where the mean is 0.

    All personas count, not only two of them. So it is less noisy than worst over best, and does
    not fall as personas are added. The lowest value is 1 - sqrt(personas - 1), one always being
    right and the others never. The std is that of the population, as `accuracy_std`.
    """
    return 1 - quotient(accuracy.std(axis=-1), accuracy.mean(axis=-1))


# By the names of `eval.pss` (core/config_fields.py) and of launch/compare.py --pss.
PSS: dict[str, Score] = {
    "min_over_max": pss_min_over_max,
    "mean_over_plain": pss_mean_over_plain,
    "one_minus_range": pss_one_minus_range,
    "worst_over_plain": pss_worst_over_plain,
    "one_minus_cv": pss_one_minus_cv,
}


def pss_formula(name: str) -> Score:
    """The formula of that name. Raises ValueError for an unknown one."""
    return PSS[valid_value("eval.pss", name)]


def on_decided_problems(correct: np.ndarray) -> np.ndarray:
    """`correct`, with NaN for all answers to a problem that has an answer without a verdict (NaN).

    So the accuracies of all personas are over the same problems. If every problem has a NaN, none
    would be left: then unknown answers count as wrong instead.
    """
    undecided = np.isnan(correct).any(axis=(0, 2), keepdims=True)
    return np.nan_to_num(correct) if undecided.all() else np.where(undecided, np.nan, correct)


def flip_rate_any(correct: np.ndarray) -> float:
    """Share of problems that are right under one persona and wrong under another.

    It is taken for each sample index and averaged over them. So its expectation does not depend on
    the number of samples, but it grows with the number of personas.
    """
    right, wrong = (correct == 1).any(axis=0), (correct == 0).any(axis=0)
    return float((right & wrong).sum() / (right | wrong).sum())


def disagreement(correct: np.ndarray) -> np.ndarray:
    """Probability that two answers under two different personas differ in correctness -> [problem].

    For persona pass rates a and b of a problem it is a (1 - b) + (1 - a) b, averaged over all pairs
    of different personas. It is unbiased for any number of samples, because answers under different
    personas are independent draws. It does not grow with the number of personas. NaN where fewer
    than two personas are scorable.
    """
    rate = _pass_rates(correct)
    people, rate = (~np.isnan(rate)).sum(axis=0), np.nan_to_num(rate)
    total = rate.sum(axis=0)
    # Over ordered pairs p != q, a_p (1 - a_q) sums to total (people - 1) - (total^2 - sum a^2).
    ordered = total * (people - 1) - (total**2 - (rate**2).sum(axis=0))
    return quotient(2 * ordered, people * (people - 1))


def disagreement_with_plain(correct: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """As `disagreement`, of an answer under a persona and one without; the mean over personas."""
    rate, rate_plain = _pass_rates(correct), _pass_rates(plain)
    return _mean_of_defined(rate * (1 - rate_plain) + (1 - rate) * rate_plain)


def disagreement_with_itself(correct: np.ndarray) -> np.ndarray:
    """As `disagreement`, of two answers under one persona: what sampling alone does -> [problem].

    Of n answers with k right, 2 k (n - k) / (n (n - 1)) of the pairs differ. It is the mean over
    personas, NaN where none has two scorable answers. `disagreement` minus this is the mean of
    (a - b)^2 over pairs of personas, the part that is due to the persona.
    """
    right, n = np.nansum(correct, axis=-1), (~np.isnan(correct)).sum(axis=-1)
    return _mean_of_defined(quotient(2 * right * (n - right), n * (n - 1)))


def stability(
    correct: np.ndarray,
    persona_ids: Sequence[str],
    correct_no_persona: np.ndarray,
    rng: np.random.Generator,
    resamples: int = 2000,
    pss: Score = pss_min_over_max,
) -> dict:
    """The content of `stability.json`: plain floats, lists and dicts.

    `n` counts scorable answers. `accuracy_std` is the population standard deviation over personas.
    `flip_rate` is `disagreement`, `flip_rate_plain` that with the plain prompt,
    `flip_rate_same_persona` that of sampling alone (None with one sample): means over problems.
    `mean_minus_none` and `worst_minus_none` are the mean, and the lowest, of the personas'
    accuracies minus the plain prompt's.

    Every `_ci95` holds for these personas over the population of problems. Accuracies have Wilson's
    interval with the problem as the unit. Worst, best, range and the scores that depend on them
    have the intervals of `extremes`. The rest are percentiles of the bootstrap.

    Worst, best, range, std and the score are biased where personas are nearly equal, because noise
    spreads worst and best apart. Eight personas of accuracy 0.95 with 200 answers each (true PSS 1)
    measure 0.96 on average, 89 personas of 0.6 with 300 answers 0.82. The interval corrects for it,
    so it lies mostly above the estimate. Compare policies on the same problems and personas.

    If nothing is right, the score is 0 / 0: `pss` is None and `pss_note` says why.

    Args:
      correct: [persona, problem, sample].
      persona_ids: one id for each persona.
      correct_no_persona: [problem, sample] of the same problems under the plain prompt.
      rng: draws the paired bootstrap, which resamples problems and not personas.
      pss: one of `PSS`, or any other function of that form.

    Raises:
      ValueError: an empty or misshapen array, a value other than 0, 1 or NaN, ids that do not
        fit or repeat, or a persona without one scorable answer.
    """
    correct, plain = np.asarray(correct, float), np.asarray(correct_no_persona, float)
    check_correct(correct, plain, persona_ids)
    weights = bootstrap_weights(correct.shape[1], resamples, rng)
    result = as_entries(measure(correct, plain, weights, pss))
    if result["pss"] is None:
        result["pss_note"] = "0 / 0: no answer was right; the score is not defined"
    result |= _flips(correct, plain, weights)
    return result | {"per_persona": gather_means(correct).by_persona(persona_ids, "accuracy")}


def accuracy_figures(accuracy: np.ndarray, plain: np.ndarray, pss: Score) -> dict[str, np.ndarray]:
    """The figures of accuracies [..., persona], and of that without a persona [...], each [...]."""
    return {
        "pss": pss(accuracy, plain),
        "accuracy_mean": accuracy.mean(axis=-1),
        "accuracy_worst": accuracy.min(axis=-1),
        "accuracy_best": accuracy.max(axis=-1),
        "accuracy_no_persona": plain,
        "accuracy_std": accuracy.std(axis=-1),
        "accuracy_range": np.ptp(accuracy, axis=-1),
        "mean_minus_none": accuracy.mean(axis=-1) - plain,
        "worst_minus_none": accuracy.min(axis=-1) - plain,
    }


class Figure(NamedTuple):
    """A value, its resamples [resample] and its 95 % interval, None if it is not defined."""

    value: float
    resampled: np.ndarray
    interval: list[float] | None


def as_entries(figures: Mapping[str, Figure]) -> dict:
    """Each value, None if it is not defined, and its `_ci95`."""
    result: dict = {}
    for name, figure in figures.items():
        result[name] = figure.value if np.isfinite(figure.value) else None
        result[f"{name}_ci95"] = figure.interval
    return result


def measure(
    correct: np.ndarray, plain: np.ndarray, weights: np.ndarray, pss: Score
) -> dict[str, Figure]:
    """Each of `accuracy_figures` of a policy's answers; `weights` [resample, problem]."""
    everyone, alone = gather_means(correct, weights), gather_means(plain[None], weights)
    together = gather_means(with_plain_first(correct, plain), weights)
    values = accuracy_figures(everyone.estimate, alone.estimate[0], pss)
    resampled = accuracy_figures(everyone.resampled, alone.resampled[:, 0], pss)
    intervals = {
        "pss": _score_interval(pss, values["pss"], everyone, together, resampled["pss"]),
        "accuracy_mean": everyone.wilson_together(),
        "accuracy_worst": extremes.worst_interval(everyone),
        "accuracy_best": extremes.best_interval(everyone),
        "accuracy_no_persona": alone.wilson_together(),
        "accuracy_std": _spread_interval(everyone),
        "accuracy_range": extremes.range_interval(everyone),
        "mean_minus_none": difference_interval(together, range(1, len(correct) + 1)),
        "worst_minus_none": extremes.worst_minus_first_interval(together),
    }
    return {name: Figure(float(values[name]), resampled[name], intervals[name]) for name in values}


def rescored(stability: Mapping, pss: Score) -> dict:
    """The content of a stability.json with the score of another formula.

    It follows from the accuracies in the file, for each set and kind of personas, too. Its interval
    and the `corrected` figures, which take the answers, are left out.
    """
    accuracy = np.array([entry["accuracy"] for entry in stability["per_persona"]])
    score = float(pss(accuracy, np.float64(stability["accuracy_no_persona"])))
    left = ("pss_ci95", "pss_note", "corrected")  # they take the answers
    result = {name: of for name, of in stability.items() if name not in left}
    result["pss"] = score if np.isfinite(score) else None
    for parts in ("by_set", "by_kind"):
        if parts in result:
            result[parts] = {name: rescored(of, pss) for name, of in result[parts].items()}
    return result


def with_plain_first(correct: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """[1 + persona, problem, sample], first without a persona; NaN where one has fewer samples."""
    samples = max(correct.shape[-1], plain.shape[-1])
    everyone = np.full((1 + len(correct), len(plain), samples), np.nan)
    everyone[0, :, : plain.shape[-1]] = plain
    everyone[1:, :, : correct.shape[-1]] = correct
    return everyone


def difference_interval(means: Means, members: Sequence[int]) -> list[float]:
    """95 % interval of the mean accuracy of the groups `members` minus that of group 0.

    Normal, of the variance over problems; it is smooth in the accuracies, so no bootstrap.
    """
    contrast = np.zeros(len(means.estimate))
    contrast[list(members)], contrast[0] = 1 / len(members), -1
    variance = contrast @ means.covariance @ contrast * means.problems / max(1, means.problems - 1)
    estimate, half = contrast @ means.estimate, Z_95 * np.sqrt(max(0.0, variance))
    return [float(estimate - half), float(estimate + half)]


def _score_interval(
    pss: Score, value: float, everyone: Means, together: Means, resampled: np.ndarray
) -> list[float] | None:
    """The interval of a score; `together` has the plain prompt before `everyone`."""
    if not np.isfinite(value):
        return None
    if pss is pss_min_over_max:
        return extremes.ratio_interval(everyone)
    if pss is pss_one_minus_range:
        low, high = extremes.range_interval(everyone)
        return [1 - high, 1 - low]
    if pss is pss_worst_over_plain:
        return extremes.worst_over_first_interval(together)
    if pss is pss_one_minus_cv:
        low, high = _spread_interval(everyone, relative=True)
        return [1 - high, 1 - low]
    return percentile_interval(resampled)


def _spread_interval(means: Means, relative: bool = False) -> list[float]:
    """95 % interval of the std of the accuracies; relative: divided by their mean."""
    # Noise raises the variance over personas by trace(C) / G - mean(C), where C is the covariance
    # of the accuracies. Resampling adds the same again.
    noise = np.trace(means.covariance) / len(means.estimate) - means.covariance.mean()
    variance = means.resampled.var(axis=-1)
    if relative:
        variance = quotient(variance, means.resampled.mean(axis=-1) ** 2)
        noise /= means.estimate.mean() ** 2
    variances = np.array(percentile_interval(variance)) - 2 * noise
    return np.sqrt(np.maximum(variances, 0)).tolist()


def check_correct(correct: np.ndarray, plain: np.ndarray, persona_ids: Sequence) -> None:
    """Raises ValueError as `stability` does."""
    require_axes("correct", correct, "persona", "problem", "sample")
    require_axes("correct_no_persona", plain, "problem", "sample")
    if len(plain) != correct.shape[1]:
        raise ValueError(
            f"correct_no_persona has {len(plain)} problems, correct {correct.shape[1]}: "
            "score the same problems with and without personas"
        )
    require_ids(persona_ids, len(correct), "correct")
    for name, values in [("correct_no_persona", plain), *zip(persona_ids, correct, strict=True)]:
        scorable = values[~np.isnan(values)]
        if not scorable.size:
            raise ValueError(f"{name}: no answer is scorable; check the gold answers")
        if not np.isin(scorable, (0, 1)).all():
            raise ValueError(f"{name}: values must be 0, 1 or NaN, got {np.unique(scorable)}")


def _flips(correct: np.ndarray, plain: np.ndarray, weights: np.ndarray) -> dict:
    by_problem = {
        "flip_rate": disagreement(correct) if len(correct) > 1 else np.zeros(len(plain)),
        "flip_rate_plain": disagreement_with_plain(correct, plain),
        "flip_rate_same_persona": disagreement_with_itself(correct),
    }
    result = {"flip_rate_any": flip_rate_any(correct)}
    for name, rates in by_problem.items():
        defined = not np.isnan(rates).all()
        result[name] = float(np.nanmean(rates)) if defined else None
        if defined:
            resampled = pooled_means(rates[None, :, None], weights)[:, 0]
            result[f"{name}_ci95"] = percentile_interval(resampled)
    return result


def _pass_rates(correct: np.ndarray) -> np.ndarray:
    return quotient(np.nansum(correct, axis=-1), (~np.isnan(correct)).sum(axis=-1))


def _mean_of_defined(rates: np.ndarray) -> np.ndarray:
    """[persona, problem] -> [problem]; NaN where no persona has a value."""
    return quotient(np.nansum(rates, axis=0), (~np.isnan(rates)).sum(axis=0))
