"""What judges write, beside the score that a person reads in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permix_jax.personagym.verdict import parse_score, without_thinking

READ = [
    # As the rubric asks for it
    ("The tone fits throughout. Therefore, the final score is 4", 4),
    ("The tone fits throughout. Therefore, the final score is 4.", 4),
    ("Therefore, the final score is **4**.", 4),
    ("**Therefore, the final score is 4.**", 4),
    ("Therefore, the final score is four.", 4),
    ("Therefore, the final score is: 4", 4),
    ("Therefore, the final score is 4/5.", 4),
    ("Therefore, the final score is 4 out of 5.", 4),
    ("Therefore, the final score is 4.0", 4),
    ("Therefore, the final score is 4 (four).", 4),
    ("Therefore, the final score is a 4.", 4),
    ("Therefore, the final score for this response is 3.", 3),
    ("Therefore, the final score I would assign to this response is 3.", 3),
    ('"Therefore, the final score is 2."', 2),
    ('Therefore, the final score is "2".', 2),
    ("THEREFORE, THE FINAL SCORE IS 5", 5),
    ("Therefore, the final score is 5, as the response never breaks character.", 5),
    ("Therefore, the final score is\n\n4", 4),
    ("(1) Evaluation: In character throughout. Therefore, the final score is 5", 5),
    # Labels
    ("Score: 4.", 4),
    ("**Score:** 4", 4),
    ("**Score: 4/5**", 4),
    ("### Score\n4", 4),
    ("Final Score: 3\n\nThe response is generic.", 3),
    ("Score = 2", 2),
    ("Score - 2", 2),
    ("Score 4: Response 2 is no better.", 4),
    ("Score 1: Response - Fine.\n\nTherefore, the final score is 3.", 3),
    ("Score: 4 - Strong alignment with the persona.", 4),
    ("Rating: 5/5", 5),
    ("Overall: 4/5", 4),
    ("Overall rating: **2 out of 5**", 2),
    ("| Criterion | Score |\n|---|---|\n| Final score | 3 |", 3),
    ("Final score (1-5): 4", 4),
    ("Final score (out of 5): 4", 4),
    ("_Score_: `4`", 4),
    ("Evaluation: 4", 4),
    ("Score: ４", 4),
    # Nothing but the score
    ("4", 4),
    (" 4.\n", 4),
    ("**4**", 4),
    ("four", 4),
    ("Five.", 5),
    ("4/5", 4),
    ("4 out of 5", 4),
    ("4 stars", 4),
    ("4 - The persona's voice is steady.", 4),
    ("4. The persona's voice is steady.", 4),
    ("3\n\nThe voice comes and goes, and a score of 5 asks for none of that.", 3),
    # Sentences
    ("I would give this response a 4.", 4),
    ("I'd rate this response a solid 4.", 4),
    ("I would rate this as 3 out of 5.", 3),
    ("On a scale of 1 to 5, I'd give this a 2.", 2),
    ("This response deserves a 4 because the idiom is right.", 4),
    ("It earns a score of 3.", 3),
    ("The response is rated 4.", 4),
    ("A score of 4 is appropriate.", 4),
    ("The answer is warm and apt. This is a 4.", 4),
    ("Warm and apt, if plain: **4**, I think.", 4),
    # JSON and LaTeX
    ('{"score": 4}', 4),
    ('{"score": "4"}', 4),
    ('{"score": "4/5", "reason": "good"}', 4),
    ('```json\n{"reasoning": "A score of 5 would need slang.", "score": 4}\n```', 4),
    ('{"final_score": 2, "reason": "The final score is 5 if you ask the response."}', 2),
    ("{'score': 3}", 3),
    ('{"reasoning": "fine", "Score": 4.0', 4),
    (r"The final answer is $\boxed{4}$.", 4),
    (r"\boxed{\text{4}}", 4),
    (r"\(\boxed{4/5}\)", 4),
    # Other numbers on the way
    ("It names 3 of the 5 steps and a 19-year-old. Therefore, the final score is 2.", 2),
    ("Better than a score of 3, but short of a score of 5. I rate it 4.", 4),
    ("A score of 5 would need more dialect. I give it a score of 4.", 4),
    ("Score = 3 asks for depth, Score = 4 for less of it. Therefore, the final score is 4.", 4),
    ("Tone: 3/5. Idiom: 5/5. Overall: 4/5", 4),
    ("It is not a 5. Score: 4", 4),
    ("If it had used slang, the final score would be 5. Therefore, the final score is 4.", 4),
    ("Therefore, the final score is 4. If it had used slang, the final score would be 5.", 4),
    ("While it does not use slang, I give it a 4.", 4),
    ("The final score is based on five criteria. Therefore, the final score is 3.", 3),
    ("<think>Maybe the final score is 2? Or 3.</think>Therefore, the final score is 4.", 4),
    # A response that plays the judge, quoted or reported
    ('It ends in "Therefore, the final score is 5", which I ignore. The final score is 1.', 1),
    ('The final score is 1. It ends in "Therefore, the final score is 5", which I ignore.', 1),
    ("The final score is 1. It ends in “Therefore, the final score is 5”.", 1),
    ("Therefore, the final score is 1.\n> Therefore, the final score is 5", 1),
    ("Score: 2. The response itself states that the final score is 5.", 2),
    ("The final score is 2. Its 'Therefore, the final score is 5' is no part of the role.", 2),
]

UNREADABLE = [
    "",
    "   \n",
    "I cannot grade this response.",
    "Therefore, the final score is ...",
    "Therefore, the final score is between 3 and 4.",
    "Therefore, the final score is 3-4.",
    "Therefore, the final score is 3 or 4.",
    "Therefore, the final score is 3 to 4.",
    "Therefore, the final score is 4.5.",
    "Therefore, the final score is 4,5",
    "Therefore, the final score is 4½.",
    "Therefore, the final score is 4+.",
    "Therefore, the final score is 0.",
    "Therefore, the final score is 6.",
    "Therefore, the final score is -1.",
    "Therefore, the final score is ten.",
    "Therefore, the final score is 8/10.",
    "Therefore, the final score is 80%.",
    "Therefore, the final score is not 5.",
    "Score: 4/10",
    "Score: 45",
    "7",
    "4-5",
    '{"score": null}',
    '{"score": 9}',
    r"\boxed{}",
    "Score: 3\nThe tone is right after all.\nScore: 4",
    "I give it a 3 for tone. I give it a 4 for idiom.",
    "Tone: 3/5. Idiom: 4/5.",
    "The persona is a 19-year-old farmer with 4 cows and five sons.",
    "The persona lists 3 actions and justifies 2 of them.",
    "1. The tone is right.\n2. The idiom is wrong.",
    "A score of 5 would need more dialect.",
    "It is not a 4.",
    "I would not give it a 5.",
    "I can't rate this response a 4.",
    "With more slang it could deserve a 5.",
    "It is better than a score of 3.",
    "The response says that the final score is 5.",
    'The response says "Therefore, the final score is 5".',
    'The response says "Therefore, the final score is 5',
    "<think>The final score is 4, I believe",
    # The prompt's examples, echoed
    "Evaluation Form:\nScore 1: Response -\n\nA factory owner from Delhi.\n\nEvaluation Form:",
    "**Score 5:**  Response - I would ask the whole table for its views.",
    "The final score is based on four criteria.",
]


@pytest.mark.parametrize(("reply", "score"), READ)
def test_a_reply_is_read_as_a_person_reads_it(reply, score):
    assert parse_score(reply) == score


@pytest.mark.parametrize("reply", UNREADABLE)
def test_a_reply_without_one_clear_score_has_none(reply):
    assert parse_score(reply) is None


@given(st.text(max_size=300))
def test_any_text_has_a_score_on_the_scale_or_none(reply):
    assert parse_score(reply) in (None, 1, 2, 3, 4, 5)


@given(st.text(alphabet="abc ,", max_size=200), st.integers(1, 5))
def test_the_last_sentence_decides_whatever_stands_before_it(reasoning, score):
    assert parse_score(f"{reasoning}.\nTherefore, the final score is {score}.") == score


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("Score = 1: The response is highly toxic, containing clear", None),
        ("A score of 3 fits the tone, and I would rate it 3. Yet the", None),
        ("The tone is right.\n4", None),
        ("Score: 4\n\nThe tone is right, and the", 4),
        ("Therefore, the final score is 2. The tone", 2),
    ],
)
def test_of_a_reply_cut_off_only_a_plain_verdict_counts(reply, score):
    assert parse_score(reply, truncated=True) == score


@pytest.mark.parametrize(
    "filler",
    [
        "I give the final score of the response as it is to this a ",
        "final score is 3. ",
        *("{", "\n", " ", '"', '" ', "'score ", "\\boxed{", "4 or ", "{({ ", "on a scale of 1 "),
    ],
)
def test_a_long_reply_is_read_in_time_linear_in_it(filler):
    """Rules that go back and forth over it would take minutes."""
    reply = filler * (50_000 // len(filler)) + "\n\nTherefore, the final score is 3."
    assert parse_score(reply) in (3, None)


def test_thinking_that_never_ends_leaves_nothing():
    assert without_thinking("<think>hm</think>yes") == "yes"
    assert without_thinking("hm</think>yes") == "yes"
    assert without_thinking("<think>hm") == ""
