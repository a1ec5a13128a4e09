"""Persona fidelity of an evaluation's responses, by likelihoods, no judge: judge_free.json."""

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


class Scored(NamedTuple):
    """The R responses that have a token, with their log-likelihoods under the reference.

    index: [R] their numbers among all responses. own: [R] number of the persona that was played.
    tokens: [R] token ids.
    logp: [R, C], in nats; column 0 under the own persona. plain: [R] under the plain prompt.
    empty: how many responses have no token.
    """

    index: np.ndarray
    own: np.ndarray
    tokens: list[list[int]]
    logp: np.ndarray
    plain: np.ndarray
    empty: int

    def among(self, chosen: np.ndarray) -> "Scored":
        """The scored ones among the `chosen` responses, bool [all responses]."""
        at = np.flatnonzero(chosen[self.index])
        tokens = [self.tokens[i] for i in at]
        empty = int(chosen.sum()) - len(at)
        return Scored(self.index[at], self.own[at], tokens, self.logp[at], self.plain[at], empty)

    def lengths(self) -> np.ndarray:
        return np.array([len(ids) for ids in self.tokens])


def claim(folder: Path, reference: str, settings: JudgeFreeSettings) -> bool:
    """Whether the folder has its judge_free.json already.

    Raises ValueError if its scores are of another reference or other settings.
    """
    identity = {"reference": reference, "seed": settings.seed}
    identity |= {"candidates": settings.candidates, "questions": settings.questions}
    remedy = f"remove {folder / FOLDER} and {folder / FILE}"
    claim_folder(folder / FOLDER, identity, remedy=remedy)
    return (folder / FILE).exists()


def measure_without_judge(
    reference: Reference,
    personas: Sequence[Persona],
    settings: JudgeFreeSettings,
    folders: Sequence[Path],
) -> None:
    """Writes judge_free.json into each folder of a finished evaluation that has none yet.

    Scores are written to `judge_free/` batch by batch, and not computed again after a kill. All of
    the evaluations' `personas` are candidates. Raises ValueError for scores of another reference or
    other settings, and OSError where the disk is full; what was written stays.
    """
    stored = reference.stored
    reference = replace(reference, stored=replace(stored, load_params=cache(stored.load_params)))
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
    """The content of judge_free.json. `by_task` has, for each of "problems" and "role_play",

    - `questions`: how many have a response;
    - what `recognition` gives, with the question as the cluster, because all personas answer the
      same questions;
    - `style_distance` of the responses' tokens, None unless two personas answered a question and
      one of them answered it twice;
    - `agreement` of the gain per token (`gain`) and of `identified` with the exact rule's verdict,
      None unless the rows have verdicts of both kinds and there are two questions.

    Args:
      rows: of completions.jsonl; only those under a persona are read.
    """
    result = {"reference": reference.stored.name, "candidates": settings.candidates, "by_task": {}}
    number = {persona.id: i for i, persona in enumerate(personas)}
    for task in dict.fromkeys(row["task"] for row in rows):
        drawn = _drawn([r for r in rows if r["task"] == task and r["persona"]], task, settings)
        responses = [Response(r["prompt"], r["completion"], not r["truncated"]) for r in drawn]
        own = np.array([number[row["persona"]] for row in drawn])
        path = folder / FOLDER / f"{task}.jsonl"
        label = f"likelihoods of {task.replace('_', '-')}, {folder.name}"
        scored = score_responses(reference, responses, own, personas, settings, path, label)
        scored_rows = [drawn[i] for i in scored.index]
        question = np.array([row["problem"] for row in scored_rows])
        result["by_task"][task] = {
            "questions": len(np.unique(question)),
            **recognition(scored, question),
            "style_distance": _style_distance(scored, question, settings),
            "agreement": _agreement(scored, scored_rows, question, settings),
        }
    return result


def score_responses(
    reference: Reference,
    responses: Sequence[Response],
    own: np.ndarray,
    personas: Sequence[Persona],
    settings: JudgeFreeSettings,
    path: Path,
    label: str = "likelihoods",
) -> Scored:
    """Scores responses under their own persona, under others drawn by the seed, and under none.

    `own`: [R], the number in `personas` of each response's persona. `path` and `label` are as in
    `log_likelihoods`.
    """
    tokens = response_tokens(reference.stored.policy, responses)
    index = np.flatnonzero([bool(ids) for ids in tokens])
    candidates = draw_candidates(own, len(personas), settings.candidates, settings.seed)[index]
    logp = np.empty((0, settings.candidates + 1))
    if index.size:
        responses, tokens = ([x[i] for i in index] for x in (responses, tokens))
        under = [[*(personas[c] for c in row), None] for row in candidates]
        logp = log_likelihoods(reference, responses, tokens, under, path, label)
    return Scored(index, own[index], tokens, logp[:, :-1], logp[:, -1], len(own) - index.size)


def recognition(scored: Scored, cluster: np.ndarray) -> dict:
    """`identification` and `gain_per_token`, or None each if all clusters [R] are the same.

    `n` counts the responses that were scored, `empty` those without a token.
    """
    result = {"n": len(scored.index), "empty": scored.empty}
    if len(np.unique(cluster)) < 2:
        return result | {"identification": None, "gain_per_token": None}
    return result | {
        "identification": identification(scored.logp, cluster),
        "gain_per_token": gain_per_token(scored.logp, scored.plain, scored.lengths(), cluster),
    }


def _drawn(rows: Sequence[dict], task: str, settings: JudgeFreeSettings) -> list[dict]:
    """All rows of `settings.questions` questions (0: of all)."""
    questions = list(dict.fromkeys(row["problem"] for row in rows))
    if settings.questions and settings.questions < len(questions):
        order = generator(settings.seed, f"judge_free/{task}").permutation(len(questions))
        questions = [questions[i] for i in order[: settings.questions]]
    chosen = set(questions)
    return [row for row in rows if row["problem"] in chosen]


def _style_distance(
    scored: Scored, question: np.ndarray, settings: JudgeFreeSettings
) -> dict | None:
    times = Counter(zip(question.tolist(), scored.own.tolist(), strict=True))
    personas = Counter(asked for asked, _ in times)
    if not any(n > 1 and personas[asked] > 1 for (asked, _), n in times.items()):
        return None
    rng = generator(settings.seed, "judge_free/shuffle")
    return style_distance(scored.tokens, scored.own, question, rng)


def _agreement(
    scored: Scored, rows: Sequence[dict], question: np.ndarray, settings: JudgeFreeSettings
) -> dict | None:
    verdicts = [row["in_style"] for row in rows]
    if None in verdicts or len(set(verdicts)) < 2 or len(np.unique(question)) < 2:
        return None
    scores = {
        "gain": (scored.logp[:, 0] - scored.plain) / scored.lengths(),
        "identified": identified(scored.logp),
    }
    in_style, seed, resamples = np.array(verdicts, bool), settings.seed, settings.resamples
    return {
        name: agreement(score, in_style, question, generator(seed, "bootstrap"), resamples)
        for name, score in scores.items()
    }
