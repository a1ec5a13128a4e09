"""Who judges: OpenAI-compatible chat endpoints, pretrained models, or a function over prompts."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from permix_jax.core.json_lines import read_rows, text_field
from permix_jax.personagym.judge_prompts import Prompt

DTYPES = ("float32", "bfloat16")


class JudgeError(RuntimeError):
    """A judge fails or is not set up; the message is one line with a remedy."""


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
    max_retries: how often the `openai` client sends a request again that failed.
    """

    name: str
    base_url: str
    model: str
    key_variable: str = ""
    temperature: float | None = 0.0
    max_tokens: int = 2048
    concurrency: int = 8
    timeout: float = 120.0
    max_retries: int = 8


class ModelJudge(NamedTuple):
    """A pretrained model that answers greedily through this project's own rollout.

    name: what results call it; unique.
    source: a Hugging Face folder or hub id, or any other model.source of a config.
    max_tokens: of a reply, thinking included.
    batch_size: replies generated at once.
    dtype: of weights and matmuls, "float32" or "bfloat16".
    pad_token: "": the tokenizer's own.
    """

    name: str
    source: str
    max_tokens: int = 512
    batch_size: int = 8
    dtype: str = "float32"
    pad_token: str = ""


class Reply(NamedTuple):
    """What a judge said.

    text: None if the prompt got no reply, for the reason `refusal`.
    truncated: whether max_tokens cut the text off.
    """

    text: str | None
    truncated: bool = False
    refusal: str = ""


class LocalJudge(NamedTuple):
    """A function as a judge, such as a ModelJudge becomes.

    name: what results call it; unique.
    model: names all that changes the replies (weights, step, sampling); part of the cache's key.
    reply: from prompts to as many replies.
    batch_size: prompts in one call. The replies of a call are kept before the next.
    """

    name: str
    model: str
    reply: Callable[[list[Prompt]], list[Reply]]
    batch_size: int = 64


def identity(judge: Judge | LocalJudge) -> list:
    """What a cached reply depends on beside the prompt. The address is not part of it."""
    if isinstance(judge, LocalJudge):
        return [judge.name, judge.model]
    return [judge.name, judge.model, judge.temperature, judge.max_tokens]


def read_judges(path: str | Path) -> list[Judge | ModelJudge]:
    """Reads one judge a line: a ModelJudge if it has a `source`, else a Judge.

    Raises:
      FileNotFoundError: no such file.
      ValueError: an empty file or a bad field, with file:line.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; write one judge a line, as JSON")
    judges = []
    for _, where, row in read_rows(path):
        kind = ModelJudge if "source" in row else Judge
        unknown = sorted(set(row) - set(kind._fields))
        if unknown:
            raise ValueError(
                f"{where}: unknown field {unknown[0]!r}; use {', '.join(kind._fields)}"
            )
        for name in kind._fields[: -len(kind._field_defaults)]:
            text_field(row, name, where)
        judges.append(kind(**row))
        _check_fields(judges[-1], where)
    check_judges(judges)
    return judges


def check_judges(judges: Sequence[Judge | ModelJudge | LocalJudge]) -> None:
    """Raises ValueError for no judge, a name that occurs twice, or a field with a bad value."""
    if not judges:
        raise ValueError("judges is empty: give at least one")
    names = [judge.name for judge in judges]
    for judge in judges:
        if names.count(judge.name) > 1:
            raise ValueError(f"judges: the name {judge.name!r} is there twice; names must differ")
        if not isinstance(judge, LocalJudge):
            _check_fields(judge, f"judge {judge.name!r}")


def _number(value, kinds: type | tuple = (int, float)) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and value >= 0


def _count(value) -> bool:
    return _number(value, int) and value > 0


def _text(value) -> bool:
    return isinstance(value, str)


_RULES = {  # field -> what its value must satisfy, in code and in words; others are text
    "base_url": (lambda x: x.startswith(("http://", "https://")), "an http(s) address"),
    "key_variable": (_text, 'a variable\'s name or ""'),
    "temperature": (lambda x: x is None or _number(x), "0 or more"),
    "max_tokens": (_count, "a whole number from 1"),
    "concurrency": (_count, "a whole number from 1"),
    "timeout": (lambda x: _number(x) and x > 0, "seconds above 0"),
    "max_retries": (lambda x: _number(x, int), "a whole number from 0"),
    "batch_size": (_count, "a whole number from 1"),
    "dtype": (lambda x: x in DTYPES, f"one of {', '.join(DTYPES)}"),
    "pad_token": (_text, 'a token or ""'),
}


def _check_fields(judge: Judge | ModelJudge, where: str) -> None:
    for field, value in judge._asdict().items():
        holds, wanted = _RULES.get(field, (_text, "text"))
        if not holds(value):
            shown = json.dumps(value, default=str)
            raise ValueError(f"{where}: field {field!r} is {shown}; it must be {wanted}")
