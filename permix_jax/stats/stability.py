"""How much accuracy depends on the persona: the persona stability score and its company.

The paper's abstract names the score and leaves its formula open; the formulas here are ours.
"""

from collections.abc import Callable, Sequence

import numpy as np

from permix_jax.core.field_rules import valid_value
from permix_jax.stats.extremes import (
    Means,
    best_interval,
    range_interval,
    ratio_interval,
    worst_interval,
)
from permix_jax.stats.statistics import (
    bootstrap_weights,
    means_covariance,
    percentile_interval,
    pooled_means,
    require_axes,
    two_way_interval,
    wilson_limits,
)

Score = Callable[[np.ndarray, np.ndarray], np.ndarray]  # [..., persona], plain [...] -> [...]


def pss_min_over_max(accuracy: np.ndarray, plain: np.ndarray | None = None) -> np.ndarray:
    """Worst over best accuracy, [..., persona] -> [...]; NaN where the best is 0."""
    return _quotient(accuracy.min(axis=-1), accuracy.max(axis=-1))


def pss_mean_over_plain(accuracy: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """Mean accuracy over personas divided by that without one; NaN where the latter is 0.

    Not bounded by 1, and blind to how unequal the personas are.
    """
    return _quotient(accuracy.mean(axis=-1), plain)


def pss_one_minus_range(accuracy: np.ndarray, plain: np.ndarray | None = None) -> np.ndarray:
    """1 - (best - worst accuracy), [..., persona] -> [...]. A policy that is always wrong has 1."""
    return 1 - np.ptp(accuracy, axis=-1)


PSS: dict[str, Score] = {
    "min_over_max": pss_min_over_max,
    "mean_over_plain": pss_mean_over_plain,
    "one_minus_range": pss_one_minus_range,
}


def pss_formula(name: str) -> Score:
    """The formula of that name. Raises ValueError for an unknown one."""
    return PSS[valid_value("eval.pss", name)]


def on_decided_problems(correct: np.ndarray) -> np.ndarray:
    """`correct` [persona, problem, sample], NaN for all answers to a problem that has one NaN.

    An answer whose verdict is unknown would otherwise be missing under one persona only, and the
    accuracies of two personas would be over different problems. Where every problem has a NaN, no
    problem would be left: then an unknown answer counts as wrong, for all personas alike.
    """
    undecided = np.isnan(correct).any(axis=(0, 2), keepdims=True)
    return np.nan_to_num(correct) if undecided.all() else np.where(undecided, np.nan, correct)


def flip_rate_any(correct: np.ndarray) -> float:
    """Share of problems right under one persona, wrong under another; [persona, problem, sample].

    Each sample index is one pass over the problems, and the rate is the mean over passes: its
    expectation does not depend on the number of samples, but it grows with that of personas.
    Unscorable answers are neither right nor wrong, and a problem that no persona has a scorable
    answer to is left out of its pass.
    """
    right, wrong = (correct == 1).any(axis=0), (correct == 0).any(axis=0)
    return float((right & wrong).sum() / (right | wrong).sum())


def disagreement(correct: np.ndarray) -> np.ndarray:
    """Probability that two answers under two different personas differ in correctness.

    For persona pass rates a and b of a problem it is a (1 - b) + (1 - a) b, here averaged over
    all pairs of different personas, [persona, problem, sample] -> [problem]. Answers under
    different personas are independent draws, so the estimate is unbiased for any number of
    samples (with one greedy answer each it is the share of pairs that differ), and it does not
    grow with the number of personas. NaN where fewer than two personas are scorable.
    """
    right, scorable = np.nansum(correct, axis=-1), (~np.isnan(correct)).sum(axis=-1)
    rate = np.divide(right, scorable, out=np.zeros_like(right), where=scorable > 0)
    asked = scorable > 0
    total, people = rate.sum(axis=0), asked.sum(axis=0)
    # Over ordered pairs p != q, a_p (1 - a_q) sums to total (people - 1) - (total^2 - sum a^2).
    ordered = total * (people - 1) - (total**2 - (rate**2).sum(axis=0))
    pairs = people * (people - 1)
    return np.divide(2 * ordered, pairs, out=np.full_like(total, np.nan), where=pairs > 0)


def disagreement_with_plain(correct: np.ndarray, plain: np.ndarray) -> np.ndarray:
    """The same between an answer under a persona and one under none -> [problem].

    The mean over personas; `plain` is [problem, sample].
    """
    rate, rate_plain = _pass_rates(correct), _pass_rates(plain)
    return _mean_of_defined(rate * (1 - rate_plain) + (1 - rate) * rate_plain)


def disagreement_with_itself(correct: np.ndarray) -> np.ndarray:
    """The same between two answers under one persona -> [problem]: what sampling alone does.

    Of n answers, k right, 2 k (n - k) / (n (n - 1)) of the pairs differ; the mean over personas,
    NaN where none has two scorable answers. `disagreement` minus this is the mean of
    (a - b)^2 over pairs of personas: the part of the flips that is due to the persona.
    """
    right, n = np.nansum(correct, axis=-1), (~np.isnan(correct)).sum(axis=-1)
    pairs = n * (n - 1)
    differing = 2 * right * (n - right)
    return _mean_of_defined(
        np.divide(differing, pairs, out=np.full_like(differing, np.nan), where=pairs > 0)
    )


def stability(
    correct: np.ndarray,
    persona_ids: Sequence[str],
    correct_no_persona: np.ndarray,
    rng: np.random.Generator,
    resamples: int = 2000,
    pss: Score = pss_min_over_max,
) -> dict:
    """The content of `stability.json`: plain floats, lists and dicts.

    Args:
      correct: [persona, problem, sample], 1 right, 0 wrong, NaN unscorable.
      persona_ids: one id for each persona.
      correct_no_persona: [problem, sample] of the same problems under the plain prompt.
      rng: draws the paired bootstrap over problems. The personas are a fixed set: not resampled.
      resamples: number of bootstrap resamples.
      pss: accuracy [..., persona], accuracy without persona [...] -> score [...]; one of `PSS`.

    The accuracy of a persona is the mean over its scorable answers, `n` their number;
    `accuracy_std` is the population standard deviation over personas, `accuracy_range` best
    minus worst. `flip_rate` is `disagreement`, `flip_rate_plain` that with the plain prompt,
    `flip_rate_same_persona` that of sampling alone (None with one sample), each the mean over
    problems; `flip_rate_any` as defined there.

    Every `_ci95` covers the figure of these personas over the population of problems. How they
    are made: accuracies by Wilson's interval with the problem as the unit; worst, best, range and
    the scores made of them by `extremes`; the rest by percentiles of the bootstrap.

    The estimates of worst, best, range, std and the score themselves are biased where personas
    are nearly equal: noise spreads worst and best apart. Eight personas of accuracy 0.95 with 200
    answers each (true PSS 1) measure 0.96 on average, 89 personas of 0.6 with 300 answers 0.82.
    The interval makes up for it and then lies mostly above the estimate. Compare policies on the
    same problems and the same personas.

    Where nothing is right, the score is 0 / 0: `pss` and `pss_ci95` are None, and `pss_note` says
    why.

    Raises:
      ValueError: an empty or misshapen array, a value other than 0, 1 or NaN, ids that do not
        fit or repeat, or a persona without one scorable answer.
    """
    correct, plain = np.asarray(correct, float), np.asarray(correct_no_persona, float)
    check_correct(correct, plain, persona_ids)

    problems = correct.shape[1]
    weights = bootstrap_weights(problems, resamples, rng)
    everyone = gather_means(correct, weights)
    alone = gather_means(plain[None], weights)
    lows, highs = _wilson(everyone)
    values = figures(everyone.estimate, alone.estimate[0], pss)
    intervals = figure_intervals(everyone, alone, pss)
    result = {}
    for name, value in values.items():
        result[name] = float(value) if np.isfinite(value) else None
        result[f"{name}_ci95"] = intervals[name]
    if result["pss"] is None:
        result["pss_note"] = "0 / 0: no answer was right; the score is not defined"
    result |= _flips(correct, plain, weights)
    return result | {
        "per_persona": [
            {
                "persona": persona,
                "accuracy": float(everyone.estimate[p]),
                "accuracy_ci95": [float(lows[p]), float(highs[p])],
                "n": int(everyone.answers[p]),
            }
            for p, persona in enumerate(persona_ids)
        ],
    }


def mean_over_personas(
    correct: np.ndarray,
    correct_no_persona: np.ndarray,
    rng: np.random.Generator,
    resamples: int = 2000,
) -> dict:
    """The mean accuracy, and its distance from the plain prompt's, where personas are a sample too.

    Their intervals cover personas like these on problems like these (`two_way_interval`). For
    worst, best and what is made of them there is no such interval: a wider population of personas
    has a lower worst one.

    Args as for `stability`. Returns `accuracy_mean` and `gap` (mean - plain) with `_ci95`, None
    for a single persona.
    """
    correct, plain = np.asarray(correct, float), np.asarray(correct_no_persona, float)
    check_correct(correct, plain, range(len(correct)))
    weights = bootstrap_weights(correct.shape[1], resamples, rng)
    everyone, alone = gather_means(correct, weights), gather_means(plain[None], weights)
    result = {}
    for name, baseline in (("accuracy_mean", None), ("gap", alone)):
        estimate, resampled = everyone.estimate, everyone.resampled
        if baseline is not None:
            estimate, resampled = estimate - baseline.estimate, resampled - baseline.resampled
        resampled = resampled[~np.isnan(resampled).any(axis=1)]
        mean, half = two_way_interval(estimate, resampled)
        result[name] = mean
        result[f"{name}_ci95"] = None if np.isnan(half) else [mean - half, mean + half]
    return result


def gather_means(correct: np.ndarray, weights: np.ndarray) -> Means:
    """Accuracies of [persona, problem, sample], with resamples by weights [resample, problem]."""
    problems = correct.shape[1]
    return Means(
        estimate=pooled_means(correct, np.ones((1, problems)))[0],
        resampled=pooled_means(correct, weights),
        covariance=means_covariance(correct),
        answers=(~np.isnan(correct)).sum(axis=(1, 2)),
        problems=problems,
    )


def figures(accuracy: np.ndarray, plain: np.ndarray, pss: Score) -> dict[str, np.ndarray]:
    """All figures of accuracies [..., persona] and of that without persona [...], each [...]."""
    return {
        "pss": pss(accuracy, plain),
        "accuracy_mean": accuracy.mean(axis=-1),
        "accuracy_worst": accuracy.min(axis=-1),
        "accuracy_best": accuracy.max(axis=-1),
        "accuracy_no_persona": plain,
        "accuracy_std": accuracy.std(axis=-1),
        "accuracy_range": np.ptp(accuracy, axis=-1),
    }


def figure_intervals(everyone: Means, alone: Means, pss: Score) -> dict[str, list[float] | None]:
    """The 95 % interval of every entry of `figures`, None where the score is not defined; `alone`
    has the plain prompt as one group."""
    span = range_interval(everyone)
    if not np.isfinite(pss(everyone.estimate, alone.estimate[0])):
        score = None
    elif pss is pss_min_over_max:
        score = ratio_interval(everyone)
    elif pss is pss_one_minus_range:
        score = [1 - span[1], 1 - span[0]]
    else:
        score = percentile_interval(pss(everyone.resampled, alone.resampled[:, 0]))
    together = everyone._replace(
        estimate=everyone.estimate.mean(keepdims=True),
        covariance=everyone.covariance.mean(keepdims=True),
        answers=everyone.answers.sum(keepdims=True),
    )
    return {
        "pss": score,
        "accuracy_mean": [float(limit[0]) for limit in _wilson(together)],
        "accuracy_worst": worst_interval(everyone),
        "accuracy_best": best_interval(everyone),
        "accuracy_no_persona": [float(limit[0]) for limit in _wilson(alone)],
        "accuracy_std": _std_interval(everyone),
        "accuracy_range": span,
    }


def check_correct(correct: np.ndarray, plain: np.ndarray, persona_ids: Sequence) -> None:
    """Raises ValueError as `stability` says."""
    require_axes("correct", correct, "persona", "problem", "sample")
    require_axes("correct_no_persona", plain, "problem", "sample")
    if len(plain) != correct.shape[1]:
        raise ValueError(
            f"correct_no_persona has {len(plain)} problems, correct {correct.shape[1]}: "
            "score the same problems with and without personas"
        )
    if len(set(persona_ids)) != len(persona_ids) or len(persona_ids) != len(correct):
        raise ValueError(
            f"persona_ids {list(persona_ids)}: give {len(correct)} different ids, "
            "one for each row of correct"
        )
    for name, values in [("correct_no_persona", plain), *zip(persona_ids, correct, strict=True)]:
        scorable = values[~np.isnan(values)]
        if not scorable.size:
            raise ValueError(f"{name}: no answer is scorable; check the gold answers")
        if not np.isin(scorable, (0, 1)).all():
            raise ValueError(f"{name}: values must be 0, 1 or NaN, got {np.unique(scorable)}")


def _wilson(means: Means) -> tuple[np.ndarray, np.ndarray]:
    return wilson_limits(means.estimate, np.diag(means.covariance), means.problems, means.answers)


def _std_interval(means: Means) -> list[float]:
    """Percentiles of the variance over personas, less what noise adds, as standard deviations.

    A variance is quadratic in the accuracies: noise raises the estimate by trace(C) / G - mean(C),
    with C their covariance, and resampling raises it by as much again.
    """
    noise = np.trace(means.covariance) / len(means.estimate) - means.covariance.mean()
    limits = np.array(percentile_interval(means.resampled.var(axis=-1))) - 2 * noise
    return np.sqrt(np.maximum(limits, 0)).tolist()


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
    right, n = np.nansum(correct, axis=-1), (~np.isnan(correct)).sum(axis=-1)
    return np.divide(right, n, out=np.full_like(right, np.nan), where=n > 0)


def _mean_of_defined(rates: np.ndarray) -> np.ndarray:
    """Mean over personas [persona, problem] -> [problem], NaN where none is defined."""
    n = (~np.isnan(rates)).sum(axis=0)
    total = np.nansum(rates, axis=0)
    return np.divide(total, n, out=np.full_like(total, np.nan), where=n > 0)


def _quotient(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    above, below = np.asarray(above, float), np.asarray(below, float)
    return np.divide(above, below, out=np.full_like(above, np.nan), where=below != 0)
