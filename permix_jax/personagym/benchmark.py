"""The questions, rubrics and prompts of PersonaGym, from a local folder or its public home."""

from collections.abc import Mapping
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


class Benchmark(NamedTuple):
    """Questions in the order of the file, and the prompts for judges.

    rubrics: task -> template with RUBRIC_SLOTS. system_prompt: the judge's.
    example_prompt: template with EXAMPLE_SLOTS that asks for a response of each score.
    """

    questions: list[Question]
    rubrics: Mapping[str, str]
    system_prompt: str
    example_prompt: str


def load_benchmark(folder: str, cache: Path) -> Benchmark:
    """Reads benchmark_v1.jsonl (or .jsonl.gz), rubrics.jsonl and prompts.jsonl.

    Args:
      folder: where the files are; "" downloads them once into `cache`.

    Raises:
      FileNotFoundError: a file is missing.
      ValueError: one is empty or malformed (with file:line), or a download has another checksum.
      ConnectionError: the public home cannot be reached.
    """
    at = Path(folder)
    if not folder:
        at = Path(cache) / f"personagym-{COMMIT[:12]}"
        download(at)
    rubrics = _read_rubrics(_existing(at, "rubrics.jsonl"))
    prompts = _read_prompts(_existing(at, "prompts.jsonl"))
    path = _existing(at, "benchmark_v1.jsonl", "benchmark_v1.jsonl.gz")
    return Benchmark(_read_questions(path, rubrics), rubrics, *prompts)


def _existing(folder: Path, *names: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(
        f"{folder / names[0]}: no such file; name a folder with PersonaGym's files, "
        'or "" to download them'
    )


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
        times = template.count(f"{{{slot}}}")
        if times != 1:
            raise ValueError(f"{where} has {times} times {{{slot}}}; it must be there once")


def _read_questions(path: Path, rubrics: Mapping[str, str]) -> list[Question]:
    questions, personas = [], set()
    for _, where, row in read_rows(path):
        persona = text_field(row, "persona", where)
        if persona in personas:
            raise ValueError(f"{where}: persona {persona!r} is there already; keep one row of it")
        personas.add(persona)
        tasks = [name for name in row if name != "persona"]
        if set(tasks) != set(rubrics):
            raise ValueError(
                f"{where}: the tasks are {sorted(tasks)}; "
                f"give those of rubrics.jsonl, {sorted(rubrics)}"
            )
        for task in tasks:
            questions += _task_questions(row[task], persona, task, where)
    return questions


def _task_questions(texts, persona: str, task: str, where: str) -> list[Question]:
    if not isinstance(texts, list) or not texts:
        raise ValueError(f"{where}: field {task!r} is {texts!r}; it must be a list of questions")
    questions = []
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"{where}: question {number} of {task!r} is {text!r}; it must be text")
        questions.append(Question(f"{persona}/{task}/{number}", persona, task, text))
    return questions
