"""Reward terms: buy no verdict, but make a reward of it: plain functions, added up with weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from permix_jax.core.fields import told
from permix_jax.core.problem import Problem
from permix_jax.rewards.answer import extract_answer


class Completion(NamedTuple):
    """What a term sees: the text, how many tokens it took (its end token counts) and could have
    taken, the verifier's verdict (1, 0, or NaN where it is unknown), and the part of the text in
    which the answer is looked for, behind thinking; None: all of it."""

    text: str
    tokens: int
    max_tokens: int
    truncated: bool
    problem: Problem
    correct: float
    answer_part: str | None = None


class Term(NamedTuple):
    """A term of the reward; it is logged as `rewards/<name>/mean`, before its weight."""

    name: str
    weight: float
    value: Callable[[Completion], float]


def correctness(completion: Completion) -> float:
    """The verdict of the verifier."""
    return completion.correct


def answer_format(completion: Completion) -> float:
    r"""1 if an answer is stated where it can be found, in \boxed{} or after ####, else 0."""
    part = completion.text if completion.answer_part is None else completion.answer_part
    return float(extract_answer(part) is not None)


def soft_overlong(ramp: int) -> Callable[[Completion], float]:
    """0 up to `ramp` tokens below the budget, from there linearly down to -1 at the budget.

    The soft overlong punishment of DAPO (arXiv 2503.14476, eq. 13), in tokens. A truncated
    completion gets -1.
    """

    def value(completion: Completion) -> float:
        if completion.truncated:
            return -1.0
        return min(0.0, (completion.max_tokens - ramp - completion.tokens) / ramp)

    return value


def reward_terms(weights: Mapping[str, float], overlong_tokens: int) -> list[Term]:
    """The terms of a config's `rewards`: those whose weight is not 0."""
    values = {"correctness": correctness, "format": answer_format}
    if weights["overlong"]:
        values["overlong"] = soft_overlong(overlong_tokens)
    return [Term(name, weights[name], value) for name, value in values.items() if weights[name]]


def term_values(
    terms: Sequence[Term], completions: Sequence[Completion]
) -> tuple[np.ndarray, dict[str, float]]:
    """The terms f64 [N, K], before their weights, NaN where the verdict is unknown; and their means
    over the completions that have a verdict, if any has.

    Raises ValueError if a term fails, or is not finite for a completion that has a verdict.
    """

    def value(term: Term, completion: Completion) -> float:
        try:
            given = term.value(completion)
            return np.nan if given is None else float(given)
        except Exception as error:
            raise ValueError(f"reward term {term.name!r} fails: {told(error)}; mend it") from error

    values = np.array([[value(term, c) for term in terms] for c in completions], np.float64)
    values = values.reshape(len(completions), len(terms))
    known = ~np.isnan([completion.correct for completion in completions])
    for term, column in zip(terms, values[known].T, strict=True):
        if not np.isfinite(column).all():
            raise ValueError(
                f"reward term {term.name!r} gave {column[~np.isfinite(column)][0]}; return a "
                "finite number for every completion"
            )
    values[~known] = np.nan
    means = values[known].mean(axis=0) if known.any() else []
    return values, {f"rewards/{t.name}/mean": float(x) for t, x in zip(terms, means, strict=False)}


def weighted(terms: Sequence[Term], values: np.ndarray) -> np.ndarray:
    """The rewards f32 [N]: sums of the values [N, K] times the terms' weights."""
    return np.float32(values @ np.array([term.weight for term in terms]))


def total_reward(
    terms: Sequence[Term], completions: Sequence[Completion]
) -> tuple[np.ndarray, dict[str, float]]:
    """The rewards f32 [N], NaN where the verdict is unknown, and the terms' means: as training has
    them."""
    values, means = term_values(terms, completions)
    return weighted(terms, values), means
