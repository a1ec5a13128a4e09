"""A bound on work that is the same on every machine: calls of Python functions are counted."""

import math
import sys
from collections.abc import Callable
from typing import Any

_left = math.inf


class OutOfSteps(BaseException):
    """Not an Exception, for sympy catches those in many places and goes on."""


def allow(steps: float) -> float:
    """Gives so many steps, math.inf for any, to all that `counted` calls from here on; returns
    those that were left before."""
    global _left
    before, _left = _left, steps
    return before


def counted(function: Callable, *args: Any) -> Any:
    """What `function` returns. Raises OutOfSteps where it takes more steps than are left.

    A step is one call of a Python function. Counting makes them two to four times slower.
    """
    before = sys.gettrace()
    sys.settrace(before if _left == math.inf else _count)
    try:
        result = function(*args)
    finally:
        sys.settrace(before)
    if _left < 0:  # a finalizer, from which nothing can be raised, took the last step
        raise OutOfSteps
    return result


def _count(*_: Any) -> None:
    global _left
    _left -= 1
    if _left < 0:
        raise OutOfSteps
