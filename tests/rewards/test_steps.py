import math

import pytest

from permix_jax.rewards import steps


@pytest.fixture(autouse=True)
def without_bound():
    yield
    steps.allow(math.inf)


def calls(number):
    for _ in range(number):
        one()
    return "done"


def one():
    return 1


def test_calls_are_counted_and_bounded():
    assert steps.counted(calls, 10) == "done"
    steps.allow(100)
    assert steps.counted(calls, 10) == "done"
    assert steps.allow(20) == 100 - 11
    with pytest.raises(steps.OutOfSteps):
        steps.counted(calls, 20)


class Noisy:
    def __del__(self):
        calls(20)


def drop():
    Noisy()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_last_step_within_a_finalizer_ends_the_count_too():
    steps.allow(10)
    with pytest.raises(steps.OutOfSteps):
        steps.counted(drop)
