"""Persona fidelity of the completions of an evaluation, without a judge: judge_free.json."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from permix_jax.evaluation.judge_free import (
    agreement,
    draw_candidates,
    gain_per_token,
    identification,
    identified,
)
from permix_jax.evaluation.likelihood import Response, log_likelihoods, response_tokens
from permix_jax.evaluation.results import read_jsonl
from permix_jax.evaluation.style_distance import style_distance
from permix_jax.files import write_json
from permix_jax.models.policy import Policy
from permix_jax.personas.persona import Persona
from permix_jax.progress import Progress
from permix_jax.randomness import generator


@dataclass(frozen=True)
class JudgeFreeSettings:
    """The `eval.judge_free_*` fields of a config, and what they need of the others."""

    seed: int
    candidates: int
    questions: int
    batch_size: int
    chunk_tokens: int
    resamples: int


def measure_without_judge(
    reference: Policy,
    get_params: Callable[[], dict],
    mesh: Mesh,
    personas: Sequence[Persona],
    settings: JudgeFreeSettings,
    folders: Sequence[Path],
    check_stop: Callable[[], None] = lambda: None,
) -> None:
    """Writes judge_free.json into each folder of a whole evaluation that has none yet.

    Args:
      reference: the frozen model, the same for all policies that are to be compared.
      get_params: gives its parameters; called if there is anything to do.
      personas: those of the evaluations, all of which are candidates.
    """
    if todo := [folder for folder in folders if not (folder / "judge_free.json").exists()]:
        params = get_params()
        for folder in todo:
            rows = read_jsonl(folder / "completions.jsonl")
            result = judge_free_figures(
                rows, reference, params, mesh, personas, settings, folder.name, check_stop
            )
            write_json(folder / "judge_free.json", result)


def judge_free_figures(
    rows: Sequence[dict],
    reference: Policy,
    params,
    mesh: Mesh,
    personas: Sequence[Persona],
    settings: JudgeFreeSettings,
    label: str,
    check_stop: Callable[[], None] = lambda: None,
) -> dict:
    """The content of judge_free.json: `by_task` has, for "problems" and "role_play" as asked,

    - `identification`, `gain_per_token` as `judge_free` defines them, the question as the cluster,
      because all personas answer the same questions;
    - `style_distance` of the responses' tokens, None where no persona answered a question twice;
    - `agreement`, where the rows carry the exact rule's verdict and it is not always the same:
      `gain` (per token of each response) and `identified` against it;
    - `questions` and `n`: how many were drawn and how many responses they have; `empty`: responses
      without a token, left out.

    Args:
      rows: of completions.jsonl; those under a persona are read.
    """
    result = {"candidates": settings.candidates, "by_task": {}}
    for task in dict.fromkeys(row["task"] for row in rows):
        chosen = _drawn([r for r in rows if r["task"] == task and r["persona"]], task, settings)
        responses = [Response(r["prompt"], r["completion"], not r["truncated"]) for r in chosen]
        tokens = response_tokens(reference, responses)
        kept = [i for i, ids in enumerate(tokens) if ids]
        empty = len(tokens) - len(kept)
        chosen, responses, tokens = ([x[i] for i in kept] for x in (chosen, responses, tokens))
        number = {persona.id: i for i, persona in enumerate(personas)}
        own = np.array([number[row["persona"]] for row in chosen])
        drawn = draw_candidates(own, len(personas), settings.candidates, settings.seed)
        under = [[*(personas[c] for c in row), None] for row in drawn]

        total = sum(map(len, under))
        with Progress(f"likelihoods of {task.replace('_', '-')}, {label}", total) as progress:

            def after_batch(scored: int, progress=progress) -> None:
                progress.advance(scored)
                check_stop()

            logp = log_likelihoods(
                reference,
                params,
                responses,
                tokens,
                under,
                settings.batch_size,
                settings.chunk_tokens,
                mesh,
                after_batch,
            )
        figures = _figures(logp, tokens, chosen, own, settings)
        result["by_task"][task] = figures | {"empty": empty}
    return result


def _drawn(rows: Sequence[dict], task: str, settings: JudgeFreeSettings) -> list[dict]:
    """The rows of `settings.questions` questions (0: of all), with all their answers."""
    questions = list(dict.fromkeys(row["problem"] for row in rows))
    if settings.questions and settings.questions < len(questions):
        order = generator(settings.seed, f"judge_free/{task}").permutation(len(questions))
        questions = {questions[i] for i in order[: settings.questions]}
    questions = set(questions)
    return [row for row in rows if row["problem"] in questions]


def _figures(
    logp: np.ndarray,
    tokens: Sequence[Sequence[int]],
    rows: Sequence[dict],
    own: np.ndarray,
    settings: JudgeFreeSettings,
) -> dict:
    """`logp` [R, candidates + 1]: the own persona's, the others', the plain prompt's."""
    logp, plain = logp[:, :-1], logp[:, -1]
    question = np.array([row["problem"] for row in rows])
    lengths = np.array([len(ids) for ids in tokens])
    result = {
        "questions": len(np.unique(question)),
        "n": len(rows),
        "identification": identification(logp, question),
        "gain_per_token": gain_per_token(logp, plain, lengths, question),
        "style_distance": None,
        "agreement": None,
    }
    if len(set(zip(own.tolist(), question.tolist(), strict=True))) < len(rows):
        rng = generator(settings.seed, "judge_free/shuffle")
        result["style_distance"] = style_distance(tokens, own, question, rng)
    verdicts = [row["in_style"] for row in rows]
    if None not in verdicts and len(set(verdicts)) == 2:
        scores = {"gain": (logp[:, 0] - plain) / lengths, "identified": identified(logp)}
        result["agreement"] = {
            name: agreement(
                score,
                np.array(verdicts, bool),
                question,
                generator(settings.seed, "bootstrap"),
                settings.resamples,
            )
            for name, score in scores.items()
        }
    return result
