"""How much accuracy depends on the persona: the persona stability score and its company."""

from collections.abc import Callable, Sequence

import numpy as np

from permix_jax.evaluation.statistics import (
    bootstrap_weights,
    percentile_interval,
    pooled_means,
    require_axes,
)


def pss_min_over_max(accuracy: np.ndarray) -> np.ndarray:
    """Worst over best accuracy, [..., persona] -> [...]; 0 where the best is 0.

    The paper's abstract names the score and leaves its formula open: this one is ours.
    """
    worst, best = accuracy.min(axis=-1), accuracy.max(axis=-1)
    return np.divide(worst, best, out=np.zeros_like(best), where=best != 0)


def flip_rate(correct: np.ndarray) -> float:
    """Share of problems right under one persona, wrong under another; [persona, problem, sample].

    Each sample index is one pass over the problems, and the rate is the mean over passes: its
    expectation does not depend on the number of samples. Unscorable answers are neither right
    nor wrong, and a problem that no persona has a scorable answer to is left out of its pass.
    """
    right, wrong = (correct == 1).any(axis=0), (correct == 0).any(axis=0)
    return float((right & wrong).sum() / (right | wrong).sum())


def stability(
    correct: np.ndarray,
    persona_ids: Sequence[str],
    correct_no_persona: np.ndarray,
    rng: np.random.Generator,
    resamples: int = 2000,
    pss: Callable[[np.ndarray], np.ndarray] = pss_min_over_max,
) -> dict:
    """The content of `stability.json`: plain floats, lists and dicts.

    Args:
      correct: [persona, problem, sample], 1 right, 0 wrong, NaN unscorable.
      persona_ids: one id for each persona.
      correct_no_persona: [problem, sample] of the same problems under the plain prompt.
      rng: draws the paired bootstrap over problems. The personas are a fixed set: not resampled.
      resamples: number of bootstrap resamples.
      pss: accuracy [..., persona] -> score [...].

    The accuracy of a persona is the mean over its scorable answers, `n` their number;
    `accuracy_std` is the population standard deviation over personas, `accuracy_range` best
    minus worst; `flip_rate` as defined there.

    Where personas are nearly equal, the score and its interval are biased low: noise spreads the
    worst and the best apart, and resampling adds to it. Eight personas of accuracy 0.95 with 200
    answers each (true PSS 1) measure 0.96 [0.91, 0.97] on average, with 1000 answers
    0.98 [0.96, 0.99]. Compare policies on the same number of problems, and on many.

    Raises:
      ValueError: an empty or misshapen array, a value other than 0, 1 or NaN, ids that do not
        fit or repeat, or a persona without one scorable answer.
    """
    correct, plain = np.asarray(correct, float), np.asarray(correct_no_persona, float)
    _check(correct, persona_ids, plain)

    problems = correct.shape[1]
    once = np.ones((1, problems))
    weights = bootstrap_weights(problems, resamples, rng)
    accuracy, accuracy_plain = pooled_means(correct, once)[0], pooled_means(plain[None], once)[0]
    resampled = pooled_means(correct, weights)  # [resample, persona]
    resampled_plain = pooled_means(plain[None], weights)[:, 0]

    return {
        "pss": float(pss(accuracy)),
        "pss_ci95": percentile_interval(pss(resampled)),
        "accuracy_mean": float(accuracy.mean()),
        "accuracy_mean_ci95": percentile_interval(resampled.mean(axis=-1)),
        "accuracy_worst": float(accuracy.min()),
        "accuracy_best": float(accuracy.max()),
        "accuracy_no_persona": float(accuracy_plain[0]),
        "accuracy_no_persona_ci95": percentile_interval(resampled_plain),
        "accuracy_std": float(accuracy.std()),
        "accuracy_range": float(np.ptp(accuracy)),
        "flip_rate": flip_rate(correct),
        "per_persona": [
            {
                "persona": persona,
                "accuracy": float(accuracy[p]),
                "accuracy_ci95": percentile_interval(resampled[:, p]),
                "n": int((~np.isnan(correct[p])).sum()),
            }
            for p, persona in enumerate(persona_ids)
        ],
    }


def _check(correct: np.ndarray, persona_ids: Sequence[str], plain: np.ndarray) -> None:
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
