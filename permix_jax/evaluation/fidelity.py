"""How often a response is in its persona's style, where the task has an exact rule for it."""

from collections.abc import Mapping, Sequence

import numpy as np

from permix_jax.evaluation.statistics import (
    bootstrap_weights,
    percentile_interval,
    pooled_means,
    require_axes,
)


def fidelity(
    in_style: Mapping[str, np.ndarray],
    persona_ids: Sequence[str],
    rng: np.random.Generator,
    resamples: int = 2000,
) -> dict:
    """The content of `fidelity.json`: plain floats, lists and dicts.

    Args:
      in_style: for each task ("role_play", "arithmetic"), bool [persona, prompt, sample].
      persona_ids: one id for each persona.
      rng: draws the bootstrap over prompts, on its own for each task, paired over personas.
      resamples: number of bootstrap resamples.

    `fidelity` is the mean over the tasks, whatever their numbers of prompts; `n` counts responses.

    Raises:
      ValueError: no task, an empty or misshapen array, one that is not bool, or ids that do not
        fit or repeat.
    """
    if not in_style:
        raise ValueError("in_style is empty: give at least one task, such as role_play")

    by_task, resampled = {}, []
    for task, values in in_style.items():
        values = np.asarray(values)
        _check(task, values, persona_ids)
        weights = bootstrap_weights(values.shape[1], resamples, rng)
        resampled.append(pooled_means(values.astype(float), weights).mean(axis=-1))
        by_task[task] = {
            "fidelity": float(values.mean()),
            "fidelity_ci95": percentile_interval(resampled[-1]),
            "n": values.size,
            "per_persona": [
                {"persona": persona, "fidelity": float(row.mean()), "n": row.size}
                for persona, row in zip(persona_ids, values, strict=True)
            ],
        }
    return {
        "fidelity": float(np.mean([entry["fidelity"] for entry in by_task.values()])),
        "fidelity_ci95": percentile_interval(np.mean(resampled, axis=0)),
        "by_task": by_task,
    }


def _check(task: str, values: np.ndarray, persona_ids: Sequence[str]) -> None:
    name = f"in_style[{task!r}]"
    require_axes(name, values, "persona", "prompt", "sample")
    if values.dtype != bool:
        raise ValueError(f"{name} has dtype {values.dtype}: give bool")
    if len(set(persona_ids)) != len(persona_ids) or len(persona_ids) != len(values):
        raise ValueError(
            f"persona_ids {list(persona_ids)}: give {len(values)} different ids, "
            f"one for each row of {name}"
        )
