"""The prompts for judges. Personas, questions and responses are inserted as they are."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from permix_jax.personagym.answers import Answer
from permix_jax.personagym.benchmark import Benchmark

NO_EXAMPLES = "No score examples are given: grade by the evaluation criteria above."
# Ours, behind the published rubric, which ends in "Evaluation Form:".
FINAL_LINE = (
    "\nGive your reasons first. Then end with one line that holds only the final score, a whole "
    "number from 1 to 5, in this form:\nFinal score: N\n"
)


class Prompt(NamedTuple):
    """One turn for a judge; `system` may be empty."""

    system: str
    user: str


def score_prompt(benchmark: Benchmark, answer: Answer, examples: str | None) -> Prompt:
    """The task's published rubric with the answer in it; `examples` None: it says there are none.

    `with_final_line` adds what judges are asked on top of it.
    """
    values = {
        "score_example": NO_EXAMPLES if examples is None else examples,
        "persona": answer.persona,
        "question": answer.question,
        "response": answer.response,
    }
    return Prompt(benchmark.system_prompt, fill(benchmark.rubrics[answer.task], values))


def with_final_line(prompt: Prompt) -> Prompt:
    """The prompt, and the demand for a last line that `verdict.parse_score` reads."""
    return prompt._replace(user=prompt.user + FINAL_LINE)


def example_prompt(benchmark: Benchmark, answer: Answer) -> Prompt:
    """Asks for a response of each score to the answer's question. It does not show the response."""
    values = {
        "persona": answer.persona,
        "question": answer.question,
        "rubric": benchmark.rubrics[answer.task],
    }
    return Prompt("", fill(benchmark.example_prompt, values))


def fill(template: str, values: Mapping[str, str]) -> str:
    """Puts each value in its {slot}. Unlike in str.format, braces in a value stay as they are."""
    slots = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({slots})\}}", lambda match: values[match[1]], template)


def has_all_scores(examples: str) -> bool:
    """Whether each of "Score 1" to "Score 5" occurs."""
    return all(re.search(rf"\bscore\W{{0,3}}{score}\b", examples, re.I) for score in range(1, 6))
