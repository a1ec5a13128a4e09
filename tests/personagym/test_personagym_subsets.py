import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permix_jax.personagym.benchmark import Question, light, subsample

QUESTIONS = [
    Question(f"{persona}/{task}/{number}", persona, task, f"{number}?")
    for persona in ("A nun", "A cook", "A king", "A boy")
    for task in ("Toxicity", "Wit")
    for number in (1, 2, 3)
]


def test_light_is_the_first_question_of_each_task():
    kept = light(QUESTIONS)
    assert len(kept) == 4 * 2
    assert all(question.id.endswith("/1") for question in kept)


def test_zero_takes_all():
    assert subsample(QUESTIONS) == QUESTIONS


@given(st.integers(1, 3), st.integers(1, 2), st.integers(0, 50))
def test_samples_are_nested_balanced_and_in_order(personas, per_task, seed):
    small = subsample(QUESTIONS, personas, per_task, seed)
    assert len(small) == personas * 2 * per_task
    assert small == [question for question in QUESTIONS if question in small]
    assert set(small) <= set(subsample(QUESTIONS, personas + 1, per_task, seed))
    assert set(small) <= set(subsample(QUESTIONS, personas, per_task + 1, seed))


def test_a_sample_is_a_function_of_seed_and_texts_alone():
    shuffled = random.Random(0).sample(QUESTIONS, len(QUESTIONS))
    assert set(subsample(shuffled, 2, 1, seed=3)) == set(subsample(QUESTIONS, 2, 1, seed=3))


def test_seeds_differ_and_all_personas_are_drawn():
    drawn = [subsample(QUESTIONS, 1, 1, seed)[0].persona for seed in range(60)]
    assert set(drawn) == {"A nun", "A cook", "A king", "A boy"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"personas": 5}, r"personas is 5: give 0 \(all\) to 4"),
        ({"personas": -1}, "personas is -1"),
        ({"per_task": 4}, r"per_task for .* is 4: give 0 \(all\) to 3"),
    ],
)
def test_a_number_that_is_not_there_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        subsample(QUESTIONS, **arguments)
