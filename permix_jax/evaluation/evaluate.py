"""One evaluation of one policy: how stable its accuracy is, and how faithful its personas are."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from permix_jax.core.distributed import gather, is_main, on_main, own_part
from permix_jax.core.files import copy_file, write_json
from permix_jax.core.keys import key
from permix_jax.core.persona import EVAL_SETS, Persona
from permix_jax.core.problem import Problem, Task
from permix_jax.core.progress import EVALUATION, Progress
from permix_jax.evaluation.graded_rows import GradedRows, Key, claim_folder
from permix_jax.models.policy import StoredPolicy
from permix_jax.personas.prompts import render_all
from permix_jax.rewards.verifier import Grades, Verifier, join_grades
from permix_jax.rollout.generate import Answer, answers_of, generate, prompts_per_batch
from permix_jax.rollout.sampling import Sampling
from permix_jax.stats.summary import summarise


@dataclass(frozen=True)
class EvalSettings:
    """The `eval` fields of a run's config, and what they need of the others."""

    seed: int
    samples: int
    role_play_samples: int
    sets: str
    personas: int
    batch_size: int
    max_prompt_tokens: int
    resamples: int
    pss: str
    sampling: Sampling


class _Kind(NamedTuple):
    """The questions of one kind ("problems" or "role_play"); each is answered `samples` times.

    prompts: the tokens of each pair.
    """

    name: str
    samples: int
    pairs: list[tuple[Persona | None, Problem]]
    prompts: Sequence[list[int]] = ()

    def rows(self) -> list[tuple[Persona | None, Problem, int]]:
        """What each row is about: its persona, problem and sample."""
        return [(*pair, sample) for pair in self.pairs for sample in range(self.samples)]

    def batches(self, batch_size: int, mesh: Mesh) -> list[list[Key]]:
        """The keys of the rows, in the batches of `generate`."""
        keys = [Key(self.name, q.id, p.id if p else None, sample) for p, q, sample in self.rows()]
        size = prompts_per_batch(batch_size, self.samples, mesh) * self.samples
        return [keys[i : i + size] for i in range(0, len(keys), size)]


def evaluate(
    task: Task,
    asked: StoredPolicy,
    verifier: Verifier,
    settings: EvalSettings,
    identity: Mapping[str, Any],
    folder: Path,
    check_stop: Callable[[], None] = lambda: None,
    shared: Path | None = None,
) -> None:
    """Writes completions.jsonl, stability.json and, where the task has a style rule, fidelity.json.

    Test problems are answered under no persona and under every persona of the sets, role-play
    prompts under the latter. An evaluation that was interrupted goes on after the last batch whose
    rows are on disk, and ends in the same files; a finished one is left as it is.

    Args:
      asked: loaded if there is anything left to answer; the progress bar shows its name.
      verifier: grades a batch of answers while the next is generated.
      identity: what the folder's evaluation is of: policy and config fields, plain values.
      folder: such as `eval/<step>` of a workdir.
      check_stop: called between batches; may raise, after which what is generated is still kept.
      shared: where other evaluations keep the completions.jsonl of the same policy and questions.
        It is taken from there, or put there.

    Raises:
      ValueError: an unknown persona set, or a folder that belongs to another evaluation.
      OSError: the disk is full; what was written stays, and the evaluation can go on.
    """
    personas = chosen_personas(task.personas, settings.sets, settings.personas)
    kinds, tokenizer = _kinds(task, personas, settings), asked.policy.tokenizer
    prompts = [render_all(tokenizer, [(p, q.prompt) for p, q in kind.pairs]) for kind in kinds]
    kinds = [kind._replace(prompts=ids) for kind, ids in zip(kinds, prompts, strict=True)]
    identity = {**identity, "prompts_sha256": _digest(kinds)}

    path = folder / "completions.jsonl"

    def claim() -> bool:
        claim_folder(folder, identity)
        if shared and shared.exists() and not path.exists():
            copy_file(shared, path)
        return (folder / "stability.json").exists()

    if on_main(claim):
        return

    rows = _answer(task, asked, verifier, settings, kinds, path, check_stop)
    if is_main():
        trained = {persona.category for persona in task.personas if persona.split == "train"}
        results = summarise(rows, personas, settings, trained, task.stated)
        for name in sorted(results):  # stability last: where it exists, the evaluation is whole
            write_json(folder / f"{name}.json", results[name])
        if shared and not shared.exists():
            copy_file(path, shared)


def answers_asked(task: Task, personas: Sequence[Persona], settings: EvalSettings) -> int:
    """How many answers an evaluation asks for."""
    return sum(kind.samples * len(kind.pairs) for kind in _kinds(task, personas, settings))


def chosen_personas(personas: Sequence[Persona], sets: str, first: int) -> list[Persona]:
    """The first so many (0: all) of each set, set by set; ValueError for a set without personas.

    `sets`: splits of personas, comma-separated, such as "heldout,harmful".
    """
    chosen = []
    for name in sets.split(","):
        members = [persona for persona in personas if persona.split == name]
        if not members:
            splits = list(dict.fromkeys(persona.split for persona in personas))
            usable = [split for split in splits if split in EVAL_SETS]
            instead = f", or set eval.sets to {','.join(usable)}" if usable else ""
            raise ValueError(
                f"eval.sets names {name!r}, of which there are no personas; there are "
                f"{', '.join(splits)}: give some personas the split {name}{instead}"
            )
        chosen += members[: first or None]
    return chosen


def _answer(
    task: Task,
    asked: StoredPolicy,
    verifier: Verifier,
    settings: EvalSettings,
    kinds: Sequence[_Kind],
    path: Path,
    check_stop: Callable[[], None] = lambda: None,
) -> list[dict]:
    """The rows of all kinds; writes those that are not yet in the file."""
    keys = [batch for kind in kinds for batch in kind.batches(settings.batch_size, asked.mesh)]
    with (
        GradedRows(path, keys) as log,
        Progress(f"evaluation of {asked.name}", log.total, len(log.rows), EVALUATION) as progress,
    ):
        policy = asked.load() if len(log.rows) < log.total else None

        def after_batch(answers: int) -> None:
            progress.advance(answers)
            check_stop()

        before = 0
        for kind in kinds:
            first = max(0, len(log.rows) - before) // kind.samples
            batches = generate(
                policy,
                kind.prompts,
                settings.sampling,
                key(settings.seed, f"evaluation/{kind.name}"),
                settings.batch_size,
                settings.max_prompt_tokens,
                kind.samples,
                first,
            )
            answers = (answers_of(asked.policy, batch) for batch in batches)
            for rows in _graded(task, verifier, kind, first, answers, after_batch):
                log.append(rows)
            before += len(kind.pairs) * kind.samples
    return log.rows


def _graded(
    task: Task,
    verifier: Verifier,
    kind: _Kind,
    first: int,
    batches: Iterable[list[list[Answer]]],
    after_batch: Callable[[int], None],
) -> Iterator[list[dict]]:
    """The rows of each batch of answers. The verifier grades a batch while the next is generated.

    `first`: number of the pair that the first batch begins with. `after_batch` gets the number of
    answers. Where it raises, the rows of its batch come first.
    """
    pending, left = None, iter(kind.rows()[first * kind.samples :])
    for batch in batches:
        answered = [(*next(left), answer) for of_prompt in batch for answer in of_prompt]
        grades = None
        if kind.name == "problems":
            own = answered[own_part(len(answered))]
            texts = [answer.text for *_, answer in own]
            grades = verifier.submit(texts, [problem for _, problem, *_ in own])
        if pending:
            yield _rows(task, kind, *pending)
        pending = answered, grades
        try:
            after_batch(len(answered))
        except Exception:
            yield _rows(task, kind, *pending)
            raise
    if pending:
        yield _rows(task, kind, *pending)


def _kinds(task: Task, personas: Sequence[Persona], settings: EvalSettings) -> list[_Kind]:
    """What is asked, without the prompts' tokens."""
    pairs = [(p, q) for p in (None, *personas) for q in task.test]
    kinds = [_Kind("problems", settings.samples, pairs)]
    if task.in_style and settings.role_play_samples:
        pairs = [(p, q) for p in personas for q in task.role_play]
        kinds.append(_Kind("role_play", settings.role_play_samples, pairs))
    return kinds


def _digest(kinds: Sequence[_Kind]) -> str:
    """sha256 of all that is asked: tells problems, personas or templates of the same name apart."""
    digest = hashlib.sha256()
    for kind in kinds:
        for (persona, problem), ids in zip(kind.pairs, kind.prompts, strict=True):
            named = (kind.name, persona.id if persona else None, problem.id, problem.answer, ids)
            digest.update(json.dumps(named).encode())
    return digest.hexdigest()


def _rows(
    task: Task, kind: _Kind, answered: list[tuple], grades: Future[Grades] | None
) -> list[dict]:
    """Rows of `completions.jsonl`; without `grades` there is nothing to grade.

    `stated` is there where problems have several answers, of which some may be alike.
    """
    votes = grades is not None and kind.samples > 1 and task.stated is not None
    correct = [math.nan] * len(answered)
    if grades:
        correct = join_grades(gather(grades.result())).correct.tolist()
    return [
        {
            "task": kind.name,
            "problem": problem.id,
            "persona": persona.id if persona else None,
            "sample": sample,
            "prompt": problem.prompt,
            "completion": answer.text,
            "answer": problem.answer,
            "correct": None if math.isnan(verdict) else verdict,
            "in_style": task.in_style(answer.text, persona) if persona and task.in_style else None,
            "truncated": answer.truncated,
            **({"stated": task.stated(answer.text)} if votes else {}),
        }
        for (persona, problem, sample, answer), verdict in zip(answered, correct, strict=True)
    ]
