"""A bound on work that is the same on every machine: calls of Python functions are counted."""

import math
import sys
import threading
from collections.abc import Callable
from typing import Any

_allowed = threading.local()


class OutOfSteps(BaseException):
    """Not an Exception, for sympy catches those in many places and goes on."""


def allow(steps: float) -> None:
    """Gives this thread so many steps for all that `counted` calls from here on; math.inf: any."""
    _allowed.steps = steps


def left() -> float:
    """The steps that this thread has left."""
    return getattr(_allowed, "steps", math.inf)


def counted(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """What `function` returns. Raises OutOfSteps where it takes more steps than are left.

    A step is one call of a Python function. Counting makes them two to four times slower.
    """
    if left() == math.inf:
        return function(*args, **kwargs)
    before = sys.gettrace()
    sys.settrace(_count)
    try:
        return function(*args, **kwargs)
    finally:
        sys.settrace(before)


def _count(frame: Any, event: str, argument: Any) -> None:
    _allowed.steps -= 1
    if _allowed.steps < 0:
        raise OutOfSteps
