r"""Reads a row of each data set as a `Problem` with the bare question.

`meta` has what the data have of: "solution" (a worked solution), "steps" (its calculations),
"level" and "subject" (MATH), "type" (MAWPS, SVAMP). These are the only changes to the data:

    GSM8K   the solution loses its marked calculations <<...>> and its last line "#### N"
    MATH    a level is a number, 0 for "Level ?"
    MAWPS   0.3333333333 is "1/3", and 43.0 is "43"; the solution is ours (`equations.py`)
    SVAMP   body and question are joined; a body without a full stop is an open "If ..." clause
    AIME    the answer 025 is "25"
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from permix_jax.core.json_lines import field, parse_rows, text_field
from permix_jax.core.problem import Problem
from permix_jax.rewards.answer import extract_answer
from permix_jax.rewards.grade import readable
from permix_jax.tasks.datasets.equations import only_equation

Row = Mapping[str, Any]
# (row, "file:line", line number) -> (id, question, answer, meta)
Reader = Callable[[Row, str, int], tuple[str, str, str, dict[str, Any]]]

_STATES = re.compile(r"####|\\(?:boxed|fbox)\b")
_WORD = re.compile(r"(?<!\\)\b[^\W\d_]{2,}")
_MAX_WORDS = 5  # in an answer on several lines; with more it is a worked solution
_CALCULATION = re.compile(r"<<[^<>]*>>")
_PLAIN_NUMBER = re.compile(r"-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?")


def read_problems(content: bytes, name: str, source: str, reader: Reader) -> Iterator[Problem]:
    """Yields the problems of a JSONL file; messages call the file `name`.

    Raises:
      ValueError: a row is malformed, has an answer that states nothing, or repeats an id (the
        message names file:line).
    """
    seen = set()
    for line, where, row in parse_rows(content, name):
        id, question, answer, meta = reader(row, where, line)
        if id in seen:
            raise ValueError(f"{where}: id {id!r} occurs a second time; give each row its own")
        if not readable(answer):
            raise ValueError(
                f"{where}: the answer {answer[:40]!r} states nothing; correct it or drop the row"
            )
        seen.add(id)
        yield Problem(id, question.strip(), answer, source, meta)


def gsm8k(row: Row, where: str, line: int) -> tuple[str, str, str, dict[str, Any]]:
    solution, _, answer = text_field(row, "answer", where).rpartition("####")
    answer = answer.strip()
    if not _PLAIN_NUMBER.fullmatch(answer):
        raise ValueError(
            f"{where}: field 'answer' ends in {answer[:40]!r}; it must end in '#### ' and a number"
        )
    steps = len(_CALCULATION.findall(solution))
    meta = {"solution": _CALCULATION.sub("", solution).strip(), "steps": steps}
    return f"gsm8k-{line}", text_field(row, "question", where), answer, meta


def math_problem(row: Row, where: str, line: int) -> tuple[str, str, str, dict[str, Any]]:
    """A row of MATH or of MATH500, which has "subject" for MATH's "type"."""
    id = text_field(row, "unique_id", where)
    meta = {
        "solution": text_field(row, "solution", where).strip(),
        "subject": text_field(row, "subject" if "subject" in row else "type", where),
        "level": _level(row.get("level"), where),
    }
    return id, text_field(row, "problem", where), text_field(row, "answer", where), meta


def aime(row: Row, where: str, line: int) -> tuple[str, str, str, dict[str, Any]]:
    answer = text_field(row, "answer", where)
    if not re.fullmatch(r"[0-9]{1,3}", answer):
        raise ValueError(f"{where}: field 'answer' is {answer[:40]!r}; it must be 000 to 999")
    meta = {"solution": text_field(row, "solution", where).strip()}
    id = f"aime24-{row.get('id', line)}"
    return id, text_field(row, "problem", where), str(int(answer)), meta


def mawps(row: Row, where: str, line: int) -> tuple[str, str, str, dict[str, Any]]:
    answer = _number(row, "target", where)
    # A number with ten decimals is a rounded fraction.
    if len(answer.partition(".")[2]) >= 10:
        answer = str(Fraction(answer).limit_denominator(100))
    question, meta = text_field(row, "input", where), _type(row)
    if equation := only_equation(question, answer):
        meta["solution"] = equation
    return f"mawps-{line}", question, answer, meta


def svamp(row: Row, where: str, line: int) -> tuple[str, str, str, dict[str, Any]]:
    body = text_field(row, "Body", where).strip()
    stop = "" if body.endswith((".", "?", "!")) else ","
    question = f"{body}{stop} {text_field(row, 'Question', where)}"
    return f"svamp-{line}", question, _number(row, "Answer", where), _type(row)


def users_own(row: Row, where: str, line: int) -> tuple[str, str, str, dict[str, Any]]:
    """A user's row: `prompt`, `answer` (text or a number), optionally `id`; the rest is meta.

    In meta, "solution" must be text and "steps" a whole number. If the answer is a worked solution,
    its final answer is the answer, and its work the "solution" if the row has none.
    """
    prompt, answer = text_field(row, "prompt", where), field(row, "answer", where)
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = _number(row, "answer", where)
    if not isinstance(answer, str):
        raise ValueError(f"{where}: field 'answer' is {answer!r}; it must be text or a number")
    id = row.get("id", line)
    if isinstance(id, bool) or not isinstance(id, str | int):
        raise ValueError(f"{where}: field 'id' is {id!r}; it must be text or a whole number")
    answer, solution = _final_answer(answer.strip(), where)
    meta = {"solution": solution} if solution else {}
    meta |= {name: row[name] for name in row if name not in ("prompt", "answer", "id")}
    if "solution" in row:
        text_field(row, "solution", where)
    if not isinstance(meta.get("steps", 0), int):
        raise ValueError(f"{where}: field 'steps' is {meta['steps']!r}; it must be a whole number")
    return str(id), prompt, answer, meta


def _final_answer(text: str, where: str) -> tuple[str, str]:
    """The final answer in a text, read as in a completion, and the work before it or ""."""
    if not _STATES.search(text):
        if "\n" in text and len(_WORD.findall(text)) > _MAX_WORDS:
            raise ValueError(
                f"{where}: field 'answer' begins with {text[:40]!r} and has several lines, none of "
                "them marked as the answer; give the final answer alone, or end with '#### ' and "
                "the answer"
            )
        return text, ""
    answer = extract_answer(text)
    if not answer or not answer.strip():
        raise ValueError(
            f"{where}: field 'answer' ends in {text[-40:]!r}, with nothing behind its '####' or in "
            "its \\boxed{}; give the final answer alone, or end with '#### ' and the answer"
        )
    work = text.rpartition("####")[0] if "####" in text else text
    work = _CALCULATION.sub("", work).strip()
    return answer.strip(), "" if _STATES.match(work) else work


def _type(row: Row) -> dict[str, Any]:
    name = row.get("type", row.get("Type"))
    return {} if name is None else {"type": name}


def _level(value: object, where: str) -> int:
    """5 for 5 and for "Level 5"; 0 for "Level ?"."""
    match = re.fullmatch(r"(?:Level )?([1-5?])", str(value))
    if match is None:
        raise ValueError(f"{where}: field 'level' is {value!r}; it must be 'Level 1' to 'Level 5'")
    return 0 if match[1] == "?" else int(match[1])


def _number(row: Row, name: str, where: str) -> str:
    """The number exactly, in digits: "43" for 43.0."""
    value = field(row, name, where)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or value != value or value in (math.inf, -math.inf):
        raise ValueError(f"{where}: field {name!r} is {value!r}; it must be a number")
    exact = Fraction(repr(value))
    return str(exact.numerator) if exact.denominator == 1 else f"{Decimal(repr(value)):f}"
