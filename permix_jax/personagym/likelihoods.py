"""Persona fidelity of answers to PersonaGym without a judge: judge_free.json."""

from pathlib import Path

import numpy as np

from permix_jax.evaluation.judge_free import (
    FOLDER,
    JudgeFreeSettings,
    Played,
    likelihoods,
    recognition,
)
from permix_jax.evaluation.likelihood import Reference, Response
from permix_jax.evaluation.results import read_jsonl
from permix_jax.personagym.answering import FILE, as_persona


def judge_free_figures(
    reference: Reference, settings: JudgeFreeSettings, folder: Path, label: str
) -> dict:
    """The content of judge_free.json, from the folder's answers.jsonl.

    `identification`, `gain_per_token`, `n` and `empty` as in `recognition`, of all answers and,
    under `by_task`, of each task. The persona is the cluster: each has questions of its own, and
    stands for others. For the same reason there is no style distance, which compares answers of
    several personas to one question. All personas asked are candidates.
    """
    rows = read_jsonl(folder / FILE)
    names = list(dict.fromkeys(row["persona"] for row in rows))
    own = np.array([names.index(row["persona"]) for row in rows])
    task = np.array([row["task"] for row in rows])
    responses = [Response(row["question"], row["response"], not row["truncated"]) for row in rows]
    played = Played(responses, own, [as_persona(name) for name in names])
    path, label = folder / FOLDER / FILE, f"likelihoods of {label}"
    found = likelihoods(reference, played, settings, path, label)
    of_tasks = {name: found.among(task == name) for name in dict.fromkeys(task.tolist())}
    return {
        "reference": reference.stored.name,
        "candidates": settings.candidates,
        "personas": len(names),
        **recognition(found, found.own),
        "by_task": {name: recognition(part, part.own) for name, part in of_tasks.items()},
    }
