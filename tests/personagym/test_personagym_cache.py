import errno
import logging
import os

import pytest

from permix_jax.personagym.asking import ReplyCache
from permix_jax.personagym.judge_prompts import Prompt
from permix_jax.personagym.judges import Judge, LocalJudge, Reply

JUDGE = Judge("j", "http://127.0.0.1:1/v1", "m")
PROMPT = Prompt("s", "u")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "replies.jsonl"


def test_a_reply_is_on_disk_before_the_cache_is_closed(path):
    cache = ReplyCache(path)
    cache.put(JUDGE, PROMPT, Reply("Score: 4", truncated=True))
    with ReplyCache(path) as other:
        assert other.get(JUDGE, PROMPT) == Reply("Score: 4", truncated=True)
    cache.__exit__()


def test_what_changes_a_reply_makes_another_entry_and_the_address_does_not(path):
    with ReplyCache(path) as cache:
        cache.put(JUDGE, PROMPT, Reply("4"))
        for change in ({"name": "k"}, {"model": "n"}, {"temperature": 1.0}, {"max_tokens": 9}):
            assert cache.get(JUDGE._replace(**change), PROMPT) is None
        assert cache.get(JUDGE, Prompt("", "su")) is None
        assert cache.get(JUDGE, Prompt("t", "u")) is None
        assert cache.get(LocalJudge("j", "m", list), PROMPT) is None
        assert cache.get(JUDGE._replace(base_url="http://h/v1", key_variable="K"), PROMPT)


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_that_a_kill_cut_off_is_asked_again_and_the_rest_kept(path, cut, caplog):
    with ReplyCache(path) as cache:
        cache.put(JUDGE, PROMPT, Reply("4"))
        cache.put(JUDGE, Prompt("s", "v"), Reply("5"))
    path.write_bytes(path.read_bytes()[:-cut])
    caplog.set_level(logging.WARNING)
    with ReplyCache(path) as cache:
        assert cache.get(JUDGE, PROMPT) == Reply("4")
        if cut > 1:
            assert "replies.jsonl:2 cannot be read" in caplog.text
            assert cache.get(JUDGE, Prompt("s", "v")) is None
        cache.put(JUDGE, Prompt("s", "w"), Reply("3"))
    with ReplyCache(path) as cache:
        assert cache.get(JUDGE, PROMPT) == Reply("4")
        assert cache.get(JUDGE, Prompt("s", "w")) == Reply("3")


def test_a_full_disk_is_named_and_what_was_written_kept(path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with ReplyCache(path) as cache:
        cache.put(JUDGE, PROMPT, Reply("4"))
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            with pytest.raises(OSError, match="No space left.*is finished is kept.*replies.jsonl"):
                cache.put(JUDGE, Prompt("s", "v"), Reply("5"))
    with ReplyCache(path) as cache:
        assert cache.get(JUDGE, PROMPT) == Reply("4")
