"""Asks a judge the prompts that it has not answered yet, and keeps each reply at once."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from multiprocessing import TimeoutError
from multiprocessing.pool import IMapUnorderedIterator, ThreadPool

from permix_jax.core.progress import Progress
from permix_jax.personagym.cache import ReplyCache
from permix_jax.personagym.endpoint import Endpoint
from permix_jax.personagym.judge_prompts import Prompt
from permix_jax.personagym.judges import Judge, JudgeError, LocalJudge, Reply

_ENOUGH_REFUSALS = 10
# A Ctrl-C that comes just before a wait begins does not end it.
_SECONDS_BETWEEN_LOOKS = 0.2


def ask(
    judge: Judge | LocalJudge, prompts: Sequence[Prompt], cache: ReplyCache, label: str
) -> dict[Prompt, Reply]:
    """The judge's reply to every prompt. Equal prompts are asked once.

    Refusals of single prompts are returned, not cached, and so asked again next time.

    Args:
      label: the text of the progress bar.

    Raises:
      JudgeError: the judge fails, or refuses everything. Its replies up to then are in the cache.
      OSError: the cache cannot be written.
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
                raise JudgeError(
                    f"judge {judge.name!r} refuses every prompt ({reply.refusal}); "
                    "check its base_url, model and settings"
                )
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

    After a failure no further prompt is sent; what is under way is waited for and yielded, and the
    failure raised. Ctrl-C, raised in the main thread, waits for nothing: a ThreadPool's threads are
    daemons.
    """
    endpoint = Endpoint(judge)
    failures = []

    def reply_to(prompt: Prompt) -> tuple[Prompt, Reply | None]:
        try:
            return prompt, None if failures else endpoint.ask(prompt)
        except JudgeError as error:
            failures.append(error)
            return prompt, None

    with ThreadPool(min(judge.concurrency, len(prompts))) as pool:
        coming = pool.imap_unordered(reply_to, prompts)
        for _ in prompts:
            prompt, reply = _next(coming)
            if reply is not None:
                yield prompt, reply
    if failures:
        raise failures[0]


def _next(coming: IMapUnorderedIterator) -> tuple[Prompt, Reply | None]:
    while True:
        try:
            return coming.next(_SECONDS_BETWEEN_LOOKS)
        except TimeoutError:
            continue
