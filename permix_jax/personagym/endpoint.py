"""One OpenAI-compatible chat endpoint, asked through the `openai` client."""

import os

from permix_jax.personagym.judge_prompts import Prompt
from permix_jax.personagym.judges import Judge, JudgeError, Reply

_ACCOUNT = {401, 402, 403, 404}  # the key, model or address is wrong, or there is no money left
_PASSING = {408, 409, 429}  # the other 4xx that are about the judge; the rest refuse the prompt
_SECONDS_TO_CONNECT = 5.0


class Endpoint:
    """Asks one judge; `ask` may be called from several threads.

    The client sends a request again after a rate limit, a server error, a timeout or a lost
    connection, `judge.max_retries` times.
    """

    def __init__(self, judge: Judge):
        """Sends nothing. Raises JudgeError without the key or the client."""
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
        messages = [{"role": "user", "content": prompt.user}]
        if prompt.system:
            messages.insert(0, {"role": "system", "content": prompt.system})
        settings = {} if judge.temperature is None else {"temperature": judge.temperature}
        settings[limit_field] = judge.max_tokens
        try:
            completion = self._client.chat.completions.create(
                model=judge.model, messages=messages, **settings
            )
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
