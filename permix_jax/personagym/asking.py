"""Asks a judge the prompts that it has not answered yet, and keeps each reply on disk at once.

A judge is a function over prompts, or a chat endpoint, asked through the `openai` client.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing
from multiprocessing import TimeoutError
from multiprocessing.pool import ThreadPool
from pathlib import Path

from permix_jax.core.files import append
from permix_jax.core.progress import Progress
from permix_jax.personagym.judge_prompts import Prompt
from permix_jax.personagym.judges import Judge, JudgeError, LocalJudge, Reply

_LOG = logging.getLogger(__name__)
_ENOUGH_REFUSALS = 10
# A Ctrl-C that comes just before a wait begins does not end it.
_SECONDS_BETWEEN_LOOKS = 0.2
_ACCOUNT = {401, 402, 403, 404}  # the key, model or address is wrong, or there is no money left
_PASSING = {408, 409, 429}  # the other 4xx that are about the judge; the rest refuse the prompt
_SECONDS_TO_CONNECT = 5.0


class Endpoint:
    """Asks one judge, from one or several threads. The client sends a request again after a rate
    limit, a server error, a timeout or a lost connection, `judge.max_retries` times.
    """

    def __init__(self, judge: Judge):
        """Sends nothing. Raises JudgeError without the key or the client."""
        try:
            import openai
        except ImportError:
            remedy = "pip install 'permix_jax[judge]'"
            raise JudgeError(f"judge {judge.name!r} needs the openai client: {remedy}") from None
        self._key = os.environ.get(judge.key_variable, "") if judge.key_variable else "none"
        if not self._key:
            raise JudgeError(
                f"judge {judge.name!r}: the environment variable {judge.key_variable} is not set; "
                'export its key, or set key_variable to ""'
            )
        self._judge, self._openai, self._limit_field = judge, openai, "max_tokens"
        self._client = openai.OpenAI(
            base_url=judge.base_url,
            api_key=self._key,
            timeout=openai.Timeout(judge.timeout, connect=_SECONDS_TO_CONNECT),
            max_retries=judge.max_retries,
        )

    def ask(self, prompt: Prompt) -> Reply:
        """The reply, or why this prompt got none. Raises JudgeError where the judge fails."""
        try:
            return self._request(prompt)
        except ValueError as error:  # the body is not JSON
            return Reply(None, refusal=f"no chat completion came: {self._line(error)}")
        except self._openai.OpenAIError as error:
            status = getattr(error, "status_code", None) or 0
            if 400 <= status < 500 and status not in _ACCOUNT | _PASSING:
                return Reply(None, refusal=self._line(error))
            remedy = "run again when it is well"
            if status in _ACCOUNT or getattr(error, "code", None) == "insufficient_quota":
                remedy = "check its base_url, model, key and account"
            elif status and (wait := error.response.headers.get("retry-after")):
                remedy += f" (Retry-After: {wait})"
            where = f"judge {self._judge.name!r} at {self._judge.base_url}"
            raise JudgeError(f"{where}: {self._line(error)}; {remedy}") from None

    def _request(self, prompt: Prompt) -> Reply:
        judge, limit_field = self._judge, self._limit_field
        messages = [{"role": "system", "content": prompt.system}] if prompt.system else []
        messages.append({"role": "user", "content": prompt.user})
        settings = {} if judge.temperature is None else {"temperature": judge.temperature}
        settings[limit_field] = judge.max_tokens
        settings |= {"model": judge.model, "messages": messages}
        try:
            completion = self._client.chat.completions.create(**settings)
        except self._openai.BadRequestError as error:
            # OpenAI's newer models take the token limit under another name, and say so.
            if limit_field == "max_completion_tokens" or "max_completion_tokens" not in str(error):
                raise
            self._limit_field = "max_completion_tokens"
            return self._request(prompt)
        try:
            choice = completion.choices[0]
            text = choice.message.content or ""
            # JSON can spell half of a surrogate pair, which no later prompt or file can hold.
            text = text.encode("utf-8", "replace").decode("utf-8")
            return Reply(text, truncated=choice.finish_reason == "length")
        except (AttributeError, IndexError, TypeError):
            return Reply(None, refusal=f"no chat completion came: {self._hidden(repr(completion))}")

    def _line(self, error: Exception) -> str:
        text = f"{type(error).__name__}: {error}"
        if error.__cause__ is not None and not getattr(error, "status_code", None):
            text += f" ({error.__cause__})"
        return self._hidden(text)

    def _hidden(self, text: str) -> str:
        """One line of it, without the key."""
        text = " ".join(text.split())
        return (text.replace(self._key, "***") if self._judge.key_variable else text)[:300]


class ReplyCache(AbstractContextManager):
    """An append-only JSONL file of replies, by a hash of judge, settings and whole prompt.

    A line that cannot be read, as a kill leaves, is named in the log, and its prompt asked again.
    """

    def __init__(self, path: Path):
        self._replies: dict[str, Reply] = {}
        content = path.read_bytes() if path.is_file() else b""
        for number, line in enumerate(content.split(b"\n"), start=1):
            if line.strip():
                try:
                    row = json.loads(line)
                    self._replies[row["key"]] = Reply(row["text"], row["truncated"])
                except (ValueError, KeyError, TypeError):
                    _LOG.warning("%s:%d cannot be read; what it held is asked again", path, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        if content and not content.endswith(b"\n"):
            append(self._file, b"\n")

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


def _key(judge: Judge | LocalJudge, prompt: Prompt) -> str:
    """A hash of all that a reply depends on. A judge's address is not part of it."""
    local = isinstance(judge, LocalJudge)
    settings = [] if local else [judge.temperature, judge.max_tokens]
    content = json.dumps([judge.name, judge.model, *settings, *prompt])
    return hashlib.sha256(content.encode()).hexdigest()


def ask(
    judge: Judge | LocalJudge, prompts: Sequence[Prompt], cache: ReplyCache, label: str
) -> dict[Prompt, Reply]:
    """The judge's reply to every prompt; `label` is the text of the progress bar.

    Equal prompts are asked once. Refusals of single prompts are returned, not cached, and so asked
    again next time. Raises JudgeError if the judge fails or refuses everything, and OSError if the
    cache cannot be written; the replies up to then are in it.
    """
    replies = {prompt: cache.get(judge, prompt) for prompt in prompts}
    missing = [prompt for prompt, reply in replies.items() if reply is None]
    if not missing:
        return replies
    ask_all = _local_replies if isinstance(judge, LocalJudge) else _endpoint_replies
    refused, answered = 0, len(replies) - len(missing)
    # However this ends (a judge that fails, a full disk), closing it stops the asking.
    with (
        closing(ask_all(judge, missing)) as coming,
        Progress(label, len(replies), initial=answered) as progress,
    ):
        for prompt, reply in coming:
            if reply.text is not None:
                cache.put(judge, prompt, reply)
                answered += 1
            else:
                refused += 1
            if not answered and refused >= min(_ENOUGH_REFUSALS, len(missing)):
                said = f"judge {judge.name!r} refuses every prompt ({reply.refusal})"
                raise JudgeError(f"{said}; check its base_url, model and settings")
            replies[prompt] = reply
            progress.advance()
    return replies


def _local_replies(judge: LocalJudge, prompts: list[Prompt]) -> Iterator[tuple[Prompt, Reply]]:
    for start in range(0, len(prompts), judge.batch_size):
        batch = prompts[start : start + judge.batch_size]
        replies = judge.reply(batch)
        if len(replies) != len(batch) or not all(isinstance(reply, Reply) for reply in replies):
            raise JudgeError(
                f"judge {judge.name!r} gave {len(replies)} replies to {len(batch)} prompts; "
                "its `reply` must return one Reply for each"
            )
        yield from zip(batch, replies, strict=True)


def _endpoint_replies(judge: Judge, prompts: list[Prompt]) -> Iterator[tuple[Prompt, Reply]]:
    """Replies in the order in which they come, from `judge.concurrency` threads.

    After a failure no further prompt is sent; what is under way is yielded, and the failure raised.
    Ctrl-C, in the main thread, waits for nothing: a ThreadPool's threads are daemons.
    """
    endpoint, failures = Endpoint(judge), []

    def reply_to(prompt: Prompt) -> tuple[Prompt, Reply | None]:
        try:
            return prompt, None if failures else endpoint.ask(prompt)
        except JudgeError as error:
            failures.append(error)
            return prompt, None

    left = len(prompts)
    with ThreadPool(min(judge.concurrency, left)) as pool:
        coming = pool.imap_unordered(reply_to, prompts)
        while left:
            try:
                prompt, reply = coming.next(_SECONDS_BETWEEN_LOOKS)
            except TimeoutError:
                continue
            left -= 1
            if reply is not None:
                yield prompt, reply
    if failures:
        raise failures[0]
