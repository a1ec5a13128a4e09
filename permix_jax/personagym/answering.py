"""A policy's answers to PersonaGym's questions, and their fidelity without a judge."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerBase

from permix_jax.core.keys import key
from permix_jax.core.persona import Persona
from permix_jax.core.progress import Progress
from permix_jax.evaluation import judge_free
from permix_jax.evaluation.graded_rows import GradedRows, claim_folder
from permix_jax.evaluation.likelihood import Reference, Response
from permix_jax.evaluation.results import read_jsonl
from permix_jax.models.policy import StoredPolicy
from permix_jax.personagym.benchmark import Answer, Question
from permix_jax.personas.prompts import render_all
from permix_jax.rollout.generate import answers_of, generate, prompts_per_batch
from permix_jax.rollout.sampling import Sampling

FILE = "answers.jsonl"
# From code/utils.py of the benchmark's repository.
SYSTEM_PROMPT = (
    "Adopt the identity of {persona}. Answer the questions while staying in strict accordance with "
    "the nature of this identity."
)
_UNKNOWN_SHARE = 0.1  # of the prompts' tokens; a language model's tokenizer has next to none


class AnswerSettings(NamedTuple):
    """How answers are drawn, `batch_size` at once."""

    seed: int
    batch_size: int
    sampling: Sampling


def is_answered(questions: Sequence[Question], identity: Mapping[str, Any], folder: Path) -> bool:
    """Whether the folder has all answers, so that no policy is needed.

    Raises ValueError if they are another policy's, or to other questions.
    """
    if not (folder / "evaluation.json").exists() or not (folder / FILE).exists():
        return False
    _claim(folder, identity, questions)
    return (folder / FILE).read_bytes().count(b"\n") == len(questions)


def answer(
    questions: Sequence[Question],
    asked: StoredPolicy,
    settings: AnswerSettings,
    identity: Mapping[str, Any],
    folder: Path,
    check_stop: Callable[[], None] = lambda: None,
) -> None:
    """Writes answers.jsonl: a row of `Answer`, and `truncated`, for each question in their order.

    After an interruption it goes on behind the last batch on disk and writes the same file.

    The policy is loaded if a question is left. `identity` says in plain values which policy
    answers, and how. `check_stop` is called between batches, and may raise.

    Raises ValueError for a tokenizer that lacks the words, prompts that with `max_new_tokens`
    outgrow the model's context, or a folder that belongs to other answers; OSError for a full disk.
    """
    policy, most = asked.policy, settings.sampling.max_new_tokens
    prompts = _prompts(policy.tokenizer, questions)
    longest, context = max(map(len, prompts)), policy.model.config.max_context
    if context and longest + most > context:
        raise ValueError(
            f"personagym.max_new_tokens is {most}; with prompts of up to {longest} tokens that is "
            f"over the model's context of {context}; lower it"
        )
    _claim(folder, identity, questions)

    batch, total = prompts_per_batch(settings.batch_size, 1, asked.mesh), len(questions)
    batches = [questions[start : start + batch] for start in range(0, total, batch)]
    with (
        GradedRows(folder / FILE, batches) as log,
        Progress(f"answers of {asked.name}", total, len(log.rows)) as progress,
    ):
        loaded = asked.load() if len(log.rows) < total else None
        drawn = key(settings.seed, "personagym")
        first = len(log.rows)
        for done in generate(loaded, prompts, settings.sampling, drawn, batch, longest, 1, first):
            these = questions[len(log.rows) : len(log.rows) + done.number]
            said = zip(these, answers_of(policy, done), strict=True)
            rows = [
                {**Answer(*question, reply.text)._asdict(), "truncated": reply.truncated}
                for question, (reply,) in said
            ]
            log.append(rows)
            progress.advance(done.number)
            check_stop()


def personagym_judge_free(
    reference: Reference, settings: judge_free.JudgeFreeSettings, folder: Path, label: str
) -> dict:
    """The content of judge_free.json: persona fidelity of the folder's answers.jsonl.

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
    path, label = folder / judge_free.FOLDER / FILE, f"likelihoods of {label}"
    scored = judge_free.score_responses(reference, responses, own, personas, settings, path, label)
    parts = {name: scored.among(task == name) for name in dict.fromkeys(task.tolist())}
    return {
        "reference": reference.stored.name,
        "candidates": settings.candidates,
        "personas": len(names),
        **judge_free.recognition(scored, scored.own),
        "by_task": {name: judge_free.recognition(part, part.own) for name, part in parts.items()},
    }


def as_persona(name: str) -> Persona:
    """A persona of the benchmark, whose name is its description."""
    text = SYSTEM_PROMPT.replace("{persona}", name)
    return Persona(name, name, text, "personagym", "heldout")


def _claim(folder: Path, identity: Mapping[str, Any], questions: Sequence[Question]) -> None:
    """Claims the folder for answers that are known by a hash of the prompts' texts, too."""
    texts = hashlib.sha256(json.dumps([SYSTEM_PROMPT, *questions]).encode()).hexdigest()
    claim_folder(folder, {**identity, "questions_sha256": texts}, FILE)


def _prompts(tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question]) -> list[list[int]]:
    """Token ids with the persona as the system message; ValueError if many words are unknown."""
    prompts = render_all(tokenizer, [(as_persona(q.persona), q.question) for q in questions])
    unknown = sum(ids.count(tokenizer.unk_token_id) for ids in prompts)
    tokens = sum(map(len, prompts))
    if unknown > _UNKNOWN_SHARE * tokens:
        raise ValueError(
            f"the policy's tokenizer does not know {unknown} of {tokens} tokens of PersonaGym's "
            "prompts; use a policy that comes from a language model"
        )
    return prompts
