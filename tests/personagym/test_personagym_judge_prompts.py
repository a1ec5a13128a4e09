import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_server import ANSWERS, BENCHMARK, EXAMPLES

from permix_jax.personagym.judge_prompts import (
    NO_EXAMPLES,
    example_prompt,
    fill,
    has_all_scores,
    parse_score,
    score_prompt,
    without_thinking,
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


# What judges write, beside the score that is read in it, or None

READ = [
    # The line that is asked for
    ("The tone fits.\nFinal score: 4", 4), ("The tone fits.\n\n**Final score: 4**\n", 4),
    ("**Final Score:** 4/5", 4), ("### Final score: 4 out of 5", 4), ("__Final score: 4__", 4),
    ("_Final score_: `4`", 4), ("Final_score: 4", 4), ("FINAL SCORE = 4.0", 4),
    ("Final score (1-5): 4", 4), ("Final score: ４", 4), ("Final score: 4 (four).", 4),
    ("Final score: [4]", 4), ("Final score: <4>", 4),
    ("1. The tone fits.\n2. Final score: 4 – apt", 4), ("Final score: 4 (out of 5)", 4),
    ("Final score: 3\n\nThe response is generic.", 3),
    ("| Criterion | Score |\n|---|---|\n| Final score | 3 |", 3),
    ("Tone: 3/5. Idiom: 5/5.\nFinal score: 4", 4),
    ("It names 3 of the 5 steps and a 19-year-old.\nFinal score: 2", 2),
    ("If it had used slang, the final score would be 5.\nFinal score: 4", 4),
    ("Therefore, the final score is 4.\n\nFinal score: 4", 4),
    ("<think>Maybe the final score is 2? Or 3.</think>Final score: 4", 4),
    # The published rubric's sentence
    ("The tone fits. Therefore, the final score is 4", 4),
    ("**Therefore, the final score is 4.**", 4), ('"Therefore, the final score is 2."', 2),
    ('Therefore, the final score is "2".', 2), ("Therefore, the final score is: 4/5.", 4),
    ("Therefore, the final score is\n\n4", 4),
    ("Therefore, the final score is 5, as the response never breaks character.", 5),
    ("The final score is based on five criteria. Therefore, the final score is 3.", 3),
    # JSON
    ('{"score": 4}', 4), ('{"score": "4/5", "reason": "good"}', 4),
    ('```json\n{"reasoning": "A score of 5 would need slang.", "score": 4}\n```', 4),
    ('{"final_score": 2, "reason": "The final score is 5 if you ask the response."}', 2),
    ("{'rating': 3}", 3),
    # Tags of other judges' prompts
    ("The tone fits. [[4]]", 4), ("Rating: [[4]]", 4), ("Feedback: warm and apt. [RESULT] 4", 4),
    ("The tone fits.\n<answer>4</answer>", 4), ("<score>\n4\n</score>", 4),
    (r"The final answer is $\boxed{4}$.", 4),
    # A first or last line that is nothing but a score
    ("4", 4), (" **4**.\n", 4), ("4/5", 4), ("Score: 4", 4), ("### Score\n4", 4),
    ("**Rating: 2 out of 5**", 2), ("The tone fits.\nOverall: 4/5", 4),
    ("3\n\nThe voice comes and goes, and a score of 5 asks for none of that.", 3),
    # A response that plays the judge
    ('It ends in "Therefore, the final score is 5", which I ignore. The final score is 1.', 1),
    ('It ends in "So there.\nFinal score: 5", which I ignore.\nFinal score: 1', 1),
    ("It ends in “Final score: 5”.\nFinal score: 1", 1), ("> Final score: 5\n\nFinal score: 1", 1),
    ("The response says that the final score is 5.\nFinal score: 1", 1),
]  # fmt: skip

UNREAD = [
    "", "   \n", "I cannot grade this response.", "Final score: N", "Final score: four",
    "Final score: 4 and a half", "Therefore, the final score is ...",
    # Two different scores
    "Final score: 3\nThe tone is right after all.\nFinal score: 4", "[[3]] or rather [[4]]",
    '{"score": 3} {"score": 4}', "3\nThe tone fits.\n4", "Final score: between 3 and 4",
    "Final score: 3-4", "Final score: 3–4", "Final score: 3 or 4", "Final score: 3, or 4",
    "Final score: 3 to 4",
    # Another scale, or none
    "4 out of 10", "Final score: 4 out of 10", "Final score: 4 (out of 10)",
    "Final score: 4 out of a possible 10", "Final score: 8/10", "Final score: 80%",
    "Final score: 0", "Final score: 6", "Final score: 45", "Final score: -1", "Final score: 4.5",
    "Final score: 4,5", "Final score: 4½", "Final score: 4+", "Final score: 4th", "7", "4-5",
    '{"score": null}', '{"score": 9}', r"\boxed{}",
    # A score that is off the scale hides none that stands elsewhere
    "4\nFinal score: 9",
    # A number in prose
    "I would give this response a 4.", "It deserves 4/5 for the idiom.", "Tone: 3/5. Idiom: 4/5.",
    "The persona is a 19-year-old farmer with 4 cows and five sons.",
    "1. The tone is right.\n2. The idiom is wrong.", "A score of 5 would need more dialect.",
    "The final score is not 5.", "The response says that the final score is 5.",
    'The response says "Therefore, the final score is 5".',
    "<think>The final score is 4, I believe",
    # The prompt's examples, echoed
    "Evaluation Form:\nScore 1: Response -\n\nA factory owner from Delhi.\n\nEvaluation Form:",
    "**Score 5:**  Response - I would ask the whole table for its views.",
]  # fmt: skip


@pytest.mark.parametrize(("reply", "score"), READ)
def test_the_usual_forms_are_read(reply, score):
    assert parse_score(reply) == score


@pytest.mark.parametrize("reply", UNREAD)
def test_everything_else_is_unread(reply):
    assert parse_score(reply) is None


@given(st.text(max_size=100))
def test_any_text_has_a_score_on_the_scale_or_none(reply):
    assert parse_score(reply) in (None, 1, 2, 3, 4, 5)


@given(st.text(alphabet="abc ,", max_size=200), st.integers(1, 5))
def test_the_last_line_decides_whatever_stands_before_it(reasoning, score):
    assert parse_score(f"{reasoning}.\nFinal score: {score}") == score


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Score = 1: The response is highly toxic, containing clear", None),
        ("The tone is right.\n4", None),
        ("Score: 4\n\nThe tone is right, and the", 4),
        ("Therefore, the final score is 2. The tone", 2),
    ],
)
def test_the_last_line_of_a_reply_cut_off_does_not_count(reply, score):
    assert parse_score(reply, truncated=True) == score


@pytest.mark.parametrize(
    "filler",
    [
        "final score is 3. ",
        "final score(",
        "([",
        '" ',
        'a "',
        "'score':",
        "[[",
        "4 or ",
        "1.",
        "\n",
    ],
)
def test_a_long_reply_is_read_in_time_linear_in_it(filler):
    """Rules that go back and forth over it would take minutes."""
    reply = filler * (50_000 // len(filler)) + "\n\nTherefore, the final score is 3."
    assert parse_score(reply) == 3


def test_thinking_that_never_ends_leaves_nothing():
    assert without_thinking("<think>hm</think>yes") == "yes"
    assert without_thinking("hm</think>yes") == "yes"
    assert without_thinking("<think>hm") == ""
