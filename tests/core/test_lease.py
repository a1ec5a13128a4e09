"""A lock in a store has one holder, and outlives none."""

import pytest

from permix_jax.core import lease
from permix_jax.core.distributed import locked
from permix_jax.core.lease import Lease
from permix_jax.core.places import place_of


@pytest.fixture
def address(request):
    folder = place_of(f"memory://{request.node.name}/bases")
    yield folder / "1234.lock"
    folder.remove()


def test_one_holds_it_and_the_next_takes_it_when_it_is_free(address):
    first, second, third = (Lease(address) for _ in range(3))
    assert first.take() and not second.take() and not third.take()
    first.release()
    assert second.take() and not third.take()
    second.release()
    assert [path.name for path in address.parent.iterdir()] == ["1234.lock.2"]


def test_a_holder_without_a_sign_of_life_loses_it(address, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(lease.time, "monotonic", lambda: clock[0])
    (address.parent / "1234.lock.7").write_bytes(b"3")  # of a process that was killed
    waiting, other = Lease(address), Lease(address)
    assert not waiting.take() and not other.take()
    clock[0] = Lease.SILENT_SECONDS / 2
    (address.parent / "1234.lock.7").write_bytes(b"4")
    assert not waiting.take()
    clock[0] = Lease.SILENT_SECONDS + 1
    assert not waiting.take()  # the last sign is not so old
    clock[0] = 2 * Lease.SILENT_SECONDS
    assert waiting.take() and not other.take()
    waiting.release()


def test_a_holder_gives_signs_of_life(address, monkeypatch):
    monkeypatch.setattr(Lease, "SIGN_SECONDS", 0.0)
    holder = Lease(address)
    assert holder.take()
    while (address.parent / "1234.lock.1").read_bytes() == b"0":
        pass
    holder.release()
    assert (address.parent / "1234.lock.1").read_bytes() == b"free"


def test_the_lock_of_a_base_is_taken_and_given_back(address):
    def busy():
        raise TimeoutError("another run makes the base")

    with locked(address, busy):
        with pytest.raises(TimeoutError), locked(address, busy):
            pass
    with locked(address, busy):
        pass
