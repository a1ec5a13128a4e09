"""What k answers to one problem come to: pass@k, average@k and majority@k, from n >= k answers.

Each is the mean over all subsets of k of the n answers (a U-statistic). So each is exact for the
answers that were drawn, and unbiased for any n >= k.

- average@k: the accuracy, for every k. It is named by the n answers that it is measured from.
- pass@k: whether one of the k is right. 1 - C(n - c, k) / C(n, k) with c right ones of n (Chen et
  al. 2021, arXiv 2107.03374).
- majority@k: whether the answer that most of the k state is right. Of t answers that are stated
  equally often, each counts 1 / t. The right answers are one answer, however they are written. The
  others are told apart by what they state. A wrong text that states nothing has no vote, and where
  none of the k has one, the problem counts as wrong.

pass@1 and majority@1 are the accuracy. pass@k grows with k; majority@k need not.

Arrays: correct [..., sample] is 1, 0 or NaN (no verdict: left out). stated [..., sample] is int:
answers that are stated alike have the same number, and -1 states nothing.
"""

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import comb

import numpy as np

from permix_jax.stats import extremes
from permix_jax.stats.statistics import gather_means

_MOST = 1000  # answers to a problem; the number of subsets of more is beyond a float


def subset_sizes(samples: int) -> list[int]:
    """The k that are measured from so many samples: powers of two, and `samples` itself."""
    return [*(1 << i for i in range((samples - 1).bit_length())), samples]


def average_at(correct: np.ndarray) -> np.ndarray:
    """The share of right answers, [..., sample] -> [...]; NaN where none has a verdict."""
    known = ~np.isnan(correct)
    n = known.sum(axis=-1)
    return np.where(n, np.nansum(correct, axis=-1) / np.maximum(n, 1), np.nan)


def pass_at(correct: np.ndarray, k: int) -> np.ndarray:
    """The chance that one of k answers is right, [..., sample] -> [...]; NaN where n < k."""
    n = (~np.isnan(correct)).sum(axis=-1)
    wrong = n - np.nansum(correct, axis=-1)
    none_right = np.ones(n.shape)
    for drawn in range(k):
        none_right *= np.maximum(wrong - drawn, 0) / np.maximum(n - drawn, 1)
    return np.where(n < k, np.nan, 1 - none_right)


def majority_at(correct: np.ndarray, stated: np.ndarray, k: int) -> np.ndarray:
    """The chance that the majority of k answers is right, [..., sample] -> [...].

    NaN where n < k, and where n is above 1000.
    """
    samples = correct.shape[-1]
    rows = zip(correct.reshape(-1, samples), stated.reshape(-1, samples), strict=True)
    chances = [_majority_of_problem(right, answers, k) for right, answers in rows]
    return np.array(chances).reshape(correct.shape[:-1])


def samples_figures(
    correct: np.ndarray,
    stated: np.ndarray | None,
    persona_ids: Sequence[str],
    weights: np.ndarray,
) -> dict[str, dict]:
    """`at_k` of stability.json: "average@n", then "pass@k" and "majority@k" by `subset_sizes`.

    Each has `mean` and `worst` over the personas, `no_persona`, each with its `_ci95`, and
    `per_persona` with `value`, `value_ci95` and `n` answers. The intervals are those of the
    accuracies: Wilson's with the problem as the unit, and for the worst that of `extremes`, with
    the paired bootstrap. At k = 1 they are equal to them.

    Args:
      correct: [1 + persona, problem, sample], first without a persona. A problem has verdicts on
        all its answers or on none (`on_decided_problems`).
      stated: int, of the same shape; None: not known, and majority@k is left out.
      persona_ids: one id for each persona.
      weights: [resample, problem] of the bootstrap, those of the accuracies.
    """
    samples = correct.shape[-1]
    by_problem = {f"average@{samples}": average_at(correct)}
    by_problem |= {f"pass@{k}": pass_at(correct, k) for k in subset_sizes(samples)}
    if stated is not None and samples <= _MOST:
        for k in subset_sizes(samples):
            by_problem[f"majority@{k}"] = majority_at(correct, stated, k)
    return {
        name: _over_problems(values, samples, persona_ids, weights)
        for name, values in by_problem.items()
    }


def _over_problems(
    values: np.ndarray, samples: int, persona_ids: Sequence[str], weights: np.ndarray
) -> dict:
    """The figures of `values` [1 + persona, problem], each of which is of so many answers."""
    # As often as there are answers: the number of answers bounds what Wilson's interval takes for
    # the size of the sample.
    repeated = np.repeat(values[..., None], samples, axis=-1)
    alone, everyone = gather_means(repeated[:1]), gather_means(repeated[1:], weights)
    return {
        "mean": float(everyone.estimate.mean()),
        "mean_ci95": everyone.wilson_together(),
        "worst": float(everyone.estimate.min()),
        "worst_ci95": extremes.worst_interval(everyone),
        "no_persona": float(alone.estimate[0]),
        "no_persona_ci95": alone.wilson_together(),
        "per_persona": everyone.by_persona(persona_ids, "value"),
    }


def _majority_of_problem(right: np.ndarray, stated: np.ndarray, k: int) -> float:
    known = ~np.isnan(right)
    votes = Counter(stated[known & (right == 0)].tolist())
    silent = votes.pop(-1, 0)
    if not k <= known.sum() <= _MOST:
        return np.nan
    return _majority(int(np.nansum(right)), tuple(sorted(votes.values())), silent)[k]


@lru_cache(1 << 14)
def _majority(right: int, wrong: tuple[int, ...], silent: int) -> np.ndarray:
    """The chance that a subset's majority is right, by its size, f64 [n + 1].

    Subsets are counted by generating functions: the power of x is the size. With `most` right
    answers in the subset, a wrong answer may stand in it at most as often. Those that do so exactly
    are counted apart, as ties.

    Args:
      right: number of right answers. wrong: how often each wrong answer is stated. silent: number
        of answers without a vote.
    """
    n = right + sum(wrong) + silent
    won = np.zeros(n + 1)
    for most in range(1, right + 1):
        ways = [_subsets(silent)]  # by number of ties
        for size in wrong:
            fewer, as_many = _subsets(size)[:most], np.zeros(0)
            if size >= most:
                as_many = np.append(np.zeros(most), comb(size, most))
            ways = _times(ways, fewer, as_many)
        for ties, each in enumerate(ways):
            won[most : most + len(each)] += comb(right, most) * each / (1 + ties)
    return won / _subsets(n)


def _times(ways: list[np.ndarray], fewer: np.ndarray, as_many: np.ndarray) -> list[np.ndarray]:
    """The ways by number of ties, with one more wrong answer; `as_many` is empty or a new tie."""
    longest = max(map(len, ways)) + max(len(fewer), len(as_many)) - 1
    result = np.zeros((len(ways) + bool(len(as_many)), longest))
    for ties, each in enumerate(ways):
        for more, factor in enumerate((fewer, as_many)):
            if len(factor):
                product = np.convolve(each, factor)
                result[ties + more, : len(product)] += product
    return list(result)


def _subsets(n: int) -> np.ndarray:
    """How many subsets of n there are, by their size, f64 [n + 1]."""
    return np.array([comb(n, size) for size in range(n + 1)], float)
