"""Reads a row of each data set as a `Problem` with the bare question.

`meta` has what the data have of: "solution" (a worked solution), "steps" (its calculations),
"level" and "subject" (MATH), "type" (MAWPS, SVAMP). docs/data.md names all changes to the data.
"""

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Any

from permix_jax.core.json_lines import Row as NumberedRow
from permix_jax.core.json_lines import field, parse_rows, text_field
from permix_jax.core.problem import Problem
from permix_jax.rewards.answer import extract_answer
from permix_jax.rewards.grade import readable

Row = Mapping[str, Any]
Fields = tuple[str, str, str, dict[str, Any]]  # id, question, answer, meta
Reader = Callable[[Row, str, int], Fields]  # of a row, "file:line" and the number of the line

_STATES = re.compile(r"####|\\(?:boxed|fbox)\b")
_WORD = re.compile(r"(?<!\\)\b[^\W\d_]{2,}")
_MAX_WORDS = 5  # in an answer on several lines; with more it is a worked solution
_CALCULATION = re.compile(r"<<[^<>]*>>")
_NUMBER_IN_TEXT = re.compile(r"(?<![\w.,])(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?![\w])")
_PLAIN_NUMBER = re.compile(r"-?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?")


def read_problems(content: bytes, name: str, source: str, reader: Reader) -> Iterator[Problem]:
    """Yields the problems of a JSONL file; messages call the file `name`. Raises as `problems`."""
    return problems(parse_rows(content, name), source, reader)


def problems(rows: Iterable[NumberedRow], source: str, reader: Reader) -> Iterator[Problem]:
    """Yields the problems of rows that come with their numbers and places.

    Raises ValueError, with the place, for a row that is malformed, has an answer that states
    nothing, or repeats an id.
    """
    seen = set()
    for line, where, row in rows:
        id, question, answer, meta = reader(row, where, line)
        if id in seen:
            raise ValueError(f"{where}: id {id!r} occurs a second time; give each row its own")
        if not readable(answer):
            said = f"the answer {answer[:40]!r} states nothing; correct it or drop the row"
            raise ValueError(f"{where}: {said}")
        seen.add(id)
        yield Problem(id, question.strip(), answer, source, meta)


def gsm8k(row: Row, where: str, line: int) -> Fields:
    solution, _, answer = text_field(row, "answer", where).rpartition("####")
    answer = answer.strip()
    if not _PLAIN_NUMBER.fullmatch(answer):
        remedy = "it must end in '#### ' and a number"
        raise ValueError(f"{where}: field 'answer' ends in {answer[:40]!r}; {remedy}")
    steps = len(_CALCULATION.findall(solution))
    meta = {"solution": _CALCULATION.sub("", solution).strip(), "steps": steps}
    return f"gsm8k-{line}", text_field(row, "question", where), answer, meta


def math_problem(row: Row, where: str, line: int) -> Fields:
    """A row of MATH or of MATH500, which has "subject" for MATH's "type"."""
    id = text_field(row, "unique_id", where)
    meta = {
        "solution": text_field(row, "solution", where).strip(),
        "subject": text_field(row, "subject" if "subject" in row else "type", where),
        "level": _level(row.get("level"), where),
    }
    return id, text_field(row, "problem", where), text_field(row, "answer", where), meta


def aime(row: Row, where: str, line: int) -> Fields:
    answer = text_field(row, "answer", where)
    if not re.fullmatch(r"[0-9]{1,3}", answer):
        raise ValueError(f"{where}: field 'answer' is {answer[:40]!r}; it must be 000 to 999")
    meta = {"solution": text_field(row, "solution", where).strip()}
    problem = text_field(row, "problem", where)
    return f"aime24-{row.get('id', line)}", problem, str(int(answer)), meta


def mawps(row: Row, where: str, line: int) -> Fields:
    answer = _number(row, "target", where)
    # A number with ten decimals is a rounded fraction.
    if len(answer.partition(".")[2]) >= 10:
        answer = str(Fraction(answer).limit_denominator(100))
    question, meta = text_field(row, "input", where), _type(row)
    if equation := only_equation(question, answer):
        meta["solution"] = equation
    return f"mawps-{line}", question, answer, meta


def only_equation(question: str, answer: str) -> str | None:
    """The one sum, difference, product or quotient of two numbers in the question that gives the
    answer, such as "70 - 27 = 43"; None if there is none, or several. It is only probably meant.
    """
    wanted, equations = Fraction(answer), set()
    for first, second in combinations(_NUMBER_IN_TEXT.findall(question), 2):
        for a, b in ((first, second), (second, first)):
            x, y = (Fraction(n.replace(",", "")) for n in (a, b))
            if x - y == wanted:
                equations.add(f"{a} - {b} = {answer}")
            if y and x / y == wanted:
                equations.add(f"{a} / {b} = {answer}")
        if x + y == wanted:
            equations.add(f"{first} + {second} = {answer}")
        if x * y == wanted:
            equations.add(f"{first} * {second} = {answer}")
    return equations.pop() if len(equations) == 1 else None


def svamp(row: Row, where: str, line: int) -> Fields:
    body = text_field(row, "Body", where).strip()
    stop = "" if body.endswith((".", "?", "!")) else ","
    question = f"{body}{stop} {text_field(row, 'Question', where)}"
    return f"svamp-{line}", question, _number(row, "Answer", where), _type(row)


def users_own(row: Row, where: str, line: int) -> Fields:
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
    remedy = "give the final answer alone, or end with '#### ' and the answer"
    if not _STATES.search(text):
        if "\n" in text and len(_WORD.findall(text)) > _MAX_WORDS:
            raise ValueError(
                f"{where}: field 'answer' begins with {text[:40]!r} and has several lines, none of "
                f"them marked as the answer; {remedy}"
            )
        return text, ""
    answer = extract_answer(text)
    if not answer or not answer.strip():
        raise ValueError(
            f"{where}: field 'answer' ends in {text[-40:]!r}, with nothing behind its '####' or in "
            f"its \\boxed{{}}; {remedy}"
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
