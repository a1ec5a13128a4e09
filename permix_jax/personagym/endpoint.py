"""One chat endpoint: a request, and when to send it again."""

import email.utils
import os
import random
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from permix_jax.personagym.judge_prompts import Prompt
from permix_jax.personagym.judges import Judge, JudgeError, Reply

_HOPELESS = {401, 403, 404}  # whatever the prompt: the key, the model or the address is wrong
_PASSING = {408, 409, 425, 429}  # of the 4xx, those that another attempt may cure
_UNMET = 3  # attempts at an endpoint that has never answered: it is down rather than shaky


class Retries(NamedTuple):
    """How often and how long, in seconds, one request waits; a Retry-After is obeyed instead."""

    attempts: int = 8
    first_wait: float = 1.0  # doubled with each attempt, less up to half of it at random
    longest_wait: float = 300.0


DEFAULT_RETRIES = Retries()


class Endpoint:
    """Asks one judge; `ask` may be called from several threads.

    The client's own retries are off: they make one request wait while the others go on running
    into the same rate limit, and cannot be interrupted.
    """

    def __init__(self, judge: Judge, retries: Retries, pause: Callable[[float], None]):
        """`pause` waits so many seconds, and may raise. Raises JudgeError without key or client."""
        try:
            import openai
        except ImportError:
            raise JudgeError(
                f"judge {judge.name!r} needs the openai client: pip install 'permix_jax[judge]'"
            ) from None
        self._key = os.environ.get(judge.key_variable, "") if judge.key_variable else "none"
        if not self._key:
            raise JudgeError(
                f"judge {judge.name!r}: the environment variable {judge.key_variable} is not set; "
                'export its key, or set key_variable to ""'
            )
        self._openai, self._judge, self._retries, self._pause = openai, judge, retries, pause
        self._client = openai.OpenAI(
            base_url=judge.base_url, api_key=self._key, timeout=judge.timeout, max_retries=0
        )
        self._lock = threading.Lock()
        self._limit_field = "max_tokens"
        self._answered = False
        self._not_before = 0.0

    def ask(self, prompt: Prompt) -> Reply:
        """The reply, or the endpoint's refusal of this prompt. Raises JudgeError."""
        attempt = 0
        while True:
            attempt += 1
            self._wait_for_turn()
            limit_field = self._limit_field
            try:
                reply = self._request(prompt, limit_field)
            except (self._openai.OpenAIError, _NoCompletion, ValueError) as error:
                if limit_field == "max_tokens" and _wants_limit_renamed(error):
                    self._limit_field = "max_completion_tokens"
                    attempt -= 1
                    continue
                refusal = self._after(error, attempt)
                if refusal:
                    return Reply(None, refusal=refusal)
            else:
                self._answered = True
                return reply

    def _request(self, prompt: Prompt, limit_field: str) -> Reply:
        judge = self._judge
        messages = [{"role": "user", "content": prompt.user}]
        if prompt.system:
            messages.insert(0, {"role": "system", "content": prompt.system})
        settings = {} if judge.temperature is None else {"temperature": judge.temperature}
        settings[limit_field] = judge.max_tokens
        completion = self._client.chat.completions.create(
            model=judge.model, messages=messages, **settings
        )
        try:
            choice = completion.choices[0]
            text = choice.message.content or ""
            if not isinstance(text, str):
                raise TypeError
        except (AttributeError, IndexError, TypeError):
            raise _NoCompletion(f"what came is no chat completion: {completion!r}") from None
        # JSON can spell half of a surrogate pair, which no later prompt or file can hold.
        text = text.encode("utf-8", "replace").decode("utf-8")
        return Reply(text, truncated=choice.finish_reason == "length")

    def _after(self, error: Exception, attempt: int) -> str:
        """Waits if it is worth another attempt; else returns a refusal or raises JudgeError."""
        status = getattr(error, "status_code", None)
        quota = getattr(error, "code", None) == "insufficient_quota"
        if status in _HOPELESS or quota:
            self._fail(error, "check its base_url, model, key and account")
        if status is not None and 400 <= status < 500 and status not in _PASSING:
            return self._line(error)

        met = self._answered or status is not None
        if attempt >= (self._retries.attempts if met else min(_UNMET, self._retries.attempts)):
            self._fail(error, f"given up after {attempt} attempts; run again when it is well")
        asked = _retry_after(error)
        if asked is not None and asked > self._retries.longest_wait:
            self._fail(error, f"it asks to wait {asked:.0f} s; run again then")
        if asked is not None:
            wait = asked + random.uniform(0, min(asked, 1.0) / 4)
        else:
            longest = self._retries.first_wait * 2 ** (attempt - 1)
            wait = min(longest, self._retries.longest_wait) * random.uniform(0.5, 1)
        if status == 429 or asked is not None:  # for all threads: the limit is the endpoint's
            with self._lock:
                self._not_before = max(self._not_before, time.monotonic() + wait)
        else:
            self._pause(wait)
        return ""

    def _wait_for_turn(self) -> None:
        wait = self._not_before - time.monotonic()
        if wait > 0:
            self._pause(wait)

    def _fail(self, error: Exception, remedy: str):
        judge = self._judge
        raise JudgeError(
            f"judge {judge.name!r} at {judge.base_url}: {self._line(error)}; {remedy}"
        ) from None

    def _line(self, error: Exception) -> str:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        if error.__cause__ is not None and not getattr(error, "status_code", None):
            text += f" ({' '.join(str(error.__cause__).split())})"
        return text.replace(self._key, "***")[:300] if self._key != "none" else text[:300]


class _NoCompletion(Exception):
    """The endpoint answered, but not with a chat completion."""


def _wants_limit_renamed(error: Exception) -> bool:
    """OpenAI's newer models take the token limit under another name, and say so."""
    return getattr(error, "status_code", None) == 400 and "max_completion_tokens" in str(error)


def _retry_after(error: Exception) -> float | None:
    """Seconds that the answer's Retry-After asks for: a number or an HTTP date; None without."""
    response = getattr(error, "response", None)
    value = None if response is None else response.headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if seconds == seconds else None
