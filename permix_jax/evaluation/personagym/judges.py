"""Who judges: OpenAI-compatible chat endpoints, or a function over prompts."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from permix_jax.json_lines import read_rows, text_field


class JudgeError(RuntimeError):
    """A judge is down, too slow, limits for too long, or is not set up; one line, with a remedy."""


class Judge(NamedTuple):
    """A model behind an OpenAI-compatible chat endpoint.

    name: what results call it; unique.
    base_url: such as "https://api.openai.com/v1" or "http://127.0.0.1:8000/v1".
    model: as the endpoint calls it.
    key_variable: environment variable with the key; "" where none is asked for.
    temperature: None leaves it to the endpoint (some models take no other).
    max_tokens: of a reply, thinking included.
    concurrency: requests at once.
    timeout: seconds for one request.
    """

    name: str
    base_url: str
    model: str
    key_variable: str = ""
    temperature: float | None = 0.0
    max_tokens: int = 2048
    concurrency: int = 8
    timeout: float = 120.0


class LocalJudge(NamedTuple):
    """A function as a judge, such as a model through this project's own rollout.

    name: what results call it; unique.
    model: says all that changes its replies (weights, step, sampling): the cache goes by it.
    reply: from prompts to as many replies.
    batch_size: prompts in one call; the replies of each call are kept before the next.
    """

    name: str
    model: str
    reply: Callable[[list[str]], list[str]]
    batch_size: int = 64


class Reply(NamedTuple):
    """What a judge said; `text` None where the endpoint refused the prompt, for `refusal`.

    `truncated` where max_tokens cut it off.
    """

    text: str | None
    truncated: bool = False
    refusal: str = ""


def identity(judge: Judge | LocalJudge) -> list:
    """What a cached reply depends on beside the prompt; where an endpoint is does not matter."""
    if isinstance(judge, LocalJudge):
        return [judge.name, judge.model]
    return [judge.name, judge.model, judge.temperature, judge.max_tokens]


def read_judges(path: str | Path) -> list[Judge]:
    """One judge a line, with Judge's fields; those with a default may be left out.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an empty file or a bad field, with file:line.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; write one judge a line, as JSON")
    judges = []
    for _, where, row in read_rows(path):
        unknown = sorted(set(row) - set(Judge._fields))
        if unknown:
            raise ValueError(
                f"{where}: unknown field {unknown[0]!r}; use {', '.join(Judge._fields)}"
            )
        for name in ("name", "base_url", "model"):
            text_field(row, name, where)
        judges.append(Judge(**row))
        _check_fields(judges[-1], where)
    check_judges(judges)
    return judges


def check_judges(judges: Sequence[Judge | LocalJudge]) -> None:
    """Raises ValueError if there is none, a name twice, or a field that cannot be."""
    if not judges:
        raise ValueError("judges is empty: give at least one")
    names = [judge.name for judge in judges]
    for judge in judges:
        if names.count(judge.name) > 1:
            raise ValueError(f"judges: the name {judge.name!r} is there twice; names must differ")
        if isinstance(judge, Judge):
            _check_fields(judge, f"judge {judge.name!r}")


def _check_fields(judge: Judge, where: str) -> None:
    def number(value, least: float, whole: bool = False) -> bool:
        kinds = int if whole else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and value >= least

    rules = {
        "base_url": (judge.base_url.startswith(("http://", "https://")), "an http(s) address"),
        "key_variable": (isinstance(judge.key_variable, str), 'a variable\'s name or ""'),
        "temperature": (judge.temperature is None or number(judge.temperature, 0), "0 or more"),
        "max_tokens": (number(judge.max_tokens, 1, whole=True), "a whole number from 1"),
        "concurrency": (number(judge.concurrency, 1, whole=True), "a whole number from 1"),
        "timeout": (number(judge.timeout, 0) and judge.timeout > 0, "seconds above 0"),
    }
    for field, (holds, wanted) in rules.items():
        if not holds:
            value = json.dumps(getattr(judge, field), default=str)
            raise ValueError(f"{where}: field {field!r} is {value}; it must be {wanted}")
