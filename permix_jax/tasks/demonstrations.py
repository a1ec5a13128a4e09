r"""Turns worked solutions into answers of a form: the end is \boxed{answer} or "#### answer"."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from permix_jax.core.persona import Persona
from permix_jax.core.problem import Demonstration, Problem
from permix_jax.rewards.answer import last_box
from permix_jax.tasks.overlap import same_answer

INSTRUCTIONS = {
    "boxed": r"Reason step by step. End with the final answer in \boxed{}.",
    "hashes": "Work it out step by step. End with '#### ' and the number.",
}
_STATEMENTS = {"boxed": "The answer is $\\boxed{{{}}}$.", "hashes": "#### {}"}


def demonstrator(
    personas: Sequence[Persona], answer_format: str
) -> Callable[[np.random.Generator, Sequence[Problem]], Demonstration]:
    """A `Task.demonstrate` that shows worked solutions, half of them under a training persona."""
    train_personas = [persona for persona in personas if persona.split == "train"]

    def demonstrate(rng: np.random.Generator, train: Sequence[Problem]) -> Demonstration:
        for _ in range(1000):  # those with a worked solution may be few
            problem = train[rng.integers(len(train))]
            if "solution" in problem.meta:
                break
        else:
            raise ValueError(
                "no training problem with a worked solution is left for SFT; name a data.train that"
                " has them (gsm8k, math), raise rollout.max_prompt_tokens, or set sft.steps to 0"
            )
        persona = None
        if train_personas and rng.random() < 0.5:
            persona = train_personas[rng.integers(len(train_personas))]
        return Demonstration(persona, problem.prompt, worked(problem, answer_format))

    return demonstrate


def worked(problem: Problem, answer_format: str) -> str:
    """The worked solution, ending in the answer in the form `answer_format`."""
    solution = problem.meta["solution"].strip()
    if answer_format == "boxed":
        box = last_box(solution)
        if box is not None and same_answer(problem, replace(problem, answer=box)):
            return solution
    return f"{solution}\n{statement(problem.answer, answer_format)}"


def statement(answer: str, answer_format: str) -> str:
    """A line that states an answer in the form `answer_format`."""
    return _STATEMENTS[answer_format].format(answer.strip())
