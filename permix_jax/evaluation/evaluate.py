"""One evaluation of one policy: how stable its accuracy is, and how faithful its personas are."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jax.sharding import Mesh

from permix_jax.evaluation.fidelity import fidelity
from permix_jax.evaluation.generate import Answer, generate
from permix_jax.evaluation.stability import stability
from permix_jax.files import write_json, write_rows
from permix_jax.models.policy import Policy
from permix_jax.personas.persona import Persona
from permix_jax.personas.prompts import render_all
from permix_jax.progress import Progress
from permix_jax.randomness import generator, key
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
    sampling: Sampling


def evaluate(
    task: Task,
    policy: Policy,
    params,
    mesh: Mesh,
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
      label: what the progress bar says is being evaluated.
      check_stop: called between batches; may raise.
    """
    personas = [p for p in task.personas if p.split == "heldout"]
    personas = personas[: settings.personas or None]
    ids = [p.id for p in personas]
    role_play = task.role_play if task.in_style and settings.role_play_samples else ()
    answers = (len(personas) + 1) * len(task.test) * settings.samples
    answers += len(personas) * len(role_play) * settings.role_play_samples

    with Progress(f"evaluation of {label}", answers) as progress:

        def ask(purpose: str, who: Sequence[Persona | None], what: Sequence[Problem], samples: int):
            def after_batch(count):
                progress.advance(count)
                check_stop()

            pairs = [(persona, problem) for persona in who for problem in what]
            found = generate(
                policy,
                params,
                render_all(policy.tokenizer, [(p, q.prompt) for p, q in pairs]),
                samples,
                settings.sampling,
                key(settings.seed, f"evaluation/{purpose}"),
                settings.batch_size,
                settings.max_prompt_tokens,
                mesh,
                after_batch,
            )
            return [
                _record(task, purpose, persona, problem, number, answer)
                for (persona, problem), row in zip(pairs, found, strict=True)
                for number, answer in enumerate(row)
            ]

        records = ask("problems", [None, *personas], task.test, settings.samples)
        if role_play:
            records += ask("role_play", personas, role_play, settings.role_play_samples)

    of_task = lambda name: [r for r in records if r["task"] == name]  # noqa: E731
    shape = (len(personas) + 1, len(task.test), settings.samples)
    correct = _column(of_task("problems"), "correct").reshape(shape)
    rng = generator(settings.seed, "bootstrap")
    results = {"stability": stability(correct[1:], ids, correct[0], rng, settings.resamples)}
    if role_play:
        styles = _column(of_task("problems"), "in_style").reshape(shape)[1:].astype(bool)
        shape = (len(personas), len(role_play), settings.role_play_samples)
        played = _column(of_task("role_play"), "in_style").reshape(shape).astype(bool)
        in_style = {"role_play": played, "arithmetic": styles}
        results["fidelity"] = fidelity(in_style, ids, rng, settings.resamples)

    write_rows(folder / "completions.jsonl", records)
    # Stability last: where it exists, the evaluation is whole.
    for name, result in reversed(results.items()):
        write_json(folder / f"{name}.json", result)


def _record(
    task: Task,
    kind: str,
    persona: Persona | None,
    problem: Problem,
    sample: int,
    answer: Answer,
) -> dict:
    """A row of `completions.jsonl`."""
    correct = task.reward(answer.text, problem) if kind == "problems" else math.nan
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


def _column(records: list[dict], name: str) -> np.ndarray:
    return np.array([math.nan if r[name] is None else r[name] for r in records], float)
