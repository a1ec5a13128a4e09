"""One evaluation of one policy: how stable its accuracy is, and how faithful its personas are."""

import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from jax.sharding import Mesh

from permix_jax.core.distributed import gather, is_main, on_main, own_part
from permix_jax.core.files import write_json
from permix_jax.core.keys import key
from permix_jax.core.persona import EVAL_SETS, Persona
from permix_jax.core.problem import Problem, Task
from permix_jax.core.progress import EVALUATION, Progress
from permix_jax.evaluation.graded_rows import GradedRows, Key, claim_folder
from permix_jax.models.policy import Policy, StoredPolicy
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


class Answered(NamedTuple):
    """An answer to a problem under a persona; `sample` numbers those to the same prompt."""

    persona: Persona | None
    problem: Problem
    sample: int
    answer: Answer


class Prompts(NamedTuple):
    """What is asked of one kind ("problems" or "role_play"): each pair `samples` times."""

    kind: str
    samples: int
    pairs: list[tuple[Persona | None, Problem]]
    ids: list[list[int]]

    def keys(self) -> list[Key]:
        return [
            Key(self.kind, problem.id, persona.id if persona else None, sample)
            for persona, problem in self.pairs
            for sample in range(self.samples)
        ]


def evaluate(
    task: Task,
    asked: StoredPolicy,
    verifier: Verifier,
    settings: EvalSettings,
    identity: Mapping[str, Any],
    folder: Path,
    check_stop: Callable[[], None] = lambda: None,
) -> None:
    """Writes completions.jsonl, stability.json and, where the task has a style rule, fidelity.json.

    Test problems are answered under no persona and under every persona of the sets, role-play
    prompts under the latter. An evaluation that was interrupted goes on after the last batch whose
    rows are on disk, and ends in the same files; a finished one is left as it is.

    Args:
      asked: loaded if there is anything left to answer; the progress bar shows its name.
      verifier: grades a batch of answers while the next is generated; tries those whose verdict
        is unknown a second time.
      identity: what the folder's evaluation is of: policy and config fields, plain values.
      folder: such as `eval/<step>` of a workdir.
      check_stop: called between batches; may raise, after which what is generated is still kept.

    Raises:
      ValueError: an unknown persona set, or a folder that belongs to another evaluation.
      OSError: the disk is full; what was written stays, and the evaluation can go on.
    """
    personas = chosen_personas(task.personas, settings.sets, settings.personas)
    prompts = _prompts(task, asked.policy, personas, settings)
    identity = {**identity, "prompts_sha256": _digest(prompts)}

    def claim() -> bool:
        claim_folder(folder, identity)
        return (folder / "stability.json").exists()

    if on_main(claim):
        return

    keys = [one for part in prompts for one in part.keys()]
    ends = _batch_ends(prompts, settings, asked.mesh)
    with (
        GradedRows(folder / "completions.jsonl", keys, ends) as log,
        Progress(f"evaluation of {asked.name}", len(keys), len(log.rows), EVALUATION) as progress,
    ):
        policy = asked.load() if len(log.rows) < len(keys) else None
        before = 0
        for part in prompts:
            first = max(0, len(log.rows) - before) // part.samples
            grader = _Grader(task, verifier, part, first, log)
            for batch in generate(
                policy,
                part.ids,
                settings.sampling,
                key(settings.seed, f"evaluation/{part.kind}"),
                settings.batch_size,
                settings.max_prompt_tokens,
                part.samples,
                first,
            ):
                grader.add(answers_of(asked.policy, batch))
                progress.advance(batch.number * part.samples)
                try:
                    check_stop()
                except Exception:
                    grader.finish()
                    raise
            grader.finish()
            before += len(part.ids) * part.samples
        rows = log.rows
    if is_main():
        results = summarise(rows, personas, settings)
        for name in sorted(results):  # stability last: where it exists, the evaluation is whole
            write_json(folder / f"{name}.json", results[name])


def answers_asked(task: Task, personas: Sequence[Persona], settings: EvalSettings) -> int:
    """How many answers an evaluation asks for."""
    return sum(samples * len(pairs) for samples, pairs in _pairs(task, personas, settings).values())


def chosen_personas(personas: Sequence[Persona], sets: str, first: int) -> list[Persona]:
    """The first so many (0: all) of each set, set by set.

    Args:
      sets: splits of personas, comma-separated, such as "heldout,harmful".

    Raises ValueError for a set that has no personas.
    """
    chosen = []
    for name in sets.split(","):
        found = [persona for persona in personas if persona.split == name]
        if not found:
            there = list(dict.fromkeys(persona.split for persona in personas))
            usable = [split for split in there if split in EVAL_SETS]
            instead = f", or set eval.sets to {','.join(usable)}" if usable else ""
            raise ValueError(
                f"eval.sets names {name!r}, of which there are no personas; there are "
                f"{', '.join(there)}: give some personas the split {name}{instead}"
            )
        chosen += found[: first or None]
    return chosen


class _Grader:
    """Sends batches of one kind to the verifier, and their rows, once graded, to the log.

    `first` is the number of the first prompt that is still to be answered.
    """

    def __init__(
        self,
        task: Task,
        verifier: Verifier,
        prompts: Prompts,
        first: int,
        log: GradedRows,
    ):
        self._task, self._verifier, self._prompts, self._next = task, verifier, prompts, first
        self._log = log
        self._pending: deque[tuple[list[Answered], Future[Grades] | None]] = deque()

    def add(self, batch: Sequence[Sequence[Answer]]) -> None:
        """Takes the answers to the next prompts; writes the rows of the batch before."""
        self._submit(batch)
        if len(self._pending) > 1:
            self._write()

    def finish(self) -> None:
        """Waits for the verifier, and writes the rows of all batches."""
        while self._pending:
            self._write()

    def _submit(self, batch: Sequence[Sequence[Answer]]) -> None:
        pairs = self._prompts.pairs[self._next : self._next + len(batch)]
        self._next += len(batch)
        each = [
            Answered(persona, problem, sample, answer)
            for (persona, problem), answers in zip(pairs, batch, strict=True)
            for sample, answer in enumerate(answers)
        ]
        grades = None
        if self._prompts.kind == "problems":
            own = each[own_part(len(each))]
            texts = [one.answer.text for one in own]
            problems = [one.problem for one in own]
            grades = self._verifier.submit(texts, problems, retry=True)
        self._pending.append((each, grades))

    def _write(self) -> None:
        each, grades = self._pending.popleft()
        correct = [math.nan] * len(each)
        if grades:
            correct = join_grades(gather(grades.result())).correct.tolist()
        kind = self._prompts.kind
        self._log.append(
            [_row(self._task, kind, one, x) for one, x in zip(each, correct, strict=True)]
        )


def _prompts(
    task: Task, policy: Policy, personas: Sequence[Persona], settings: EvalSettings
) -> list[Prompts]:
    return [
        Prompts(
            kind, samples, pairs, render_all(policy.tokenizer, [(p, q.prompt) for p, q in pairs])
        )
        for kind, (samples, pairs) in _pairs(task, personas, settings).items()
    ]


def _pairs(
    task: Task, personas: Sequence[Persona], settings: EvalSettings
) -> dict[str, tuple[int, list[tuple[Persona | None, Problem]]]]:
    """What is asked, by kind: samples of each pair, and the pairs."""
    kinds = {"problems": (settings.samples, [(p, q) for p in (None, *personas) for q in task.test])}
    if task.in_style and settings.role_play_samples:
        pairs = [(p, q) for p in personas for q in task.role_play]
        kinds["role_play"] = (settings.role_play_samples, pairs)
    return kinds


def _digest(asked: Sequence[Prompts]) -> str:
    """sha256 of all that is asked: tells problems, personas or templates of the same name apart."""
    digest = hashlib.sha256()
    for part in asked:
        for (persona, problem), ids in zip(part.pairs, part.ids, strict=True):
            named = (part.kind, persona.id if persona else None, problem.id, problem.answer, ids)
            digest.update(json.dumps(named).encode())
    return digest.hexdigest()


def _batch_ends(asked: Sequence[Prompts], settings: EvalSettings, mesh: Mesh) -> list[int]:
    """Numbers of rows after which a batch of `generate` ends."""
    ends, before = [], 0
    for part in asked:
        total = len(part.pairs) * part.samples
        batch = prompts_per_batch(settings.batch_size, part.samples, mesh) * part.samples
        ends += [before + min(end, total) for end in range(batch, total + batch, batch)]
        before += total
    return ends


def _row(task: Task, kind: str, answered: Answered, correct: float) -> dict:
    """A row of `completions.jsonl`; `correct` is NaN where the verdict is unknown, or there is
    nothing to grade."""
    persona, problem, sample, answer = answered
    judged = persona is not None and task.in_style is not None
    return {
        "task": kind,
        "problem": problem.id,
        "persona": persona.id if persona else None,
        "sample": sample,
        "prompt": problem.prompt,
        "completion": answer.text,
        "answer": problem.answer,
        "correct": None if math.isnan(correct) else correct,
        "in_style": task.in_style(answer.text, persona) if judged else None,
        "truncated": answer.truncated,
    }
