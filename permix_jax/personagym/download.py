"""Fetches PersonaGym's files from their public home and joins them, checked, into three files."""

import ast
import hashlib
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from permix_jax.core.files import write_text

COMMIT = "536f705e610289c38d84e083fcea6ea5093d3a25"
HOME = f"https://raw.githubusercontent.com/vsamuel2003/PersonaGym/{COMMIT}"

# Of the joined files: upstream has a file a persona, and publishes no checksums.
_SHA256 = {
    "benchmark_v1.jsonl": "767e1989b41f8270f28cce51c5872e7063b9b520a497748fd6a5dd4ccb87c042",
    "rubrics.jsonl": "6b3669192ea9c646bf08f8d51b83ea9f76d2ed1561ba6d380ffd767dde2a78ca",
    "prompts.jsonl": "656f3bc7e34419063adb4a6f8e730d1807d2fb099a89133a30f9fbb59af7e350",
}
_TASKS = (
    "Action Justification",
    "Expected Action",
    "Linguistic Habits",
    "Persona Consistency",
    "Toxicity",
)
_PROMPTS = (
    "prompts/rubric_grading/prompt.txt",
    "prompts/rubric_grading/sys_prompt.txt",
    "prompts/score_examples/parallel_examples.txt",
    "prompts/score_examples/prompt.txt",
)
_ATTEMPTS = 4
_AT_ONCE = 8


def download(folder: Path, home: str = HOME, pause: Callable[[float], None] = time.sleep) -> None:
    """Writes benchmark_v1.jsonl, rubrics.jsonl and prompts.jsonl, those that are not there yet.

    Raises:
      ConnectionError: a file cannot be had from `home`.
      ValueError: what came has not the known checksum.
    """
    joined = {
        "rubrics.jsonl": lambda: _rubrics(home, pause),
        "prompts.jsonl": lambda: _prompts(home, pause),
        "benchmark_v1.jsonl": lambda: _questions(home, pause),
    }
    for name, fetch in joined.items():
        if (folder / name).is_file():
            continue
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in fetch())
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest != _SHA256[name]:
            raise ValueError(
                f"{home}: {name} joined from it has the sha256 {digest}, not {_SHA256[name]}; "
                "fetch it again, or name a local folder"
            )
        write_text(folder / name, text)


def _rubrics(home: str, pause) -> Iterable[dict]:
    texts = _fetch_all(home, [f"rubrics/{task}.txt" for task in _TASKS], pause)
    return [{"task": task, "rubric": text} for task, text in zip(_TASKS, texts, strict=True)]


def _prompts(home: str, pause) -> Iterable[dict]:
    texts = _fetch_all(home, _PROMPTS, pause)
    return [{"path": path, "text": text} for path, text in zip(_PROMPTS, texts, strict=True)]


def _questions(home: str, pause) -> Iterable[dict]:
    source = _fetch(home, "code/personas.py", pause)
    files = sorted(f"{persona}.json" for persona in _personas(source, home))
    texts = _fetch_all(home, [f"questions/benchmark-v1/{file}" for file in files], pause)
    return [
        {"persona": file.removesuffix(".json"), **_object(text, file)}
        for file, text in zip(files, texts, strict=True)
    ]


def _object(text: str, file: str) -> dict:
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{file}: not a JSON object ({error}); fetch it again") from None


def _personas(source: str, home: str) -> list[str]:
    """The list `benchmark_personas` of upstream's module, read as data: nothing of it is run."""
    try:
        for node in ast.parse(source).body:
            if (
                isinstance(node, ast.Assign)
                and ast.unparse(node.targets[0]) == "benchmark_personas"
            ):
                return ast.literal_eval(node.value)
    except (SyntaxError, ValueError):
        pass
    raise ValueError(f"{home}/code/personas.py: no list benchmark_personas; name a local folder")


def _fetch_all(home: str, paths: Iterable[str], pause) -> list[str]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda path: _fetch(home, path, pause), paths))


def _fetch(home: str, path: str, pause: Callable[[float], None]) -> str:
    url = f"{home}/{urllib.parse.quote(path)}"
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return response.read().decode()
        except (OSError, urllib.error.URLError) as error:
            missing = isinstance(error, urllib.error.HTTPError) and error.code == 404
            if missing or attempt == _ATTEMPTS:
                raise ConnectionError(
                    f"{url}: cannot be fetched ({error}); try again, or name a local folder"
                ) from None
        pause(2.0**attempt)
    raise AssertionError("the last attempt returns or raises")
