"""Fetches PersonaGym's files from their public home and joins them, checked, into three files."""

import ast
import hashlib
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from permix_jax.core.files import write_text

COMMIT = "536f705e610289c38d84e083fcea6ea5093d3a25"
HOME = f"https://raw.githubusercontent.com/vsamuel2003/PersonaGym/{COMMIT}"

# Checksums of the joined files. Upstream has a file for each persona, and publishes none.
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


Fetch = Callable[[str], str]  # from a path below the home to the text there


def download(folder: Path, home: str = HOME, pause: Callable[[float], None] = time.sleep) -> None:
    """Writes benchmark_v1.jsonl, rubrics.jsonl and prompts.jsonl, unless they exist.

    Raises:
      ConnectionError: a file cannot be had from `home`.
      ValueError: a joined file does not have the known checksum.
    """
    joined = {
        "rubrics.jsonl": _rubrics,
        "prompts.jsonl": _prompts,
        "benchmark_v1.jsonl": _questions,
    }
    for name, join in joined.items():
        if (folder / name).is_file():
            continue
        rows = join(lambda path: _fetch(f"{home}/{urllib.parse.quote(path)}", pause))
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest != _SHA256[name]:
            raise ValueError(
                f"{home}: {name} joined from it has the sha256 {digest}, not {_SHA256[name]}; "
                "fetch it again, or name a local folder"
            )
        write_text(folder / name, text)


def _rubrics(fetch: Fetch) -> list[dict]:
    texts = _fetch_all(fetch, [f"rubrics/{task}.txt" for task in _TASKS])
    return [{"task": task, "rubric": text} for task, text in zip(_TASKS, texts, strict=True)]


def _prompts(fetch: Fetch) -> list[dict]:
    texts = _fetch_all(fetch, _PROMPTS)
    return [{"path": path, "text": text} for path, text in zip(_PROMPTS, texts, strict=True)]


def _questions(fetch: Fetch) -> list[dict]:
    files = sorted(f"{persona}.json" for persona in _personas(fetch("code/personas.py")))
    texts = _fetch_all(fetch, [f"questions/benchmark-v1/{file}" for file in files])
    rows = []
    for file, text in zip(files, texts, strict=True):
        try:
            rows.append({"persona": file.removesuffix(".json"), **json.loads(text)})
        except (ValueError, TypeError) as error:
            raise ValueError(f"{file}: not a JSON object ({error}); fetch it again") from None
    return rows


def _personas(source: str) -> list[str]:
    """The list `benchmark_personas` of upstream's module, read as data: the module is not run."""
    try:
        for node in ast.parse(source).body:
            if (
                isinstance(node, ast.Assign)
                and ast.unparse(node.targets[0]) == "benchmark_personas"
            ):
                return ast.literal_eval(node.value)
    except (SyntaxError, ValueError):
        pass
    raise ValueError(
        "PersonaGym's code/personas.py has no list benchmark_personas; name a local folder"
    )


def _fetch_all(fetch: Fetch, paths: Sequence[str]) -> list[str]:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(fetch, paths))


def _fetch(url: str, pause: Callable[[float], None]) -> str:
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return response.read().decode()
        except OSError as error:
            if getattr(error, "code", None) == 404 or attempt == _ATTEMPTS:
                raise ConnectionError(
                    f"{url}: cannot be fetched ({error}); try again, or name a local folder"
                ) from None
        pause(2.0**attempt)
    raise AssertionError("the last attempt returns or raises")
