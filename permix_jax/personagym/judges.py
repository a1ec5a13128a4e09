"""Who judges: OpenAI-compatible chat endpoints, pretrained models, or a function over prompts."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from permix_jax.core.json_lines import read_rows, text_field
from permix_jax.personagym.judge_prompts import Prompt

DTYPES = ("float32", "bfloat16")


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
    """What a judge said; `text` None where it refused the prompt, for `refusal`.

    `truncated` where max_tokens cut it off.
    """

    text: str | None
    truncated: bool = False
    refusal: str = ""


class LocalJudge(NamedTuple):
    """A function as a judge, such as a ModelJudge becomes.

    name: what results call it; unique.
    model: says all that changes its replies (weights, step, sampling): the cache goes by it.
    reply: from prompts to as many replies.
    batch_size: prompts in one call; the replies of each call are kept before the next.
    """

    name: str
    model: str
    reply: Callable[[list[Prompt]], list[Reply]]
    batch_size: int = 64


def identity(judge: Judge | LocalJudge) -> list:
    """What a cached reply depends on beside the prompt; where an endpoint is does not matter."""
    if isinstance(judge, LocalJudge):
        return [judge.name, judge.model]
    return [judge.name, judge.model, judge.temperature, judge.max_tokens]


def read_judges(path: str | Path) -> list[Judge | ModelJudge]:
    """One judge a line, with ModelJudge's fields if it has a `source` and Judge's otherwise; those
    with a default may be left out.

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
    """Raises ValueError if there is none, a name twice, or a field that cannot be."""
    if not judges:
        raise ValueError("judges is empty: give at least one")
    names = [judge.name for judge in judges]
    for judge in judges:
        if names.count(judge.name) > 1:
            raise ValueError(f"judges: the name {judge.name!r} is there twice; names must differ")
        if not isinstance(judge, LocalJudge):
            _check_fields(judge, f"judge {judge.name!r}")


def _check_fields(judge: Judge | ModelJudge, where: str) -> None:
    def number(value, least: float, whole: bool = False) -> bool:
        kinds = int if whole else (int, float)
        return isinstance(value, kinds) and not isinstance(value, bool) and value >= least

    def count(value) -> bool:
        return number(value, 1, whole=True)

    def text(value) -> bool:
        return isinstance(value, str)

    rules = {
        "base_url": (lambda x: x.startswith(("http://", "https://")), "an http(s) address"),
        "key_variable": (text, 'a variable\'s name or ""'),
        "temperature": (lambda x: x is None or number(x, 0), "0 or more"),
        "max_tokens": (count, "a whole number from 1"),
        "concurrency": (count, "a whole number from 1"),
        "timeout": (lambda x: number(x, 0) and x > 0, "seconds above 0"),
        "max_retries": (lambda x: number(x, 0, whole=True), "a whole number from 0"),
        "batch_size": (count, "a whole number from 1"),
        "dtype": (lambda x: x in DTYPES, f"one of {', '.join(DTYPES)}"),
        "pad_token": (text, 'a token or ""'),
    }
    for field, value in judge._asdict().items():
        holds, wanted = rules.get(field, (text, "text"))
        if not holds(value):
            shown = json.dumps(value, default=str)
            raise ValueError(f"{where}: field {field!r} is {shown}; it must be {wanted}")
