"""Puts prompts to a judge, what it has not answered yet, and keeps each reply as it comes."""

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing

from permix_jax.core.progress import Progress
from permix_jax.personagym.cache import ReplyCache
from permix_jax.personagym.endpoint import DEFAULT_RETRIES, Endpoint, Retries
from permix_jax.personagym.judge_prompts import Prompt
from permix_jax.personagym.judges import Judge, JudgeError, LocalJudge, Reply

_ENOUGH_REFUSALS = 10
# A Ctrl-C that comes just before a wait begins does not end it.
_SECONDS_BETWEEN_LOOKS = 0.2


def ask(
    judge: Judge | LocalJudge,
    prompts: Sequence[Prompt],
    cache: ReplyCache,
    label: str,
    retries: Retries = DEFAULT_RETRIES,
    pause: Callable[[float], object] | None = None,
) -> dict[Prompt, Reply]:
    """The judge's reply to every prompt, each asked once, whatever the number of its copies.

    Args:
      label: what the progress bar says is being asked for.
      pause: waits so many seconds between attempts; None waits in fact, until Ctrl-C.

    Raises:
      JudgeError: the judge fails, or refuses all that it is asked. What it has answered by then
        is in the cache. Refusals of single prompts are returned, and asked again next time.
      OSError: the cache cannot be written.
    """
    replies = {prompt: cache.get(judge, prompt) for prompt in prompts}
    missing = [prompt for prompt, reply in replies.items() if reply is None]
    if not missing:
        return replies
    if isinstance(judge, LocalJudge):
        coming = _local_replies(judge, missing)
    else:
        coming = _endpoint_replies(judge, missing, retries, pause)

    refused, answered = 0, len(replies) - len(missing)
    # Closed, it asks no more, whatever ends this: a judge that fails, or a full disk.
    with closing(coming), Progress(label, len(replies), initial=answered) as progress:
        for prompt, reply in coming:
            if reply.text is not None:
                cache.put(judge, prompt, reply)
                answered += 1
            else:
                refused += 1
            if not answered and refused >= min(_ENOUGH_REFUSALS, len(missing)):
                raise JudgeError(
                    f"judge {judge.name!r} refuses every prompt ({reply.refusal}); "
                    "change its model or settings"
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


def _endpoint_replies(
    judge: Judge,
    prompts: list[Prompt],
    retries: Retries,
    pause: Callable[[float], object] | None,
) -> Iterator[tuple[Prompt, Reply]]:
    """Replies in the order in which they come, from `judge.concurrency` threads.

    After a failure no further prompt is sent; what is under way is waited for and yielded, then
    the failure raised. Ctrl-C, raised in the main thread, waits for nothing: the threads are
    daemons, and what they have not brought by then is asked again.
    """
    stop = threading.Event()
    todo: queue.SimpleQueue[Prompt] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple | None] = queue.SimpleQueue()
    for prompt in prompts:
        todo.put(prompt)

    def wait(seconds: float) -> None:
        (pause or stop.wait)(seconds)
        if stop.is_set():
            raise _Cancelled

    endpoint = Endpoint(judge, retries, wait)

    def work() -> None:
        try:
            while not stop.is_set():
                prompt = todo.get_nowait()
                done.put((prompt, endpoint.ask(prompt)))
        except (queue.Empty, _Cancelled):
            pass
        except Exception as error:
            stop.set()
            done.put((None, error))
        finally:
            done.put(None)

    running = min(judge.concurrency, len(prompts))
    for _ in range(running):
        threading.Thread(target=work, name=f"judge {judge.name}", daemon=True).start()
    failure = None
    try:
        while running:
            try:
                item = done.get(timeout=_SECONDS_BETWEEN_LOOKS)
            except queue.Empty:
                continue
            if item is None:
                running -= 1
            elif item[0] is None:
                failure = failure or item[1]
            else:
                yield item
    finally:
        stop.set()
    if failure:
        raise failure


class _Cancelled(Exception):
    """The judge has failed or the run ends: wait no longer."""
