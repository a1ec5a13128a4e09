from hypothesis import given
from hypothesis import strategies as st
from judge_server import ANSWERS, BENCHMARK, EXAMPLES

from permix_jax.personagym.judge_prompts import (
    NO_EXAMPLES,
    example_prompt,
    fill,
    has_all_scores,
    score_prompt,
)

ANSWER = ANSWERS[0]


def test_the_rubric_is_filled_with_the_whole_example():
    prompt = score_prompt(BENCHMARK, ANSWER, EXAMPLES)
    assert prompt.system == "You are a fair judge."
    assert prompt.user == (
        f"Rate Action Justification.\n{EXAMPLES}\nA pirate\nWhat of Action Justification?\n"
        "<As A pirate, number 0.>\nForm:"
    )


def test_without_examples_the_prompt_says_so():
    assert NO_EXAMPLES in score_prompt(BENCHMARK, ANSWER, None).user


@given(st.text(alphabet="{}01persona!:%\\ ", max_size=40))
def test_a_response_is_put_in_as_it_is(response):
    prompt = score_prompt(BENCHMARK, ANSWER._replace(response=response), EXAMPLES)
    assert prompt.user.endswith(f"\n<{response}>\nForm:")


def test_slots_in_a_value_are_not_filled():
    values = {"persona": "{response}", "response": r"{persona} \1 {0} {score_example}"}
    filled = fill("{persona}|{response}|{other}", values)
    assert filled == r"{response}|{persona} \1 {0} {score_example}|{other}"


def test_the_response_is_not_shown_to_who_writes_examples():
    prompt = example_prompt(BENCHMARK, ANSWER)
    assert prompt.user.startswith("Give examples.\nA pirate\nWhat of Action Justification?\nRate")
    assert ANSWER.response not in prompt.user


def test_examples_are_whole_with_all_five_scores():
    assert has_all_scores(EXAMPLES)
    assert has_all_scores("**Score 1:** a **Score 2:** b **Score 3:** c **Score 4:** d Score-5: e")
    assert not has_all_scores(EXAMPLES.replace("Score 5", ""))
    assert not has_all_scores("Score 12345")
