import signal

import pytest

from permix_jax.core.stop import Stopped, StopRequest

NUMBERS = (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", NUMBERS)
def test_the_first_signal_asks_for_a_stop(number):
    with StopRequest() as stop:
        assert not stop.requested
        stop.check()
        signal.raise_signal(number)
        assert stop.requested
        with pytest.raises(Stopped):
            stop.check()


@pytest.mark.parametrize("first", NUMBERS)
def test_a_second_ctrl_c_interrupts_at_once(first):
    with StopRequest() as stop:
        signal.raise_signal(first)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        assert stop.requested


def test_a_second_sigterm_does_not_hurry():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.requested


def test_the_handlers_before_are_back_afterwards():
    before = [signal.getsignal(number) for number in NUMBERS]
    with pytest.raises(RuntimeError), StopRequest():
        assert [signal.getsignal(number) for number in NUMBERS] != before
        raise RuntimeError
    assert [signal.getsignal(number) for number in NUMBERS] == before


def test_the_loop_ends_with_its_signals_even_inside_another():
    with StopRequest() as outer:
        with StopRequest() as inner:
            signal.raise_signal(signal.SIGTERM)
        assert inner.requested and not outer.requested
        signal.raise_signal(signal.SIGTERM)
        assert outer.requested
