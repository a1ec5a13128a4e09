"""Whether personas answer one problem alike: agreement, and Fleiss' kappa.

The personas are the raters and the problems are what they rate. Two ratings of a problem are those
of two different personas. So what sampling does under one persona is no agreement of personas, and
with one sample for each this is Fleiss' (1971) kappa.

- agreement: the chance that two personas rate a problem alike, P. Mean over problems.
- kappa: (P - E) / (1 - E), where E = sum_j p_j^2 is the agreement of ratings that are drawn from
  all problems together, and p_j the share of rating j in them. 1: the personas always agree. 0:
  they agree as often as by chance. Where nearly all answers are right, E is high, and few
  disagreements make kappa low: read it beside the agreement.

Two kinds of rating: whether the answer is right (`verdicts`), and which answer it is (`answers`).
Personas that are right equally often, each on other problems, agree little in both. Personas that
fail on the same problems, with other wrong answers, agree in the first and not in the second.

Arrays: correct [persona, problem, sample] is 1, 0 or NaN (no verdict). A problem with NaN is left
out. Ratings are int of the same shape, and any numbers.
"""

import numpy as np

from permix_jax.stats.statistics import Z_95, require_axes


def agreement_figures(correct: np.ndarray, stated: np.ndarray | None) -> dict[str, dict]:
    """`agreement` of stability.json: that of the `verdict` and, if it is known, of the `answer`.

    Each has `agreement`, `kappa` (None if it is 0 / 0) and their `_ci95`. Both are None for one
    persona, and where no problem is decided.

    Args:
      correct: f64 [persona, problem, sample].
      stated: int of the same shape, as in `samples`; None: not known.
    """
    ratings = {"verdict": verdicts(correct)}
    if stated is not None:
        ratings["answer"] = answers(correct, stated)
    decided = ~np.isnan(correct).any(axis=(0, 2))
    if len(correct) < 2 or not decided.any():
        return {name: {"agreement": None, "kappa": None} for name in ratings}
    return {name: fleiss_kappa(rated[:, decided]) for name, rated in ratings.items()}


def verdicts(correct: np.ndarray) -> np.ndarray:
    """Ratings of right (1), wrong (0) and unknown (-1)."""
    return np.nan_to_num(correct, nan=-1).astype(int)


def answers(correct: np.ndarray, stated: np.ndarray) -> np.ndarray:
    """Ratings of the answers: equal where two answers are the same.

    All right answers to a problem are one, however they are written: the one that is stated most
    often. A wrong one that states nothing (-1) is like all others that state nothing.
    """
    rated, new = stated.copy(), stated.max() + 1
    for problem in range(stated.shape[1]):
        right = correct[:, problem] == 1
        written = stated[:, problem][right]
        written = written[written >= 0]
        one = np.bincount(written).argmax() if len(written) else new + problem
        rated[:, problem][right] = one
    return rated


def fleiss_kappa(ratings: np.ndarray) -> dict:
    """`agreement` and `kappa` of int [persona, problem, sample], each with its `_ci95`.

    The problem is the unit of the intervals, which are normal and cut off at the ends of what is
    possible. That of kappa has Gwet's (2021) large-sample variance, over problems that are a sample
    of many. It has no width where all personas agree on all problems. kappa is None where all
    ratings are the same.

    Raises:
      ValueError: an empty array, or fewer than two personas.
    """
    alike, agreement, chance, moved = _parts(ratings)
    result = {"agreement": agreement, "agreement_ci95": _interval(agreement, alike, 0.0)}
    if moved is None:
        return result | {"kappa": None, "kappa_ci95": None}
    kappa = (agreement - chance) / (1 - chance)
    return result | {"kappa": kappa, "kappa_ci95": _interval(kappa, moved, -1.0)}


def kappa_by_problem(ratings: np.ndarray) -> np.ndarray:
    """[problem], whose mean is kappa, and whose resampled mean is nearly that of the resample; NaN
    where all ratings are the same. Raises as `fleiss_kappa` does."""
    *_, moved = _parts(ratings)
    return np.full(ratings.shape[1], np.nan) if moved is None else moved


def _parts(ratings: np.ndarray) -> tuple[np.ndarray, float, float, np.ndarray | None]:
    """Agreement by problem, its mean, that by chance, and how much each problem moves kappa."""
    require_axes("ratings", ratings, "persona", "problem", "sample")
    personas, problems, _ = ratings.shape
    if personas < 2:
        raise ValueError("ratings are of one persona: agreement takes two or more")
    _, codes = np.unique(ratings, return_inverse=True)
    codes = codes.reshape(ratings.shape)
    share = np.bincount(codes.ravel()) / codes.size
    alike = np.array([_alike(codes[:, problem]) for problem in range(problems)])
    by_chance = share[codes].mean(axis=(0, 2))  # of a problem's ratings with those of all
    agreement, chance = float(alike.mean()), float(by_chance.mean())
    if chance >= 1:
        return alike, agreement, chance, None
    kappa = (agreement - chance) / (1 - chance)
    # By its own agreement, and by its part in the chance.
    moved = (alike - chance) / (1 - chance) - 2 * (1 - kappa) * (by_chance - chance) / (1 - chance)
    return alike, agreement, chance, moved


def _alike(codes: np.ndarray) -> float:
    """The share of pairs of different personas with the same code; codes [persona, sample]."""
    personas, samples = codes.shape
    counts = np.zeros((personas, len(np.unique(codes))))
    places = np.unique(codes, return_inverse=True)[1].reshape(codes.shape)
    np.add.at(counts, (np.arange(personas)[:, None], places), 1)
    same = (counts.sum(axis=0) ** 2 - (counts**2).sum(axis=0)).sum()
    return float(same / (samples**2 * personas * (personas - 1)))


def _interval(value: float, by_problem: np.ndarray, lowest: float) -> list[float]:
    n = len(by_problem)
    half = Z_95 * by_problem.std(ddof=1) / np.sqrt(n) if n > 1 else 1 - lowest
    return [max(lowest, value - float(half)), min(1.0, value + float(half))]
