"""The file between answering and judging: JSON Lines, one response of a policy a line."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from permix_jax.core.json_lines import read_rows, text_field


class Answer(NamedTuple):
    """A question and a policy's response; a row of the file. `id` differs between the rows."""

    id: str
    persona: str
    task: str
    question: str
    response: str


def read_answers(path: str | Path, tasks: Collection[str]) -> list[Answer]:
    """The answers in `path`; other fields of a row are ignored.

    Raises:
      FileNotFoundError: no such file.
      ValueError: with file:line, for an empty file, a bad row, an id that occurs twice, or a task
        that is not in `tasks`.
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
