"""How often a response is in its persona's style, where the task has an exact rule for it."""

from collections.abc import Mapping, Sequence

import numpy as np

from permix_jax.stats.statistics import gather_means, require_axes, require_ids


def rule_fidelity(in_style: Mapping[str, np.ndarray], persona_ids: Sequence[str]) -> dict:
    """The content of `fidelity.json`: plain floats, lists and dicts.

    Args:
      in_style: for each task ("role_play", "arithmetic"), bool [persona, prompt, sample].
      persona_ids: one id for each persona.

    `fidelity` is the mean over the tasks; `n` counts responses. Every `_ci95` holds for these
    personas on the population of prompts. By task and persona it is Wilson's with the prompt as the
    unit. That of the mean over tasks combines those of the tasks (MOVER: Zou and Donner 2008).

    Raises:
      ValueError: no task, an empty or misshapen array, one that is not bool, or ids that do not
        fit or repeat.
    """
    if not in_style:
        raise ValueError("in_style is empty: give at least one task, such as role_play")
    by_task = {task: _of_task(task, np.asarray(v), persona_ids) for task, v in in_style.items()}
    means = np.array([entry["fidelity"] for entry in by_task.values()])
    limits = np.array([entry["fidelity_ci95"] for entry in by_task.values()])
    below, above = np.linalg.norm(limits - means[:, None], axis=0) / len(means)
    mean = float(means.mean())
    return {
        "fidelity": mean,
        "fidelity_ci95": [max(0.0, mean - float(below)), min(1.0, mean + float(above))],
        "by_task": by_task,
    }


def _of_task(task: str, in_style: np.ndarray, persona_ids: Sequence[str]) -> dict:
    name = f"in_style[{task!r}]"
    require_axes(name, in_style, "persona", "prompt", "sample")
    if in_style.dtype != bool:
        raise ValueError(f"{name} has dtype {in_style.dtype}: give bool")
    require_ids(persona_ids, len(in_style), name)
    means = gather_means(in_style.astype(float))
    return {
        "fidelity": float(in_style.mean()),
        "fidelity_ci95": means.wilson_together(),
        "n": in_style.size,
        "per_persona": means.by_persona(persona_ids, "fidelity"),
    }
