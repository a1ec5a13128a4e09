"""What a run would see of its data, as text: sets, lengths of prompts, and its first prompts."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from permix_jax.app.build import asked_personas, build_task, drawn_personas, drop_overlong
from permix_jax.app.policies import build_policy
from permix_jax.app.validation import require_valid
from permix_jax.core.persona import Persona
from permix_jax.core.problem import Problem, Task
from permix_jax.core.sharding import make_mesh
from permix_jax.personas import adaptive
from permix_jax.personas.mixture import assign, build_mixture
from permix_jax.personas.prompts import prompt_lengths, render_text
from permix_jax.report.tables import text_table
from permix_jax.tasks.order import problems_of_step

_SHOWN = 5  # prompts


def data_view(config: ConfigDict, cache: Path) -> str:
    """Tables of sets and of lengths, and the first prompts of the run's first step.

    `cache` is the folder that runs share. Reads no weights. Raises as a run does for its config,
    data and tokenizer; but some prompts over the budget are counted, whatever on_overflow says.
    """
    require_valid(config)
    config = config.copy_and_resolve_references()
    config.rollout.on_overflow = "drop"
    task = build_task(config, cache)
    policy = build_policy(config, cache, make_mesh(1, 1, 1))[0]
    personas = {"train": drawn_personas(config, task), "test": asked_personas(config, task)}
    lengths = {
        part: np.array(prompt_lengths(policy.tokenizer, getattr(task, part), drawn))
        for part, drawn in personas.items()
    }
    shown = [
        f"--- {problem.source} {problem.id}: {persona.id if persona else 'no persona'}; gold "
        f"answer {problem.answer!r}\n{render_text(policy.tokenizer, persona, problem.prompt)}"
        for problem, persona in _first(config, drop_overlong(config, task, policy))
    ]
    return "\n\n".join([_sets(task), _lengths(lengths, config.rollout.max_prompt_tokens), *shown])


def _first(config: ConfigDict, task: Task) -> list[tuple[Problem, Persona | None]]:
    """The problems of the first step with the persona, or None, of their first rollout."""
    seed, count = config.seed, config.train.problems_per_step
    mixture = build_mixture(task.personas, config.personas)
    problems = problems_of_step(task.train, seed, 1, count)
    state = adaptive.initial(len(mixture.personas)) if mixture.weights == "adaptive" else None
    drawn = assign(mixture, seed, 1, count, config.rollout.group_size, state)
    return [(p, row[0]) for p, row in zip(problems, drawn, strict=True)][:_SHOWN]


def _sets(task: Task) -> str:
    rows = []
    for part, problems in ("train", task.train), ("test", task.test):
        for name, count in _by_source(problems).items():
            distinct = len({p.id for p in problems if p.source == name})
            solved = sum("solution" in p.meta for p in problems if p.source == name)
            rows.append([name, part, str(distinct), str(count), str(solved)])
            rows[-1].append(task.revisions.get(name, "")[:12])
    header = ["set", "part", "problems", "with weights", "with a solution", "revision"]
    return text_table(header, rows)


def _by_source(problems: Sequence[Problem]) -> Counter:
    return Counter(problem.source for problem in problems)


def _lengths(lengths: dict[str, np.ndarray], budget: int) -> str:
    """Tokens of prompts under the persona that takes most, and how many are over the budget."""
    header = ["tokens of a prompt", "shortest", "median", "90 %", "longest", f"over {budget}"]
    rows = []
    for part, tokens in lengths.items():
        quantiles = np.quantile(tokens, [0, 0.5, 0.9, 1], method="higher")
        over = int((tokens > budget).sum())
        share = f"{over} ({over / len(tokens):.1%})"
        rows.append([part, *(str(int(q)) for q in quantiles), share])
    return text_table(header, rows)
