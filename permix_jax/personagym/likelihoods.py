"""Persona fidelity of answers to PersonaGym without a judge: judge_free.json."""

from pathlib import Path

import numpy as np

from permix_jax.evaluation.judge_free import (
    FOLDER,
    JudgeFreeSettings,
    recognition,
    score_responses,
)
from permix_jax.evaluation.likelihood import Reference, Response
from permix_jax.evaluation.results import read_jsonl
from permix_jax.personagym.answering import FILE, as_persona


def personagym_judge_free(
    reference: Reference, settings: JudgeFreeSettings, folder: Path, label: str
) -> dict:
    """The content of judge_free.json, from the folder's answers.jsonl.

    It has what `recognition` gives, for all answers and `by_task`. The persona is the cluster,
    because each persona has questions of its own and stands for others. All personas that were
    asked are candidates. There is no style distance, which needs personas with common questions.
    """
    rows = read_jsonl(folder / FILE)
    names = list(dict.fromkeys(row["persona"] for row in rows))
    own = np.array([names.index(row["persona"]) for row in rows])
    task = np.array([row["task"] for row in rows])
    responses = [Response(row["question"], row["response"], not row["truncated"]) for row in rows]
    personas = [as_persona(name) for name in names]
    path, label = folder / FOLDER / FILE, f"likelihoods of {label}"
    scored = score_responses(reference, responses, own, personas, settings, path, label)
    parts = {name: scored.among(task == name) for name in dict.fromkeys(task.tolist())}
    return {
        "reference": reference.stored.name,
        "candidates": settings.candidates,
        "personas": len(names),
        **recognition(scored, scored.own),
        "by_task": {name: recognition(part, part.own) for name, part in parts.items()},
    }
