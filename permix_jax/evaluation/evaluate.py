"""One evaluation of one policy: how stable its accuracy is, and how faithful its personas are."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from permix_jax.evaluation.fidelity import fidelity
from permix_jax.evaluation.generate import Answer, generate
from permix_jax.evaluation.stability import pss_formula, stability
from permix_jax.files import write_json, write_rows
from permix_jax.models.policy import Policy
from permix_jax.personas.persona import Persona
from permix_jax.personas.prompts import render_all
from permix_jax.progress import Progress
from permix_jax.randomness import generator, key
from permix_jax.rewards.verifier import Grades, Verifier, join_grades
from permix_jax.rollout.sampling import Sampling
from permix_jax.tasks.problem import Problem, Task


@dataclass(frozen=True)
class EvalSettings:
    """The `eval` fields of a run's config, and what they need of the others."""

    seed: int
    samples: int
    role_play_samples: int
    personas: int
    batch_size: int
    max_prompt_tokens: int
    resamples: int
    pss: str
    sampling: Sampling


def evaluate(
    task: Task,
    policy: Policy,
    params,
    mesh: Mesh,
    verifier: Verifier,
    settings: EvalSettings,
    folder: Path,
    label: str,
    check_stop: Callable[[], None] = lambda: None,
) -> None:
    """Writes stability.json, completions.jsonl and, where the task has a style rule, fidelity.json.

    Test problems are answered under every held-out persona and under none, role-play prompts
    under every held-out persona.

    Args:
      folder: `eval/<step>` of a workdir.
      verifier: grades a batch of answers while the next is generated.
      label: what the progress bar says is being evaluated.
      check_stop: called between batches; may raise.
    """
    personas = [p for p in task.personas if p.split == "heldout"]
    personas = personas[: settings.personas or None]
    asked = {"problems": [(p, q) for p in (None, *personas) for q in task.test]}
    samples = {"problems": settings.samples, "role_play": settings.role_play_samples}
    if task.in_style and settings.role_play_samples:
        asked["role_play"] = [(p, q) for p in personas for q in task.role_play]

    total = sum(len(pairs) * samples[kind] for kind, pairs in asked.items())
    with Progress(f"evaluation of {label}", total) as progress:

        def answer(kind: str, pairs: Sequence[tuple[Persona | None, Problem]]) -> list[dict]:
            grades: list[Future[Grades]] = []
            ungraded = iter(pairs)

            def after_batch(batch: Sequence[Sequence[Answer]]) -> None:
                progress.advance(sum(map(len, batch)))
                if kind == "problems":
                    grades.append(_submit(verifier, ungraded, batch))
                check_stop()

            answers = generate(
                policy,
                params,
                render_all(policy.tokenizer, [(p, q.prompt) for p, q in pairs]),
                samples[kind],
                settings.sampling,
                key(settings.seed, f"evaluation/{kind}"),
                settings.batch_size,
                settings.max_prompt_tokens,
                mesh,
                after_batch,
            )
            each = [
                (persona, problem, number, answer)
                for (persona, problem), row in zip(pairs, answers, strict=True)
                for number, answer in enumerate(row)
            ]
            correct = [math.nan] * len(each)
            if grades:
                correct = join_grades([g.result() for g in grades]).correct.tolist()
            return [_record(task, kind, *one, x) for one, x in zip(each, correct, strict=True)]

        records = {kind: answer(kind, pairs) for kind, pairs in asked.items()}

    write_rows(folder / "completions.jsonl", itertools.chain(*records.values()))
    results = summarise(records, [p.id for p in personas], settings)
    for name in sorted(results):  # stability last: where it exists, the evaluation is whole
        write_json(folder / f"{name}.json", results[name])


def summarise(
    records: Mapping[str, Sequence[dict]], persona_ids: Sequence[str], settings: EvalSettings
) -> dict[str, dict]:
    """The contents of stability.json and, where role-play was asked for, of fidelity.json.

    Args:
      records: rows of completions.jsonl by task, ordered by persona ("problems": none first),
        then problem, then sample.
    """
    rng = generator(settings.seed, "bootstrap")
    people = len(persona_ids) + 1
    correct = _column(records["problems"], "correct").reshape(people, -1, settings.samples)
    plain, under_persona = correct[0], correct[1:]
    results = {
        "stability": stability(
            under_persona, persona_ids, plain, rng, settings.resamples, pss_formula(settings.pss)
        )
    }
    if "role_play" in records:
        sums = _column(records["problems"], "in_style").reshape(correct.shape)[1:]
        played = _column(records["role_play"], "in_style")
        played = played.reshape(people - 1, -1, settings.role_play_samples)
        in_style = {"role_play": played.astype(bool), "arithmetic": sums.astype(bool)}
        results["fidelity"] = fidelity(in_style, persona_ids, rng, settings.resamples)
    return results


def _submit(
    verifier: Verifier,
    ungraded: Iterator[tuple[Persona | None, Problem]],
    answers: Sequence[Sequence[Answer]],
) -> "Future[Grades]":
    """Sends a batch of answers, those to the next prompts that are ungraded, to the verifier."""
    texts, problems = [], []
    for row, (_, problem) in zip(answers, ungraded, strict=False):  # takes one prompt a row
        texts += [answer.text for answer in row]
        problems += [problem] * len(row)
    return verifier.submit(texts, problems)


def _record(
    task: Task,
    kind: str,
    persona: Persona | None,
    problem: Problem,
    sample: int,
    answer: Answer,
    correct: float,
) -> dict:
    """A row of `completions.jsonl`; `correct` is NaN where nothing can be graded."""
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


def _column(records: Sequence[dict], name: str) -> np.ndarray:
    return np.array([math.nan if r[name] is None else r[name] for r in records], float)
