"""Asks a policy PersonaGym's questions and writes its answers to answers.jsonl."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from transformers import PreTrainedTokenizerBase

from permix_jax.core.keys import key
from permix_jax.core.persona import Persona
from permix_jax.core.progress import Progress
from permix_jax.evaluation.graded_rows import GradedRows, claim_folder
from permix_jax.models.policy import Policy, StoredPolicy
from permix_jax.personagym.answers import Answer
from permix_jax.personagym.benchmark import Question
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


def whole_identity(identity: Mapping[str, Any], questions: Sequence[Question]) -> dict[str, Any]:
    """`identity` with a hash of the prompts' texts."""
    asked = json.dumps([SYSTEM_PROMPT, *questions]).encode()
    return {**identity, "questions_sha256": hashlib.sha256(asked).hexdigest()}


def is_answered(questions: Sequence[Question], identity: Mapping[str, Any], folder: Path) -> bool:
    """Whether the folder has all answers, so that no policy is needed.

    Raises ValueError if they are another policy's, or to other questions.
    """
    if not (folder / "evaluation.json").exists() or not (folder / FILE).exists():
        return False
    claim_folder(folder, whole_identity(identity, questions), FILE)
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

    Args:
      asked: loaded if a question is left; the progress bar shows its name.
      identity: which policy answers, and how; plain values.
      check_stop: called between batches; may raise, and what is generated is kept.

    Raises:
      ValueError: a tokenizer that lacks the words, prompts that with `max_new_tokens` outgrow the
        model's context, or a folder that belongs to other answers.
      OSError: the disk is full; what was written stays.
    """
    policy = asked.policy
    prompts = _prompts(policy.tokenizer, questions)
    longest = max(map(len, prompts))
    _require_context(policy, longest, settings.sampling.max_new_tokens)
    claim_folder(folder, whole_identity(identity, questions), FILE)

    batch, total = prompts_per_batch(settings.batch_size, 1, asked.mesh), len(questions)
    batches = [questions[start : start + batch] for start in range(0, total, batch)]
    with (
        GradedRows(folder / FILE, batches) as log,
        Progress(f"answers of {asked.name}", total, len(log.rows)) as progress,
    ):
        loaded = asked.load() if len(log.rows) < total else None
        drawn = key(settings.seed, "personagym")
        for done in generate(
            loaded, prompts, settings.sampling, drawn, batch, longest, first=len(log.rows)
        ):
            these = questions[len(log.rows) : len(log.rows) + done.number]
            rows = []
            for question, (said,) in zip(these, answers_of(policy, done), strict=True):
                row = Answer(*question, response=said.text)._asdict()
                rows.append(row | {"truncated": said.truncated})
            log.append(rows)
            progress.advance(done.number)
            check_stop()


def as_persona(name: str) -> Persona:
    """A persona of the benchmark, whose name is its description."""
    text = SYSTEM_PROMPT.replace("{persona}", name)
    return Persona(name, name, text, "personagym", "heldout")


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


def _require_context(policy: Policy, longest: int, max_new_tokens: int) -> None:
    context = policy.model.config.max_context
    if context and longest + max_new_tokens > context:
        raise ValueError(
            f"personagym.max_new_tokens is {max_new_tokens}; with prompts of up to {longest} "
            f"tokens that is over the model's context of {context}; lower it"
        )
