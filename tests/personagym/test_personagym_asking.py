"""Asking a judge that is well, slow, limited, down, or talks nonsense."""

import errno
import logging
import os
import threading
from contextlib import ExitStack

import pytest
from judge_server import HANG, Failure, chat_server, judge_at

from permix_jax.personagym.asking import ReplyCache, ask
from permix_jax.personagym.judge_prompts import Prompt
from permix_jax.personagym.judges import Judge, JudgeError, LocalJudge, Reply

PROMPTS = [Prompt("You judge.", f"question {number}") for number in range(6)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "replies.jsonl"


@pytest.fixture
def cache(path):
    with ReplyCache(path) as cache:
        yield cache


@pytest.fixture
def serve():
    """A judge that replies so, and its server, until the test ends."""

    def serve(reply, **fields):
        server = stack.enter_context(chat_server(reply))
        return judge_at(server.url, **fields), server

    with ExitStack() as stack:
        yield serve


def put(judge, cache, prompts=PROMPTS):
    return ask(judge, prompts, cache, "scores")


def first_then(failure, text="4"):
    return lambda _, number: failure if number == 1 else text


def test_every_prompt_is_asked_once_and_never_again(cache, serve):
    judge, server = serve(lambda prompt, _: f"{prompt}: 4")
    replies = put(judge, cache, PROMPTS + PROMPTS[:2])
    assert replies == {prompt: Reply(f"{prompt.user}: 4") for prompt in PROMPTS}
    assert put(judge, cache) == replies
    assert sorted(server.asked) == [prompt.user for prompt in PROMPTS]


def test_the_request_carries_the_judges_settings_and_key(cache, serve, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "secret")
    fields = {"key_variable": "SOME_KEY", "temperature": 0.5, "max_tokens": 7}
    judge, server = serve(lambda *_: "4", **fields)
    put(judge, cache, PROMPTS[:1])
    put(judge._replace(name="k", temperature=None), cache, PROMPTS[:1])
    first, second = server.bodies
    assert first["messages"] == [
        {"role": "system", "content": "You judge."},
        {"role": "user", "content": "question 0"},
    ]
    assert (first["model"], first["temperature"], first["max_tokens"]) == ("m", 0.5, 7)
    assert "temperature" not in second
    assert server.keys == ["Bearer secret"] * 2


def test_a_key_that_is_not_set_is_named(cache, monkeypatch):
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(JudgeError, match="judge 'j': the environment variable SOME_KEY is not set"):
        put(judge_at("http://127.0.0.1:1/v1", key_variable="SOME_KEY"), cache)


@pytest.mark.parametrize(
    "failure", [Failure(429, Retry_After="0.01"), Failure(500, Retry_After="0.01"), HANG]
)
def test_the_client_sends_again_what_failed(cache, serve, failure):
    judge, server = serve(first_then(failure), timeout=0.3, concurrency=1, max_retries=1)
    assert put(judge, cache, PROMPTS[:2]) == dict.fromkeys(PROMPTS[:2], Reply("4"))
    assert len(server.asked) == 3


def test_a_limit_for_ever_ends_with_what_is_done_kept(cache, serve):
    def reply(_, number):
        return "4" if number <= 2 else Failure(429, Retry_After="0.01")

    judge, server = serve(reply, concurrency=1, max_retries=2)
    with pytest.raises(JudgeError, match="judge 'j' at .*RateLimitError.*when it is well"):
        put(judge, cache)
    assert len(server.asked) == 2 + 3
    assert [cache.get(judge, prompt) is not None for prompt in PROMPTS] == [True] * 2 + [False] * 4


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (Failure(429, Retry_After="7200"), r"run again when it is well \(Retry-After: 7200\)"),
        (Failure(429, '{"error": {"message": "pay", "code": "insufficient_quota"}}'),
         "pay.*check its base_url, model, key and account"),
    ],
)  # fmt: skip
def test_a_wait_and_an_empty_account_are_named(cache, serve, failure, message):
    with pytest.raises(JudgeError, match=message):
        put(serve(lambda *_: failure)[0], cache)


def test_a_judge_that_is_down_is_named_in_one_line(cache):
    with chat_server(lambda *_: "4") as server:
        judge = judge_at(server.url, concurrency=1)
    with pytest.raises(JudgeError, match="refused.*run again when it is well") as caught:
        put(judge, cache)
    assert "\n" not in str(caught.value) and server.url in str(caught.value)


@pytest.mark.parametrize(
    "body", ["<html>hello</html>", "{}", '{"choices": []}', "not json", '{"choices": [{}]}', "[1]"]
)
@pytest.mark.parametrize("kind", ["application/json", "text/html"])
def test_what_is_no_completion_is_a_refusal_and_named_if_nothing_else_comes(
    cache, serve, body, kind
):
    bad = Failure(200, body, content_type=kind)
    replies = put(serve(first_then(bad), concurrency=1)[0], cache, PROMPTS[:2])
    assert "no chat completion came" in replies[PROMPTS[0]].refusal
    assert replies[PROMPTS[1]] == Reply("4") and cache.get(judge_at(""), PROMPTS[0]) is None
    message = "'j' refuses every prompt .*no chat completion.*check its base_url, model and se"
    with pytest.raises(JudgeError, match=message) as caught:
        put(serve(lambda *_: bad)[0], cache, PROMPTS[2:])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_a_wrong_key_or_model_stops_at_once_without_the_key_in_the_message(
    cache, serve, monkeypatch, status
):
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    body = '{"error": {"message": "bad key sk-secret"}}'
    judge, server = serve(lambda *_: Failure(status, body), key_variable="SOME_KEY", concurrency=1)
    with pytest.raises(JudgeError, match=f"{status}.*check its base_url") as caught:
        put(judge, cache)
    assert "sk-secret" not in str(caught.value)
    assert len(server.asked) == 1


def test_a_refused_prompt_is_returned_as_such_and_asked_again_next_time(cache, serve):
    def reply(prompt, _):
        return Failure(400, '{"error": {"message": "too long"}}') if "3" in prompt else "4"

    judge, server = serve(reply)
    replies = put(judge, cache)
    assert replies[PROMPTS[3]].text is None and "too long" in replies[PROMPTS[3]].refusal
    assert sum(reply.text == "4" for reply in replies.values()) == 5
    put(judge, cache)
    assert len(server.asked) == len(PROMPTS) + 1


def test_a_judge_that_refuses_everything_is_stopped(cache, serve):
    body = '{"error": {"message": "max_tokens is too large"}}'
    prompts = [Prompt("", str(number)) for number in range(40)]
    judge, server = serve(lambda *_: Failure(400, body))
    with pytest.raises(JudgeError, match="refuses every prompt .*max_tokens is too large"):
        put(judge, cache, prompts)
    assert len(server.asked) < 40


def test_a_model_that_names_its_limit_otherwise_is_given_that(cache, serve):
    body = '{"error": {"message": "Unsupported: max_tokens; use max_completion_tokens"}}'
    both = threading.Barrier(2)

    def reply(_, number):
        if number > 2:
            return "4"
        both.wait(5)
        return Failure(400, body)

    judge, server = serve(reply, max_tokens=7)
    assert put(judge, cache, PROMPTS[:3]) == dict.fromkeys(PROMPTS[:3], Reply("4"))
    limits = [(b.get("max_tokens"), b.get("max_completion_tokens")) for b in server.bodies]
    assert limits == [(7, None)] * 2 + [(None, 7)] * 3


def test_a_reply_without_text_is_empty_and_one_cut_off_is_marked(cache, serve):
    def reply(prompt, _):
        return (None, "content_filter") if "0" in prompt else ("so far", "length")

    replies = put(serve(reply)[0], cache, PROMPTS[:2])
    assert list(replies.values()) == [Reply(""), Reply("so far", truncated=True)]


def test_half_a_surrogate_pair_in_a_reply_becomes_a_question_mark(cache, serve):
    replies = put(serve(lambda *_: "cut off \ud83d: 4")[0], cache, PROMPTS[:1])
    assert list(replies.values()) == [Reply("cut off ?: 4")]


def test_what_is_under_way_when_a_judge_fails_is_kept(cache, serve):
    """The second of two requests fails first; the first is answered after that, and counts."""
    failed = threading.Event()

    def reply(prompt, _):
        if prompt == "question 1":
            failed.set()
            return Failure(401)
        failed.wait(5)
        return "4"

    judge, _ = serve(reply)
    with pytest.raises(JudgeError, match="401"):
        put(judge, cache)
    assert cache.get(judge, PROMPTS[0]) == Reply("4")


def test_a_function_is_asked_in_batches_that_are_kept_one_by_one(cache):
    calls = []

    def reply(prompts):
        calls.append(prompts)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return [Reply(f"{prompt.user}: 4", truncated=True) for prompt in prompts]

    judge = LocalJudge("local", "m", reply, batch_size=2)
    with pytest.raises(KeyboardInterrupt):
        put(judge, cache)
    assert calls[0] == PROMPTS[:2]
    replies = put(judge, cache)
    assert list(map(len, calls)) == [2, 2, 2, 2]
    assert replies[PROMPTS[5]] == Reply("question 5: 4", truncated=True)


@pytest.mark.parametrize("replies", [[Reply("4")], ["4", "4"]])
def test_a_function_that_returns_something_else_is_named(cache, replies):
    with pytest.raises(JudgeError, match="'local' gave .* replies to 2 prompts"):
        put(LocalJudge("local", "m", lambda _: replies, batch_size=2), cache)


# The cache


JUDGE = Judge("j", "http://127.0.0.1:1/v1", "m")
ONE = Prompt("s", "u")


def test_a_reply_is_on_disk_before_the_cache_is_closed(path):
    cache = ReplyCache(path)
    cache.put(JUDGE, ONE, Reply("Score: 4", truncated=True))
    with ReplyCache(path) as other:
        assert other.get(JUDGE, ONE) == Reply("Score: 4", truncated=True)
    cache.__exit__()


def test_what_changes_a_reply_makes_another_entry_and_the_address_does_not(path):
    with ReplyCache(path) as cache:
        cache.put(JUDGE, ONE, Reply("4"))
        for change in ({"name": "k"}, {"model": "n"}, {"temperature": 1.0}, {"max_tokens": 9}):
            assert cache.get(JUDGE._replace(**change), ONE) is None
        assert cache.get(JUDGE, Prompt("", "su")) is None
        assert cache.get(JUDGE, Prompt("t", "u")) is None
        assert cache.get(LocalJudge("j", "m", list), ONE) is None
        assert cache.get(JUDGE._replace(base_url="http://h/v1", key_variable="K"), ONE)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_a_kill_cut_off_is_asked_again_and_the_rest_kept(path, cut, caplog):
    with ReplyCache(path) as cache:
        cache.put(JUDGE, ONE, Reply("4"))
        cache.put(JUDGE, Prompt("s", "v"), Reply("5"))
    path.write_bytes(path.read_bytes()[:-cut])
    caplog.set_level(logging.WARNING)
    with ReplyCache(path) as cache:
        assert cache.get(JUDGE, ONE) == Reply("4")
        if cut > 1:
            assert "replies.jsonl:2 cannot be read" in caplog.text
            assert cache.get(JUDGE, Prompt("s", "v")) is None
        cache.put(JUDGE, Prompt("s", "w"), Reply("3"))
    with ReplyCache(path) as cache:
        assert cache.get(JUDGE, ONE) == Reply("4")
        assert cache.get(JUDGE, Prompt("s", "w")) == Reply("3")


def test_a_full_disk_is_named_and_what_was_written_kept(path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with ReplyCache(path) as cache:
        cache.put(JUDGE, ONE, Reply("4"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left.*is finished is kept.*replies.jsonl"):
                cache.put(JUDGE, Prompt("s", "v"), Reply("5"))
    with ReplyCache(path) as cache:
        assert cache.get(JUDGE, ONE) == Reply("4")
