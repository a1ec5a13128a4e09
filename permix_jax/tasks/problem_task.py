r"""The task of the data sets: problems to train on and to test on, graded by one rule.

Its demonstrations are worked solutions that end in \boxed{answer} or in the line "#### answer".
"""

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from permix_jax.core.fields import names_in
from permix_jax.core.persona import Persona
from permix_jax.core.problem import Demonstration, Problem, Task
from permix_jax.core.randomness import generator
from permix_jax.rewards.answer import last_box, stated_answer
from permix_jax.rewards.grade import grade_answer
from permix_jax.tasks.datasets.load import load_problems, place
from permix_jax.tasks.datasets.sources import HUB, HubTable, columns_in, newest_revision
from permix_jax.tasks.overlap import same_answer, without_doubles, without_overlap

logger = logging.getLogger(__name__)

INSTRUCTIONS = {
    "boxed": r"Reason step by step. End with the final answer in \boxed{}.",
    "hashes": "Work it out step by step. End with '#### ' and the number.",
}
# What stands around a question, by the names of data.prompt_template.
TEMPLATES = {name: f"{{problem}}\n{asked}" for name, asked in INSTRUCTIONS.items()}
TEMPLATES["plain"] = "{problem}"
_WEIGHT = re.compile(r"\*([1-9][0-9]*)$")
_STATEMENTS = {"boxed": "The answer is $\\boxed{{{}}}$.", "hashes": "#### {}"}


def problem_task(
    data: ConfigDict,
    personas: Sequence[Persona],
    num_test: int,
    seed: int,
    cache: Path,
    testing_only: bool = False,
    revisions: Mapping[str, str] | None = None,
) -> Task:
    """A task that trains on the sets `data.train` and tests on `num_test` problems of `data.test`.

    A question that the training sets repeat is kept once, or dropped if its answers differ. The
    test problems are a pure function of `seed`, and a smaller draw is a subset of a larger one.
    Training problems must not overlap with the whole test set, drawn or not. Built sets are kept in
    `cache`. `testing_only` skips the training sets if `data.test` names a set. `revisions`: the
    commits of sets of the hub, by name; sets without one are read as they are now.

    Raises as `load_problems` and `filter_problems`; ValueError for what cannot be or leaves none.
    """
    weights = weighted_names(data.train)
    names = list(weights)
    if not names:
        raise ValueError("data.train is empty; name a data set, such as gsm8k, or a JSONL file")
    hub = data.test.startswith(HUB) and data.split != data.test_split
    if data.test in names and not hub:
        remedy = "name another set, or leave it empty to hold problems of data.train out"
        raise ValueError(f"data.test is {data.test!r}, which data.train has too; {remedy}")
    testing_only = testing_only and bool(data.test)
    read = [*([] if testing_only else names), *filter(None, [data.test])]
    revisions = _revisions(read, revisions or {})
    train = [] if testing_only else _training_problems(names, data, cache, revisions)
    test = train
    if data.test:
        test = _load(data.test, data, data.test_split, cache, revisions)
    spare = len(test) if data.test else len(test) - 1
    if spare < 1:
        raise ValueError(
            f"data.train is {data.train!r}, with {len(test)} problems; give one to train on and "
            "one to test on, or name a data.test"
        )
    if not 1 <= num_test <= spare:
        there = f"{data.test or data.train} has {len(test)} problems{'' if data.test else ' left'}"
        raise ValueError(f"task.num_test is {num_test}; {there} to test on, use 1 to {spare}")
    _say_unreadable([*train, *test] if data.test else test, data.answer_format)
    order = generator(seed, "problems/test").permutation(len(test))
    drawn = [test[index] for index in order[:num_test]]
    if not data.test:
        train, test = [train[index] for index in sorted(order[num_test:])], drawn

    if not testing_only:
        train = _without_overlap(train, test, data)
    train = [p for p in train for _ in range(weights[p.source])]
    template = data.prompt_template or data.answer_format
    template = TEMPLATES.get(template, template)
    train, drawn = ([asked(p, template) for p in x] for x in (train, drawn))
    shown = demonstrator(personas, data.answer_format)
    return Task(
        *("problems", train, drawn, personas, grade_answer, shown),
        stated=stated_answer,
        revisions=revisions,
    )


def asked(problem: Problem, template: str) -> Problem:
    """The problem with its question where the template has {problem}."""
    return replace(problem, prompt=template.replace("{problem}", problem.prompt))


def weighted_names(train: str) -> dict[str, int]:
    """How often the problems of each set of `data.train` come: {"a": 1, "b": 3} of "a,b*3"."""
    weights = {}
    for name in names_in(train):
        found = _WEIGHT.search(name)
        bare = name[: found.start()].strip() if found else name
        if bare in weights:
            raise ValueError(f"data.train names {bare} more than once; name it once")
        weights[bare] = int(found[1]) if found else 1
    return weights


def _revisions(names: Sequence[str], known: Mapping[str, str]) -> dict[str, str]:
    """The commit of each set of the hub, that of `known` or the newest; none for folders."""
    found = {}
    for name in names:
        if name.startswith(HUB) and (commit := known.get(name) or newest_revision(name)):
            found[name] = commit
    return found


def _load(
    name: str, data: ConfigDict, split: str, cache: Path, revisions: Mapping[str, str]
) -> list[Problem]:
    table = HubTable(data.subset, split, revisions.get(name, ""))
    return load_problems(name, data.folder, cache, columns_in(data.fields), table)


def _say_unreadable(problems: Sequence[Problem], answer_format: str) -> None:
    """Warns of gold answers that are graded as wrong when a completion states them as asked."""
    unsure = [p for p in problems if not p.answer.isdecimal()]  # most are decimal: quickly skipped
    stated = ((p, statement(p.answer, answer_format)) for p in unsure)
    unreadable = [p for p, text in stated if grade_answer(text, p) != 1.0]
    if unreadable:
        first = unreadable[0]
        logger.warning(
            "%d of %d gold answers (%.2g %%) are graded as wrong themselves where a completion "
            "states them as data.answer_format=%s; correct them or drop their rows, first %s: %r",
            len(unreadable), len(problems), 100 * len(unreadable) / len(problems), answer_format,
            place(first), first.answer[:40],
        )  # fmt: skip


def _training_problems(
    names: Sequence[str], data: ConfigDict, cache: Path, revisions: Mapping[str, str]
) -> list[Problem]:
    problems = [p for name in names for p in _load(name, data, data.split, cache, revisions)]
    train = without_doubles(problems)
    if doubled := len(problems) - len(train):
        logger.info("data.train: left out %d doubled questions", doubled)
    return filter_problems(train, data.max_steps, data.levels, data.subjects)


def _without_overlap(train: list[Problem], test: list[Problem], data: ConfigDict) -> list[Problem]:
    """Applies `data.overlap` to the training problems; logs a line for each set."""
    kept, deed = [], "left out" if data.overlap == "drop" else "kept"
    for name in weighted_names(data.train):
        overlap = without_overlap([p for p in train if p.source == name], test)
        said = "%s: %s %d problems of the test set, word for word, and %d in other words"
        if overlap.exact or overlap.reworded:
            logger.info(said, name, deed, overlap.exact, overlap.reworded)
        kept += overlap.kept
    if data.overlap == "keep":
        return train
    if not kept:
        what = f"data.train is {data.train!r}: every problem of it is in the test set as well"
        raise ValueError(f"{what}; name other sets, or set data.overlap to keep")
    return kept


def filter_problems(
    problems: Sequence[Problem], max_steps: int, levels: str, subjects: str
) -> list[Problem]:
    """The problems that pass all filters (see `config.data`); 0 and "" are no filter.

    A filter reads one field of `meta` and keeps all problems without that field: with
    data.train = "gsm8k,mawps", data.max_steps filters GSM8K alone. Raises ValueError if no problem
    has such a value, or the field. But presets set `max_steps` for any data, so it is no error if
    no problem has steps.
    """
    kept = list(problems)
    # Steps 0: the solution, mostly algebra, marks no calculation, so its steps are unknown.
    if max_steps and (steps := [p.meta["steps"] for p in kept if "steps" in p.meta]):
        fewest = min(filter(None, steps), default=0)
        if not 1 <= fewest <= max_steps:
            remedy = f"use {max(fewest, 1)} or more"
            raise ValueError(f"data.max_steps is {max_steps}, which leaves no problem; {remedy}")
        kept = [p for p in kept if 1 <= p.meta.get("steps", 1) <= max_steps]
    for name, wanted in (("level", levels), ("subject", subjects)):
        if wanted:
            kept = _named(kept, name, wanted)
    return kept


def _named(problems: Sequence[Problem], name: str, wanted: str) -> list[Problem]:
    field = f"data.{name}s"
    there = {_plain(p.meta[name]): str(p.meta[name]) for p in problems if name in p.meta}
    if not there:
        raise ValueError(f"{field} is set, but no problem of data.train has {name}; leave it unset")
    parts = wanted.split(",")
    if unknown := [part.strip() for part in parts if _plain(part) not in there]:
        raise ValueError(
            f"{field} is {wanted!r}, but no problem of data.train has {name} {unknown[0]!r}; use "
            f"some of {', '.join(sorted(there.values()))}"
        )
    plain = set(map(_plain, parts))
    return [p for p in problems if name not in p.meta or _plain(p.meta[name]) in plain]


def _plain(value: object) -> str:
    """ "Counting & Probability", "counting_and_probability" -> "countingprobability"; 3 -> "3"."""
    words = str(value).lower().replace("_", " ").replace("&", " ").split()
    return "".join(word for word in words if word not in ("and", "level"))


def demonstrator(
    personas: Sequence[Persona], answer_format: str
) -> Callable[[np.random.Generator, Sequence[Problem]], Demonstration]:
    """A `Task.demonstrate` that shows worked solutions, half of them under a training persona."""
    train_personas = [persona for persona in personas if persona.split == "train"]

    def demonstrate(rng: np.random.Generator, train: Sequence[Problem]) -> Demonstration:
        for _ in range(1000):  # those with a worked solution may be few
            problem = train[rng.integers(len(train))]
            if "solution" in problem.meta:
                break
        else:
            raise ValueError(
                "no training problem with a worked solution is left for SFT; name a data.train that"
                " has them (gsm8k, math), raise rollout.max_prompt_tokens, or set sft.steps to 0"
            )
        persona = None
        if train_personas and rng.random() < 0.5:
            persona = train_personas[rng.integers(len(train_personas))]
        return Demonstration(persona, problem.prompt, worked(problem, answer_format))

    return demonstrate


def worked(problem: Problem, answer_format: str) -> str:
    """The worked solution, ending in the answer in the form `answer_format`."""
    solution = problem.meta["solution"].strip()
    box = last_box(solution) if answer_format == "boxed" else None
    if box is not None and same_answer(problem, replace(problem, answer=box)):
        return solution
    return f"{solution}\n{statement(problem.answer, answer_format)}"


def statement(answer: str, answer_format: str) -> str:
    """A line that states an answer in the form `answer_format`."""
    return _STATEMENTS[answer_format].format(answer.strip())
