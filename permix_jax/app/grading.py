"""Grades a file of answers, as a run would grade them, and says why."""

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from permix_jax.core.config_fields import FIELDS
from permix_jax.core.field_rules import valid_value
from permix_jax.core.files import append
from permix_jax.core.json_lines import field, read_rows
from permix_jax.rewards.answer import extract_answer
from permix_jax.rewards.grade import explain
from permix_jax.rewards.thinking import answer_part

THINKING_END: str = FIELDS["rewards.thinking_end"].default
BATCH = 64  # rows whose verdicts are written together, at most
_STATES = {True: "right", False: "wrong", None: "null"}
_MAX_LINES_NAMED = 10


class Answer(NamedTuple):
    """A row to grade: its line in the file, and a hash of its texts. `answer` is what stands in the
    box, None where nothing does."""

    line: int
    problem: str
    gold: str
    answer: str | None
    hash: str


def grade_file(
    file: Path,
    out: Path | None = None,
    last_number: bool = False,
    thinking_end: str = THINKING_END,
    thinking_begun: bool = False,
) -> str:
    """Writes a verdict a row to `out`, or prints it; returns the summary by kind.

    A verdict is {"right": true, false or null, "kind", "why", "row": a hash of the row's texts}.
    null: the gold answer states nothing. Verdicts that `out` has are kept; an interrupted call
    leaves whole lines, and the same call goes on behind them.

    Args:
      file: JSON Lines, plain or gzipped; a row has "problem", "gold", and "completion" or "answer",
        or is one of `data.train`: "prompt", "answer" and perhaps "solution".
      last_number: a completion without a box or #### states the last number in it.
      thinking_end: ends a thought in completions, as `rewards.thinking_end`.
      thinking_begun: prompts began the thought, so that completions start inside it.

    Raises ValueError or OSError, in one line: a bad row, or an `out` that belongs to other rows.
    """
    rows = read_answers(file, last_number, thinking_end, thinking_begun)
    with _verdicts(out, file, rows) as (verdicts, write):
        left = rows[len(verdicts) :]
        if left:
            with tqdm(total=len(rows), initial=len(verdicts), disable=None) as progress:
                for some in graded(left):
                    write(some)
                    verdicts += some
                    progress.update(len(some))
    return summary(rows, verdicts)


def read_answers(
    file: Path,
    last_number: bool = False,
    thinking_end: str = THINKING_END,
    thinking_begun: bool = False,
) -> list[Answer]:
    """The rows of a file. Raises as `read_rows`, and ValueError with file, line and field."""
    thinking = valid_value("rewards.thinking_end", thinking_end), thinking_begun
    return [
        _answer(line, where, row, last_number, thinking) for line, where, row in read_rows(file)
    ]


def summary(rows: Sequence[Answer], verdicts: Sequence[Mapping[str, Any]]) -> str:
    """How many rows of each kind of gold answer are right, wrong and null, and the lines of the
    first that are not right."""
    kinds = sorted({verdict["kind"] for verdict in verdicts})
    counted = [[kind or "-", [v for v in verdicts if v["kind"] == kind]] for kind in kinds]
    counted.append(["all", verdicts])
    width = max(len(kind) for kind, _ in counted)
    lines = [f"{'kind':<{width}}" + "".join(f"  {state:>7}" for state in _STATES.values())]
    for kind, those in counted:
        counts = [sum(v["right"] is right for v in those) for right in _STATES]
        lines.append(f"{kind:<{width}}" + "".join(f"  {count:>7}" for count in counts))
    for right in (False, None):
        of = [row.line for row, v in zip(rows, verdicts, strict=True) if v["right"] is right]
        more = len(of) - _MAX_LINES_NAMED
        if of:
            named = ", ".join(map(str, of[:_MAX_LINES_NAMED]))
            lines.append(f"{_STATES[right]}: lines {named}{f' and {more} more' * (more > 0)}")
    return "\n".join(lines)


# ---- reading -------------------------------------------------------------------------------------


def _answer(
    line: int, where: str, row: dict[str, Any], last_number: bool, thinking: tuple[str, bool]
) -> Answer:
    row = _of_training(row)
    stated = [name for name in ("completion", "answer") if name in row]
    if len(stated) == 2:
        raise ValueError(f"{where}: fields 'completion' and 'answer' are both there; leave one out")
    texts = {name: field(row, name, where) for name in ("problem", "gold", *stated)}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{where}: field {name!r} is {text!r}; write it as text, in quotes")
    if not stated:
        raise ValueError(
            f"{where}: there is no field 'completion', nor 'answer', only "
            f"{', '.join(map(repr, row))}; add one, or rename the field that has it"
        )
    answer, options = texts.get("answer"), [last_number]
    if answer is None:
        part = answer_part(texts["completion"], *thinking)
        answer = extract_answer(part, last_number)
        if part != texts["completion"]:  # so that a verdict on other texts is known as before
            options += thinking
    hashed = hashlib.sha256(json.dumps([*texts.items(), *options]).encode()).hexdigest()[:16]
    return Answer(line, texts["problem"], texts["gold"], answer, hashed)


def _of_training(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `data.train` as one to grade: its solution, if that states an answer, else its own
    answer. Other rows are returned as they are."""
    if "gold" in row or not {"prompt", "answer"} <= row.keys():
        return row
    solution = row.get("solution")
    states = isinstance(solution, str) and extract_answer(solution) is not None
    graded = {"completion": solution} if states else {"answer": row["answer"]}
    return {"problem": row["prompt"], "gold": row["answer"], **graded}


@contextmanager
def _verdicts(
    out: Path | None, file: Path, rows: Sequence[Answer]
) -> Iterator[tuple[list[dict[str, Any]], Callable[[list[dict]], None]]]:
    """The verdicts that `out` has, and a function that adds some."""
    if out is None:
        yield [], lambda verdicts: print(_lines(verdicts), end="", flush=True)
        return
    if out.is_dir() or out.suffix == ".gz":
        what = "a folder" if out.is_dir() else "verdicts are not compressed"
        raise ValueError(f"--out={out}: {what}; name a file, such as verdicts.jsonl")
    kept, size = _kept(out, file, rows)
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("ab", buffering=0) as opened:
        if opened.tell() > size:
            opened.truncate(size)
        yield kept, lambda verdicts: append(opened, _lines(verdicts).encode(), sync=False)


def _kept(out: Path, file: Path, rows: Sequence[Answer]) -> tuple[list[dict[str, Any]], int]:
    """The verdicts that a call before this one wrote, and their size in bytes.

    What follows the last line break was cut off.
    """
    content = out.read_bytes() if out.is_file() else b""
    whole = content.rfind(b"\n") + 1
    kept = []
    for number, line in enumerate(content[:whole].splitlines(), start=1):
        where, remedy = f"{out}:{number}", "name another --out, or remove the file to grade anew"
        try:
            verdict = json.loads(line)
            row = verdict["row"], verdict["kind"], verdict["right"]
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{where}: not a verdict of this command; {remedy}") from None
        if number > len(rows):
            raise ValueError(f"{where}: {file} has {len(rows)} rows and no such one; {remedy}")
        if row[0] != rows[number - 1].hash:
            of = f"{file}:{rows[number - 1].line}"
            raise ValueError(f"{where}: the verdict of another row than {of} now has; {remedy}")
        kept.append(verdict)
    return kept, whole


def _lines(verdicts: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(verdict) + "\n" for verdict in verdicts)


# ---- grading -------------------------------------------------------------------------------------


def graded(rows: Sequence[Answer]) -> Iterator[list[dict[str, Any]]]:
    """Yields the rows' verdicts, as `grade_file` writes them, BATCH rows at a time."""
    for first in range(0, len(rows), BATCH):
        yield [_graded(row) for row in rows[first : first + BATCH]]


def _graded(row: Answer) -> dict[str, Any]:
    verdict = explain(row.answer, row.gold, row.problem)
    right = None if math.isnan(verdict.right) else bool(verdict.right)
    return {"right": right, "kind": verdict.kind, "why": verdict.why, "row": row.hash}
