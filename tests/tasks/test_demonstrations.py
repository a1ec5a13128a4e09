from collections import Counter

import numpy as np
import pytest

from permix_jax.core.persona import Persona
from permix_jax.core.problem import Problem
from permix_jax.rewards.answer import extract_answer
from permix_jax.rewards.grade import grade_answer
from permix_jax.tasks.demonstrations import INSTRUCTIONS, demonstrator, worked

PERSONAS = [
    Persona("pirate", "Pirate", "You are a pirate.", "fictional", "train"),
    Persona("cat", "Cat", "You are a cat.", "animal", "heldout"),
    Persona("liar", "Liar", "You lie.", "hostile", "harmful_train"),
]


def problem(answer, solution):
    return Problem("1", "Why?", answer, "here", {"solution": solution})


@pytest.mark.parametrize(
    ("answer", "solution", "is_boxed"),
    [
        ("18", "9 + 9 = $18.", False),
        (r"\frac12", r"So $\boxed{\frac12}$.", True),
        # A box that says something else, or nothing, does not count.
        ("25", r"$\boxed{5}$ squared", False),
        ("25", r"$\boxed{(25)\text{ and some more}}$, 25.", False),
    ],
)
def test_a_worked_solution_ends_as_it_is_asked_to(answer, solution, is_boxed):
    given = problem(answer, f" {solution}\n")
    boxed = solution if is_boxed else f"{solution}\nThe answer is $\\boxed{{{answer}}}$."
    assert worked(given, "boxed") == boxed
    assert worked(given, "hashes") == f"{solution}\n#### {answer}"
    assert extract_answer(boxed) == answer


def test_instructions_are_one_line_that_names_the_end():
    assert r"\boxed{}" in INSTRUCTIONS["boxed"] and "'#### '" in INSTRUCTIONS["hashes"]
    assert not any("\n" in text for text in INSTRUCTIONS.values())


def draw(personas, problems, count):
    demonstrate, rng = demonstrator(personas, "boxed"), np.random.default_rng(0)
    return [demonstrate(rng, problems) for _ in range(count)]


def test_half_are_in_a_training_persona():
    shown = Counter(d.persona and d.persona.id for d in draw(PERSONAS, [problem("1", "1")], 400))
    assert set(shown) == {None, "pirate"}
    assert abs(shown["pirate"] - 200) < 4 * 10  # four standard deviations


def test_without_training_personas_they_are_plain():
    assert {d.persona for d in draw(PERSONAS[1:], [problem("1", "1")], 20)} == {None}


def test_only_problems_with_a_worked_solution_are_shown():
    problems = [Problem(str(i), f"{i}?", "1", "here") for i in range(50)] + [problem("1", "One.")]
    assert {d.prompt for d in draw([], problems, 5)} == {"Why?"}
    with pytest.raises(ValueError, match=r"worked solution.*rollout\.max_prompt_tokens.*sft\.st"):
        draw([], problems[:-1], 1)


@pytest.mark.parametrize("answer_format", INSTRUCTIONS)
@pytest.mark.parametrize("name", ["gsm8k", "math12k", "aime24"])
def test_real_solutions_end_in_the_answer(real_problems, name, answer_format):
    for given in real_problems(name):
        text = worked(given, answer_format)
        assert grade_answer(text, given) == 1.0, given.id
        if answer_format == "hashes":
            assert text.endswith(f"\n#### {given.answer.strip()}")
