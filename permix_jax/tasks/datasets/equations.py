"""A one-step word problem's equation, found where the data give its answer alone."""

import re
from fractions import Fraction
from itertools import combinations

_NUMBER = re.compile(r"(?<![\w.,])(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?![\w])")


def only_equation(question: str, answer: str) -> str | None:
    """Such as "70 - 27 = 43": the one sum, difference, product or quotient of two of the question's
    numbers that is the answer; None where there is none, or several.

    It need not be how the problem is meant: that the two agree is likely, not certain.
    """
    wanted, found = Fraction(answer), set()
    for first, second in combinations(_NUMBER.findall(question), 2):
        for a, b in ((first, second), (second, first)):
            x, y = (Fraction(n.replace(",", "")) for n in (a, b))
            if x - y == wanted:
                found.add(f"{a} - {b} = {answer}")
            if y and x / y == wanted:
                found.add(f"{a} / {b} = {answer}")
        if x + y == wanted:
            found.add(f"{first} + {second} = {answer}")
        if x * y == wanted:
            found.add(f"{first} * {second} = {answer}")
    return found.pop() if len(found) == 1 else None
