"""The JSONL between answering and judging: one response of a policy a line."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from permix_jax.core.json_lines import read_rows, text_field


class Answer(NamedTuple):
    """A question and a policy's response to it; its `_asdict()` is a row of the file.

    `id` is the question's, or any other that differs between the rows.
    """

    id: str
    persona: str
    task: str
    question: str
    response: str


def read_answers(path: str | Path, tasks: Collection[str]) -> list[Answer]:
    """The answers in `path`; further fields of a row are passed over.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an empty file, a bad row, an id twice, or a task that is not in `tasks`; with
        file:line.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; write the policy's answers first")
    answers, seen = [], {}
    for line, where, row in read_rows(path):
        answer = Answer(
            *(text_field(row, name, where) for name in ("id", "persona", "task", "question")),
            _response(row, where),
        )
        if answer.task not in tasks:
            raise ValueError(f"{where}: task {answer.task!r} has no rubric; use {sorted(tasks)}")
        if answer.id in seen:
            raise ValueError(f"{where}: id {answer.id!r} is that of line {seen[answer.id]} too")
        seen[answer.id] = line
        answers.append(answer)
    return answers


def _response(row: dict, where: str) -> str:
    """Text, empty where the policy said nothing: that is for the judge to grade."""
    response = row.get("response")
    if not isinstance(response, str):
        raise ValueError(f"{where}: field 'response' is {response!r}; it must be text")
    return response
