"""Who judges: OpenAI-compatible chat endpoints, pretrained models, or a function over prompts."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from permix_jax.core.json_lines import read_rows, text_field
from permix_jax.personagym.judge_prompts import Prompt

DTYPES = ("float32", "bfloat16")


class JudgeError(RuntimeError):
    """A judge fails or is not set up; the message is one line with a remedy."""


class Judge(NamedTuple):
    """A model behind an OpenAI-compatible chat endpoint."""

    name: str  # what results call it; unique
    base_url: str  # such as "https://api.openai.com/v1" or "http://127.0.0.1:8000/v1"
    model: str  # as the endpoint calls it
    key_variable: str = ""  # environment variable with the key; "" where none is asked for
    temperature: float | None = 0.0  # None leaves it to the endpoint (some models take no other)
    max_tokens: int = 2048  # of a reply, thinking included
    concurrency: int = 8  # requests at once
    timeout: float = 120.0  # seconds for one request
    max_retries: int = 8  # how often the `openai` client sends a request again that failed


class ModelJudge(NamedTuple):
    """A pretrained model that answers greedily through this project's own rollout."""

    name: str  # what results call it; unique
    source: str  # a Hugging Face folder or hub id, or any other model.source of a config
    max_tokens: int = 512  # of a reply, thinking included
    batch_size: int = 8  # replies generated at once
    dtype: str = "float32"  # of weights and matmuls, one of DTYPES
    pad_token: str = ""  # "": the tokenizer's own


class Reply(NamedTuple):
    """What a judge said."""

    text: str | None  # None if the prompt got no reply
    truncated: bool = False  # whether max_tokens cut the text off
    refusal: str = ""  # why there is no reply


class LocalJudge(NamedTuple):
    """A function as a judge, such as a ModelJudge becomes."""

    name: str  # what results call it; unique
    model: str  # names all that changes the replies (weights, step, sampling), for the cache
    reply: Callable[[list[Prompt]], list[Reply]]  # from prompts to as many replies
    batch_size: int = 64  # prompts in one call; its replies are kept before the next


def read_judges(path: str | Path) -> list[Judge | ModelJudge]:
    """Reads one judge a line: a ModelJudge if it has a `source`, else a Judge.

    Raises FileNotFoundError; ValueError, with file:line, for an empty file or a bad field.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; write one judge a line, as JSON")
    judges = []
    for _, where, row in read_rows(path):
        kind = ModelJudge if "source" in row else Judge
        if unknown := sorted(set(row) - set(kind._fields)):
            known = ", ".join(kind._fields)
            raise ValueError(f"{where}: unknown field {unknown[0]!r}; use {known}")
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


def _number(value, kinds: type | tuple = (int, float), least: float = 0) -> bool:
    return isinstance(value, kinds) and not isinstance(value, bool) and value >= least


def _text(value) -> bool:
    return isinstance(value, str)


_COUNT = (partial(_number, kinds=int, least=1), "a whole number from 1")
_RULES = {  # field -> what its value must satisfy, in code and in words; others are text
    "base_url": (lambda x: x.startswith(("http://", "https://")), "an http(s) address"),
    "key_variable": (_text, 'a variable\'s name or ""'),
    "temperature": (lambda x: x is None or _number(x), "0 or more"),
    **dict.fromkeys(("max_tokens", "concurrency", "batch_size"), _COUNT),
    "timeout": (lambda x: _number(x) and x > 0, "seconds above 0"),
    "max_retries": (partial(_number, kinds=int), "a whole number from 0"),
    "dtype": (lambda x: x in DTYPES, f"one of {', '.join(DTYPES)}"),
    "pad_token": (_text, 'a token or ""'),
}


def _check_fields(judge: Judge | ModelJudge, where: str) -> None:
    for field, value in judge._asdict().items():
        holds, wanted = _RULES.get(field, (_text, "text"))
        if not holds(value):
            shown = json.dumps(value, default=str)
            raise ValueError(f"{where}: field {field!r} is {shown}; it must be {wanted}")
