"""What a judge is asked. Personas, questions and responses are put in as they are, as data."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from permix_jax.personagym.answers import Answer
from permix_jax.personagym.benchmark import Benchmark

NO_EXAMPLES = "No score examples are given: grade by the evaluation criteria above."


class Prompt(NamedTuple):
    """One turn for a judge; `system` may be empty."""

    system: str
    user: str


def score_prompt(benchmark: Benchmark, answer: Answer, examples: str | None) -> Prompt:
    """The task's rubric with the answer in it; `examples` None says that there are none."""
    values = {
        "score_example": NO_EXAMPLES if examples is None else examples,
        "persona": answer.persona,
        "question": answer.question,
        "response": answer.response,
    }
    return Prompt(benchmark.system_prompt, fill(benchmark.rubrics[answer.task], values))


def example_prompt(benchmark: Benchmark, answer: Answer) -> Prompt:
    """Asks for a response of every score to the answer's question; the response is not in it."""
    values = {
        "persona": answer.persona,
        "question": answer.question,
        "rubric": benchmark.rubrics[answer.task],
    }
    return Prompt("", fill(benchmark.example_prompt, values))


def fill(template: str, values: Mapping[str, str]) -> str:
    """Puts each value in its {slot}, all in one pass: a {slot} within a value stays as it is.

    str.format would stop at the braces of a response, or fill them.
    """
    slots = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({slots})\}}", lambda match: values[match[1]], template)


def has_all_scores(examples: str) -> bool:
    """Whether "Score 1" to "Score 5" all occur."""
    return all(re.search(rf"\bscore\W{{0,3}}{score}\b", examples, re.I) for score in range(1, 6))
