"""Persona fidelity of an evaluation's responses, without a judge: judge_free.json."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from permix_jax.core.distributed import is_main, on_main
from permix_jax.core.files import write_json
from permix_jax.core.persona import Persona
from permix_jax.core.randomness import generator
from permix_jax.evaluation.graded_rows import claim_folder
from permix_jax.evaluation.likelihood import (
    Reference,
    Response,
    log_likelihoods,
    response_tokens,
)
from permix_jax.evaluation.results import read_jsonl
from permix_jax.stats.identification import (
    agreement,
    draw_candidates,
    gain_per_token,
    identification,
    identified,
)
from permix_jax.stats.style_distance import style_distance

FOLDER, FILE = "judge_free", "judge_free.json"


@dataclass(frozen=True)
class JudgeFreeSettings:
    """How fidelity is measured; `questions` of each kind are scored (0: all)."""

    seed: int
    candidates: int
    questions: int
    resamples: int


class Played(NamedTuple):
    """R responses, each of somebody who played a persona; own: [R] its number in `personas`."""

    responses: Sequence[Response]
    own: np.ndarray
    personas: Sequence[Persona]


class Likelihoods(NamedTuple):
    """What the reference makes of R responses, those without a token left out.

    kept: [R] their numbers. own: [R] number of the persona. tokens: [R]. logp: [R, C], column 0
    the own persona's. plain: [R]. empty: how many were left out.
    """

    kept: np.ndarray
    own: np.ndarray
    tokens: list[list[int]]
    logp: np.ndarray
    plain: np.ndarray
    empty: int

    def among(self, chosen: np.ndarray) -> "Likelihoods":
        """Those of the responses whose number is `chosen`, bool [number of all responses]."""
        at = np.flatnonzero(chosen[self.kept])
        tokens = [self.tokens[i] for i in at]
        empty = int(chosen.sum()) - len(at)
        return Likelihoods(
            self.kept[at], self.own[at], tokens, self.logp[at], self.plain[at], empty
        )


def claim(folder: Path, reference: str, settings: JudgeFreeSettings) -> bool:
    """Whether the folder's judge_free.json is there already.

    Raises ValueError where it, or what was scored for it, is of another reference or settings.
    """
    identity = {"reference": reference, "seed": settings.seed, "candidates": settings.candidates}
    identity["questions"] = settings.questions
    at = folder / FOLDER
    claim_folder(at, identity, remedy=f"remove {at} and {folder / FILE}")
    return (folder / FILE).exists()


def measure_without_judge(
    reference: Reference,
    personas: Sequence[Persona],
    settings: JudgeFreeSettings,
    folders: Sequence[Path],
) -> None:
    """Writes judge_free.json into each folder of a whole evaluation that has none yet.

    What is scored is in `judge_free/` at once: after a kill it is not scored again.

    Args:
      personas: those of the evaluations, all of which are candidates.

    Raises:
      ValueError: a folder whose figures are of another reference, or with other settings.
      OSError: the disk is full; what was written stays.
    """
    stored = reference.stored
    stored = replace(stored, load_params=cache(stored.load_params))
    reference = replace(reference, stored=stored)
    for folder in folders:
        if not on_main(partial(claim, folder, stored.name, settings)):
            rows = read_jsonl(folder / "completions.jsonl")
            result = judge_free_figures(rows, reference, personas, settings, folder)
            if is_main():
                write_json(folder / FILE, result)


def judge_free_figures(
    rows: Sequence[dict],
    reference: Reference,
    personas: Sequence[Persona],
    settings: JudgeFreeSettings,
    folder: Path,
) -> dict:
    """The content of judge_free.json: `by_task` has, for "problems" and "role_play" as asked,

    - `identification`, `gain_per_token`, `n` and `empty` as in `recognition`, the question as the
      cluster, because all personas answer the same questions;
    - `style_distance` of the responses' tokens, None where no question was answered by two personas
      and twice by one of them;
    - `agreement`, where the rows carry the exact rule's verdict, it is not always the same, and
      there are two questions or more:
      `gain` (per token of each response) and `identified` against it;
    - `questions`: how many have a response.

    Args:
      rows: of completions.jsonl; those under a persona are read.
    """
    result = {"reference": reference.stored.name, "candidates": settings.candidates, "by_task": {}}
    number = {persona.id: i for i, persona in enumerate(personas)}
    for task in dict.fromkeys(row["task"] for row in rows):
        chosen = _drawn([r for r in rows if r["task"] == task and r["persona"]], task, settings)
        responses = [Response(r["prompt"], r["completion"], not r["truncated"]) for r in chosen]
        own = np.array([number[row["persona"]] for row in chosen])
        path = folder / FOLDER / f"{task}.jsonl"
        label = f"likelihoods of {task.replace('_', '-')}, {folder.name}"
        found = likelihoods(reference, Played(responses, own, personas), settings, path, label)
        result["by_task"][task] = _figures(found, [chosen[i] for i in found.kept], settings)
    return result


def likelihoods(
    reference: Reference,
    played: Played,
    settings: JudgeFreeSettings,
    path: Path,
    label: str,
) -> Likelihoods:
    """The responses under their own persona, under others drawn by the seed, and under none.

    `path` and `label` are as in `log_likelihoods`.
    """
    responses, own, personas = played
    tokens = response_tokens(reference.stored.policy, responses)
    kept = np.flatnonzero([bool(ids) for ids in tokens])
    drawn = draw_candidates(own, len(personas), settings.candidates, settings.seed)[kept]
    logp = np.empty((0, settings.candidates + 1))
    if kept.size:
        responses, tokens = ([x[i] for i in kept] for x in (responses, tokens))
        under = [[*(personas[c] for c in row), None] for row in drawn]
        logp = log_likelihoods(reference, responses, tokens, under, path, label)
    return Likelihoods(kept, own[kept], tokens, logp[:, :-1], logp[:, -1], len(own) - kept.size)


def recognition(found: Likelihoods, cluster: np.ndarray) -> dict:
    """`identification` and `gain_per_token` as `judge_free` defines them, None where the responses
    are of fewer than two clusters; `n` responses that were scored, `empty` ones left out.

    Args:
      cluster: [R] labels.
    """
    result = {"n": len(found.kept), "empty": found.empty}
    if len(np.unique(cluster)) < 2:
        return result | {"identification": None, "gain_per_token": None}
    return result | {
        "identification": identification(found.logp, cluster),
        "gain_per_token": gain_per_token(found.logp, found.plain, _lengths(found), cluster),
    }


def _drawn(rows: Sequence[dict], task: str, settings: JudgeFreeSettings) -> list[dict]:
    """The rows of `settings.questions` questions (0: of all), with all their answers."""
    questions = list(dict.fromkeys(row["problem"] for row in rows))
    if settings.questions and settings.questions < len(questions):
        order = generator(settings.seed, f"judge_free/{task}").permutation(len(questions))
        questions = {questions[i] for i in order[: settings.questions]}
    questions = set(questions)
    return [row for row in rows if row["problem"] in questions]


def _figures(found: Likelihoods, rows: Sequence[dict], settings: JudgeFreeSettings) -> dict:
    """What `by_task` has of one task; `rows` are those of the responses that were scored."""
    question = np.array([row["problem"] for row in rows])
    style = None
    if _answered_twice(found.own, question):
        rng = generator(settings.seed, "judge_free/shuffle")
        style = style_distance(found.tokens, found.own, question, rng)
    return {
        "questions": len(np.unique(question)),
        **recognition(found, question),
        "style_distance": style,
        "agreement": _agreement(found, rows, question, settings),
    }


def _answered_twice(persona: np.ndarray, question: np.ndarray) -> bool:
    """Whether some question was answered by two personas, and twice by one: `style_distance` needs
    one such."""
    times = Counter(zip(question.tolist(), persona.tolist(), strict=True))
    personas = Counter(asked for asked, _ in times)
    return any(n > 1 and personas[asked] > 1 for (asked, _), n in times.items())


def _agreement(
    found: Likelihoods, rows: Sequence[dict], question: np.ndarray, settings: JudgeFreeSettings
) -> dict | None:
    verdicts = [row["in_style"] for row in rows]
    if None in verdicts or len(set(verdicts)) < 2 or len(np.unique(question)) < 2:
        return None
    scores = {
        "gain": (found.logp[:, 0] - found.plain) / _lengths(found),
        "identified": identified(found.logp),
    }
    return {
        name: agreement(
            score,
            np.array(verdicts, bool),
            question,
            generator(settings.seed, "bootstrap"),
            settings.resamples,
        )
        for name, score in scores.items()
    }


def _lengths(found: Likelihoods) -> np.ndarray:
    return np.array([len(ids) for ids in found.tokens])
