"""A store that is away is waited for; one that never answered is refused at once."""

import logging

import pytest

from permix_jax.core import stores
from permix_jax.core.places import place_of

ADDRESS = place_of("memory://bucket/run/config.json")


@pytest.fixture
def waits(monkeypatch):
    """The seconds of each wait; none of them passes."""
    clock, slept = [0.0], []

    def sleep(seconds):
        clock[0] += seconds
        slept.append(seconds)

    monkeypatch.setenv("PERMIX_STORE_SECONDS", "60")
    monkeypatch.setattr(stores.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(stores.time, "sleep", sleep)
    return slept


_REFUSED = ConnectionError("connection refused")


def failing(times: int, error: Exception = _REFUSED):
    """A call that fails so often."""
    left = [times]

    def call():
        left[0] -= 1
        if left[0] >= 0:
            raise error
        return "value"

    return call


def test_what_has_worked_is_tried_again_and_said_once(waits, caplog):
    store = stores.Store("memory")
    assert store.call("write", ADDRESS, failing(0)) == "value"
    with caplog.at_level(logging.WARNING):
        assert store.call("write", ADDRESS, failing(4)) == "value"
    assert waits == [0.5, 1, 2, 4]
    said = f"{ADDRESS}: cannot write (connection refused); trying again for 60 s"
    assert [record.message for record in caplog.records] == [said]


@pytest.mark.parametrize(
    ("kind", "error", "reason"),
    [
        ("write", PermissionError("Access Denied"), "Access Denied"),
        ("read", PermissionError("Access Denied"), "Access Denied"),
        (
            "write",
            FileNotFoundError("The specified bucket\ndoes not exist"),
            "The specified bucket",
        ),
        ("read", TimeoutError(), "TimeoutError"),
    ],
)
def test_a_bucket_that_never_worked_is_refused_at_once(waits, kind, error, reason):
    store = stores.Store("memory")
    store.call("read" if kind == "write" else "write", ADDRESS, failing(0))
    with pytest.raises(stores.StoreError) as refused:
        store.call(kind, ADDRESS, failing(9, error))
    assert str(refused.value).startswith(f"{ADDRESS}: cannot {kind} ({reason}")
    assert "check the address, the credentials" in str(refused.value)
    assert "\n" not in str(refused.value) and not waits


def test_another_bucket_may_still_be_without_rights(waits):
    store = stores.Store("memory")
    store.call("write", ADDRESS, failing(0))
    with pytest.raises(stores.StoreError, match="check the address"):
        store.call("write", place_of("memory://other/run"), failing(9))


def test_a_store_that_stays_away_ends_the_run_and_is_not_waited_for_twice(waits):
    store = stores.Store("memory")
    store.call("write", ADDRESS, failing(0))
    for _ in range(2):
        with pytest.raises(stores.StoreError) as gone:
            store.call("write", ADDRESS, failing(999))
    assert str(gone.value) == (
        f"{ADDRESS}: cannot write for 60 s (connection refused); what is finished is kept, run "
        "again when the store is back"
    )
    assert sum(waits) == 60


def test_a_missing_file_is_an_answer_when_read_and_no_answer_when_written(waits):
    store = stores.Store("memory")
    with pytest.raises(FileNotFoundError):
        store.call("read", ADDRESS, failing(1, FileNotFoundError("no such key")))
    store.call("write", ADDRESS, failing(0))
    assert store.call("write", ADDRESS, failing(2, FileNotFoundError("no bucket"))) == "value"
    with pytest.raises(FileExistsError):
        store.call("write", ADDRESS, failing(1, FileExistsError("there is one")))
    assert waits == [0.5, 1]


def test_an_unknown_kind_of_store_is_named_with_those_that_are_known():
    with pytest.raises(ValueError, match=r"^s4:// is no store .*; use an address such as s3://"):
        stores.store_of("s4")
