"""Finds the equation of a one-step word problem from its question and answer."""

import re
from fractions import Fraction
from itertools import combinations

_NUMBER = re.compile(r"(?<![\w.,])(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?(?![\w])")


def only_equation(question: str, answer: str) -> str | None:
    """The one sum, difference, product or quotient of two numbers in the question that gives the
    answer, such as "70 - 27 = 43"; None if there is none, or several.

    The problem probably means this equation, but that is not certain.
    """
    wanted, equations = Fraction(answer), set()
    for first, second in combinations(_NUMBER.findall(question), 2):
        for a, b in ((first, second), (second, first)):
            x, y = (Fraction(n.replace(",", "")) for n in (a, b))
            if x - y == wanted:
                equations.add(f"{a} - {b} = {answer}")
            if y and x / y == wanted:
                equations.add(f"{a} / {b} = {answer}")
        if x + y == wanted:
            equations.add(f"{first} + {second} = {answer}")
        if x * y == wanted:
            equations.add(f"{first} * {second} = {answer}")
    return equations.pop() if len(equations) == 1 else None
