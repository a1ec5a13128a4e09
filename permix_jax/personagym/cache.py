"""Judges' replies on disk, each written at once, so that no reply is asked for twice."""

import hashlib
import json
import logging
from pathlib import Path

from permix_jax.core.files import append
from permix_jax.personagym.judge_prompts import Prompt
from permix_jax.personagym.judges import Judge, LocalJudge, Reply, identity

_LOG = logging.getLogger(__name__)


class ReplyCache:
    """An append-only JSONL file of replies, by a hash of judge, settings and whole prompt.

    A line that cannot be read, such as one that a kill cut off, is named in the log, and its prompt
    asked again. Use as a context manager.
    """

    def __init__(self, path: Path):
        self._path = path
        self._replies: dict[str, Reply] = {}
        content = path.read_bytes() if path.is_file() else b""
        for number, line in enumerate(content.split(b"\n"), start=1):
            if line.strip():
                self._read(line, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        if content and not content.endswith(b"\n"):
            append(self._file, b"\n")

    def __enter__(self) -> "ReplyCache":
        return self

    def __exit__(self, *_) -> None:
        self._file.close()

    def get(self, judge: Judge | LocalJudge, prompt: Prompt) -> Reply | None:
        """The judge's reply to the prompt, or None."""
        return self._replies.get(_key(judge, prompt))

    def put(self, judge: Judge | LocalJudge, prompt: Prompt, reply: Reply) -> None:
        """Returns when the reply is on disk. Raises OSError, such as for a full disk."""
        key = _key(judge, prompt)
        row = {"key": key, "judge": judge.name, "text": reply.text, "truncated": reply.truncated}
        append(self._file, json.dumps(row).encode() + b"\n")
        self._replies[key] = reply

    def _read(self, line: bytes, number: int) -> None:
        try:
            row = json.loads(line)
            key, text, truncated = row["key"], row["text"], row["truncated"]
        except (ValueError, KeyError, TypeError):
            _LOG.warning("%s:%d cannot be read; what it held is asked again", self._path, number)
            return
        self._replies[key] = Reply(text, truncated)


def _key(judge: Judge | LocalJudge, prompt: Prompt) -> str:
    content = json.dumps([*identity(judge), *prompt])
    return hashlib.sha256(content.encode()).hexdigest()
