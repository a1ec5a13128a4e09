"""Adaptive mixing draws a persona more often if the policy is more often wrong under it.

The state, two arrays, is saved with the policy; so a resumed run has the same weights.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from permix_jax.core.persona import Persona

AdaptiveState = dict[str, np.ndarray]

# A smaller range of accuracies is not stretched over all weights: after a few groups of eight
# rollouts a running accuracy has a standard error of about half of this.
SMALLEST_SPREAD = 0.1


def initial(num_personas: int) -> AdaptiveState:
    """The state before any step: float32 [K] of "accuracy" (running) and of "count" (steps)."""
    return {name: np.zeros(num_personas, np.float32) for name in ("accuracy", "count")}


def update(
    state: AdaptiveState, persona_index: np.ndarray, correct: np.ndarray, decay: float
) -> AdaptiveState:
    """The state after a step's rollouts, whose order does not matter; `state` is not changed.

    The running accuracy of a persona is the weighted mean over the steps that saw it: weight 1 for
    the last step, `decay` for the one before, then `decay`^2 and so on. The weights are divided by
    their sum, so there is no bias towards 0. A persona that this step did not see keeps its value.

    Args:
      state: of K personas.
      persona_index: int [N], the persona of each rollout; -1 is a plain prompt.
      correct: float [N], 1 right, 0 wrong, NaN without a verdict (ignored).
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
    """Float64 [K]: how often to draw each persona, relative to the one drawn most.

    Weights are linear in the accuracy: 1 at the lowest accuracy seen, `floor` at the highest. They
    depend on the range, because a weak policy (5 to 30 % right) would get nearly equal weights from
    the accuracies themselves. If the range is below SMALLEST_SPREAD, weights stay closer to 1. A
    persona that was not seen yet has weight 1, so that it is explored.
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
    """The metrics of a step: the weights of the personas it drew, and how uneven all weights are.

    "personas/weight_entropy" is the entropy in nats of the weights [K] over their sum; log K if
    they are equal.
    """
    drawn, share = set(drawn_ids), weights / weights.sum()
    pairs = zip(personas, weights, strict=True)
    return {
        **{f"persona/{p.id}/weight": float(weight) for p, weight in pairs if p.id in drawn},
        "personas/weight_max_over_min": float(weights.max() / weights.min()),
        "personas/weight_entropy": float(-np.sum(share * np.log(share))),
    }
