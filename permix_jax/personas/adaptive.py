"""Adaptive mixing: personas under which the policy is more often wrong are drawn more often.

What is remembered is two arrays, so that it can be saved with the policy. Between them, (state,
persona, correct) -> state is a pure function: a resumed run weighs as the uninterrupted one.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from permix_jax.core.persona import Persona

AdaptiveState = dict[str, np.ndarray]

# Accuracies that lie closer together than this are not stretched over all weights: after a few
# groups of eight rollouts a running accuracy has a standard error of about half of it.
SMALLEST_SPREAD = 0.1


def initial(num_personas: int) -> AdaptiveState:
    """Nothing seen: float32 [K] each of "accuracy" (running) and "count" (steps it was seen in)."""
    return {name: np.zeros(num_personas, np.float32) for name in ("accuracy", "count")}


def update(
    state: AdaptiveState, persona_index: np.ndarray, correct: np.ndarray, decay: float
) -> AdaptiveState:
    """The state after one step's rollouts, in any order; the given one is left as it is.

    A persona's running accuracy is the mean over the steps that saw it, the last one with weight 1,
    the one before with `decay`, then `decay`^2 and so on, divided by their sum: the first step sets
    it, without a bias towards 0. Personas that this step did not see keep theirs.

    Args:
      state: of K personas.
      persona_index: int [N], the persona of each rollout, or -1 for a plain prompt.
      correct: float [N], 1 right, 0 wrong, NaN where the gold answer cannot be read (ignored).
      decay: at least 0, below 1.
    """
    known = (persona_index >= 0) & ~np.isnan(correct)
    where, size = persona_index[known], len(state["count"])
    rollouts = np.bincount(where, minlength=size)
    right = np.bincount(where, weights=correct[known], minlength=size)
    seen = rollouts > 0

    accuracy, count = state["accuracy"].astype(np.float64), state["count"] + seen
    rate = (1 - decay) / (1 - decay ** count[seen].astype(np.float64))
    accuracy[seen] += rate * (right[seen] / rollouts[seen] - accuracy[seen])
    return {"accuracy": accuracy.astype(np.float32), "count": count.astype(np.float32)}


def weights(state: AdaptiveState, floor: float) -> np.ndarray:
    """Float64 [K]: how often to draw each persona, in units of the one drawn most.

    Linear in the accuracy, from 1 at the lowest to `floor` at the highest of those seen. The range
    counts and not the accuracy itself, which would leave a weak policy (5 to 30 % right) with
    nearly equal weights. Where it is below SMALLEST_SPREAD, weights stay closer to 1, and are all 1
    where no persona is worse than another. A persona not yet seen has weight 1, to be explored.
    """
    seen = state["count"] > 0
    result = np.ones(len(seen))
    if seen.any():
        accuracy = state["accuracy"][seen].astype(np.float64)
        above = accuracy - accuracy.min()
        result[seen] = 1 - (1 - floor) * above / max(above.max(), SMALLEST_SPREAD)
    return np.maximum(result, floor)  # 1 - (1 - floor) may round to less


def metrics(
    weights: np.ndarray, personas: Sequence[Persona], drawn_ids: Iterable[str]
) -> dict[str, float]:
    """What a step logs: the weights of the personas it drew, and how uneven all weights are.

    "personas/weight_entropy" is that of the weights [K], made to sum to 1, in nats; log K if equal.
    """
    drawn, share = set(drawn_ids), weights / weights.sum()
    return {
        **{
            f"persona/{persona.id}/weight": float(weight)
            for persona, weight in zip(personas, weights, strict=True)
            if persona.id in drawn
        },
        "personas/weight_max_over_min": float(weights.max() / weights.min()),
        "personas/weight_entropy": float(-np.sum(share * np.log(share))),
    }
