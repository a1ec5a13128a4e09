"""Fetches PersonaGym's files from their public home and joins them, checked, into three files."""

import ast
import hashlib
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from pathlib import Path

from permix_jax.core.files import write_text

COMMIT = "536f705e610289c38d84e083fcea6ea5093d3a25"
HOME = f"https://raw.githubusercontent.com/vsamuel2003/PersonaGym/{COMMIT}"

# Checksums of the joined files. Upstream has a file for each persona, and publishes none.
_SHA256 = {
    "rubrics.jsonl": "6b3669192ea9c646bf08f8d51b83ea9f76d2ed1561ba6d380ffd767dde2a78ca",
    "prompts.jsonl": "656f3bc7e34419063adb4a6f8e730d1807d2fb099a89133a30f9fbb59af7e350",
    "benchmark_v1.jsonl": "767e1989b41f8270f28cce51c5872e7063b9b520a497748fd6a5dd4ccb87c042",
}
_TASKS = ("Action Justification", "Expected Action", "Linguistic Habits", "Persona Consistency",
          "Toxicity")  # fmt: skip
_PROMPTS = (
    "prompts/rubric_grading/prompt.txt",
    "prompts/rubric_grading/sys_prompt.txt",
    "prompts/score_examples/parallel_examples.txt",
    "prompts/score_examples/prompt.txt",
)
_ATTEMPTS = 4
_AT_ONCE = 8

Fetch = Callable[[Sequence[str]], list[str]]  # from paths below the home to the texts there


def download(folder: Path, home: str = HOME, pause: Callable[[float], None] = time.sleep) -> None:
    """Writes benchmark_v1.jsonl, rubrics.jsonl and prompts.jsonl, unless they exist.

    Raises ConnectionError for a file that cannot be had, and ValueError for another checksum than
    the known one.
    """

    def fetch(paths: Sequence[str]) -> list[str]:
        urls = [f"{home}/{urllib.parse.quote(path)}" for path in paths]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(partial(_fetch, pause=pause), urls))

    for name, known in _SHA256.items():
        if (folder / name).is_file():
            continue
        rows = _rows(name, fetch)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        digest = hashlib.sha256(text.encode()).hexdigest()
        if digest != known:
            raise ValueError(
                f"{home}: {name} joined from it has the sha256 {digest}, not {known}; "
                "fetch it again, or name a local folder"
            )
        write_text(folder / name, text)


def _rows(name: str, fetch: Fetch) -> list[dict]:
    """The rows of one of the joined files."""
    if name == "rubrics.jsonl":
        texts = fetch([f"rubrics/{task}.txt" for task in _TASKS])
        return [{"task": task, "rubric": text} for task, text in zip(_TASKS, texts, strict=True)]
    if name == "prompts.jsonl":
        texts = zip(_PROMPTS, fetch(_PROMPTS), strict=True)
        return [{"path": path, "text": text} for path, text in texts]
    (source,) = fetch(["code/personas.py"])
    files = sorted(f"{persona}.json" for persona in _personas(source))
    rows, texts = [], fetch([f"questions/benchmark-v1/{file}" for file in files])
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
            match node:
                case ast.Assign([ast.Name("benchmark_personas"), *_]):
                    return ast.literal_eval(node.value)
    except (SyntaxError, ValueError):
        pass
    said = "code/personas.py has no list benchmark_personas; name a local folder"
    raise ValueError(f"PersonaGym's {said}")


def _fetch(url: str, pause: Callable[[float], None]) -> str:
    for attempt in count(1):
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return response.read().decode()
        except OSError as error:
            if getattr(error, "code", None) == 404 or attempt == _ATTEMPTS:
                said = f"{url}: cannot be fetched ({error}); try again, or name a local folder"
                raise ConnectionError(said) from None
        pause(2.0**attempt)
