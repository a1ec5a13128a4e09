"""PersonaGym's questions, all or fewer, its prompts for judges, and the file of answers."""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from permix_jax.core.json_lines import read_rows, text_field
from permix_jax.personagym.download import COMMIT, download

RUBRIC_SLOTS = ("score_example", "persona", "question", "response")
EXAMPLE_SLOTS = ("persona", "question", "rubric")

_SYSTEM = "prompts/rubric_grading/sys_prompt.txt"
_EXAMPLES = "prompts/score_examples/prompt.txt"


class Question(NamedTuple):
    """One question to a persona; its `id` is such as "A nun/Toxicity/1", numbered from 1."""

    id: str
    persona: str
    task: str
    question: str


class Answer(NamedTuple):
    """A question and a policy's response; a row of answers.jsonl. `id` differs between the rows."""

    id: str
    persona: str
    task: str
    question: str
    response: str


class Benchmark(NamedTuple):
    """Questions in the order of the file, and the prompts for judges."""

    questions: list[Question]
    rubrics: Mapping[str, str]  # task -> template with RUBRIC_SLOTS
    system_prompt: str  # the judge's
    example_prompt: str  # template with EXAMPLE_SLOTS that asks for a response of each score


def load_benchmark(folder: str, cache: Path) -> Benchmark:
    """Reads benchmark_v1.jsonl (or .jsonl.gz), rubrics.jsonl and prompts.jsonl in `folder`.

    "" downloads them once into `cache`.

    Raises FileNotFoundError; ConnectionError; or ValueError for a file that is empty or malformed
    (with file:line), and for a download with another checksum.
    """
    at = Path(folder)
    if not folder:
        at = Path(cache) / f"personagym-{COMMIT[:12]}"
        download(at)
    rubrics = _read_rubrics(_existing(at, "rubrics.jsonl"))
    prompts = _read_prompts(_existing(at, "prompts.jsonl"))
    path = _existing(at, "benchmark_v1.jsonl", "benchmark_v1.jsonl.gz")
    return Benchmark(_read_questions(path, rubrics), rubrics, *prompts)


def read_answers(path: str | Path, tasks: Collection[str]) -> list[Answer]:
    """The answers in JSON Lines at `path`; other fields of a row are ignored.

    Raises FileNotFoundError. Raises ValueError, with file:line, for an empty file, a bad row, an id
    that occurs twice, or a task that is not in `tasks`.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; write the policy's answers first")
    answers, seen = [], {}
    for line, where, row in read_rows(path):
        texts = [text_field(row, name, where) for name in Answer._fields[:-1]]
        response = row.get("response")  # may be empty: judges grade that, too
        if not isinstance(response, str):
            raise ValueError(f"{where}: field 'response' is {response!r}; it must be text")
        answer = Answer(*texts, response)
        if answer.task not in tasks:
            raise ValueError(f"{where}: task {answer.task!r} has no rubric; use {sorted(tasks)}")
        if answer.id in seen:
            raise ValueError(f"{where}: id {answer.id!r} is that of line {seen[answer.id]} too")
        seen[answer.id] = line
        answers.append(answer)
    return answers


def light(questions: Sequence[Question]) -> list[Question]:
    """The first question of each task of each persona: 1,000 of the published 10,000."""
    first = {}
    for question in questions:
        first.setdefault((question.persona, question.task), question)
    return list(first.values())


def subsample(
    questions: Sequence[Question], personas: int = 0, per_task: int = 0, seed: int = 0
) -> list[Question]:
    """Draws `personas` personas and `per_task` questions of each task; 0 takes all.

    The draw depends on the seed and the texts, not on their order. A smaller draw is a subset of a
    larger one, in the order of `questions`. Raises ValueError for a number that cannot be had.
    """
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for question in questions:
        groups[question.persona][question.task].append(question.id)
    kept = set()
    for persona in _draw("personas", list(groups), personas, seed):
        for task, ids in groups[persona].items():
            kept.update(_draw(f"per_task for {persona!r}, {task}", ids, per_task, seed))
    return [question for question in questions if question.id in kept]


def _draw(field: str, names: Sequence[str], count: int, seed: int) -> list[str]:
    if not 0 <= count <= len(names):
        raise ValueError(f"{field} is {count}: give 0 (all) to {len(names)}")
    hashes = {name: hashlib.sha256(f"{seed}\n{name}".encode()).digest() for name in names}
    return sorted(names, key=hashes.__getitem__)[: count or None]


def _existing(folder: Path, *names: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    remedy = 'name a folder with PersonaGym\'s files, or "" to download them'
    raise FileNotFoundError(f"{folder / names[0]}: no such file; {remedy}")


def _read_rubrics(path: Path) -> dict[str, str]:
    rubrics = {}
    for _, where, row in read_rows(path):
        task = text_field(row, "task", where)
        if task in rubrics:
            raise ValueError(f"{where}: task {task!r} has a rubric already; keep one")
        rubrics[task] = text_field(row, "rubric", where)
        _check_slots(rubrics[task], RUBRIC_SLOTS, f"{where}: field 'rubric'")
    return rubrics


def _read_prompts(path: Path) -> tuple[str, str]:
    texts = {}
    for _, where, row in read_rows(path):
        name = text_field(row, "path", where)
        texts[name] = text_field(row, "text", where)
        if name == _EXAMPLES:
            _check_slots(texts[name], EXAMPLE_SLOTS, f"{where}: field 'text'")
    for name in (_SYSTEM, _EXAMPLES):
        if name not in texts:
            raise ValueError(f"{path}: no row has the path {name!r}; fetch the file again")
    return texts[_SYSTEM], texts[_EXAMPLES]


def _check_slots(template: str, slots: tuple[str, ...], where: str) -> None:
    for slot in slots:
        if (times := template.count(f"{{{slot}}}")) != 1:
            raise ValueError(f"{where} has {times} times {{{slot}}}; it must be there once")


def _read_questions(path: Path, rubrics: Mapping[str, str]) -> list[Question]:
    questions, personas = [], set()
    for _, where, row in read_rows(path):
        persona = text_field(row, "persona", where)
        if persona in personas:
            raise ValueError(f"{where}: persona {persona!r} is there already; keep one row of it")
        personas.add(persona)
        tasks = {name: texts for name, texts in row.items() if name != "persona"}
        if set(tasks) != set(rubrics):
            remedy = f"give those of rubrics.jsonl, {sorted(rubrics)}"
            raise ValueError(f"{where}: the tasks are {sorted(tasks)}; {remedy}")
        for task, texts in tasks.items():
            if not isinstance(texts, list) or not texts:
                said = f"field {task!r} is {texts!r}; it must be a list of questions"
                raise ValueError(f"{where}: {said}")
            for number, text in enumerate(texts, start=1):
                if not isinstance(text, str) or not text.strip():
                    said = f"question {number} of {task!r} is {text!r}; it must be text"
                    raise ValueError(f"{where}: {said}")
                questions.append(Question(f"{persona}/{task}/{number}", persona, task, text))
    return questions
