import itertools
import re
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from scipy.stats import binom

from permix_jax.core.persona import Persona
from permix_jax.core.problem import Problem
from permix_jax.models.policy import Policy
from permix_jax.personas.prompts import render, render_text
from permix_jax.tasks.embedded_world import (
    ASSISTANT,
    PERSONAS,
    QUALITIES,
    ROLE_PLAY,
    STYLES,
    TOPICS,
    Style,
    arithmetic_reward,
    build_tokenizer,
    in_style,
    latent_style_task,
    stated_answer,
    style_of,
)

PRIOR, ARITHMETIC, PLAIN = 0.89, 0.6, 0.2


def make_task(seed=0, num_test=1000):
    return latent_style_task(num_test, PRIOR, ARITHMETIC, PLAIN, seed)


class Shown(NamedTuple):
    """What a demonstration shows; of conversation, no answers."""

    persona: Persona | None
    style: Style
    stated: str | None
    right: str | None

    @property
    def is_own(self):
        return self.persona is not None and self.persona.category == self.style.name


@pytest.fixture(scope="module")
def task():
    return make_task()


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def demonstrations(task):
    rng = np.random.default_rng(0)
    return [task.demonstrate(rng, task.train) for _ in range(12_000)]


@pytest.fixture(scope="module")
def shown(task, demonstrations):
    answers = {problem.prompt: problem.answer for problem in task.train}
    return [
        Shown(d.persona, style_of(d.completion), stated[0] if right else None, right)
        for d in demonstrations
        for right in [answers.get(d.prompt)]
        for stated in [re.findall("answer is ([0-9]+)", d.completion)]
    ]


# ---- problems -------------------------------------------------------------------------------


def test_every_answer_is_right_and_has_two_digits(task):
    problems = [*task.train, *task.test]
    assert len({p.id for p in problems}) == len({p.prompt for p in problems}) == 3960
    operations = Counter()
    for problem in problems:
        what, is_, x, operation, y, mark = problem.prompt.split()
        assert (what, is_, mark) == ("what", "is", "?")
        x, y, operations[operation] = int(x), int(y), operations[operation] + 1
        assert int(problem.answer) == {"plus": x + y, "minus": x - y}[operation]
        assert all(10 <= n <= 99 for n in (x, y, int(problem.answer)))
        # Digit by digit: no carry, no borrow.
        assert {"plus": x % 10 + y % 10 <= 9, "minus": x % 10 >= y % 10}[operation]
    assert operations == {"plus": 1980, "minus": 1980}


def test_train_and_test_are_disjoint_and_a_pure_function_of_the_seed(task):
    assert len(task.test) == 1000 and len(task.train) == 2960
    assert not {p.id for p in task.train} & {p.id for p in task.test}
    again = make_task()
    assert (again.train, again.test) == (task.train, task.test)
    assert make_task(seed=1).test != task.test
    # A smaller test split is the beginning of a larger one.
    assert make_task(num_test=8).test == task.test[:8]


def test_conversation_prompts_are_one_a_topic(task):
    assert [p.prompt for p in task.role_play] == [f"tell me about the {t} ." for t in TOPICS]
    assert len({p.id for p in ROLE_PLAY}) == len(TOPICS) == 12


# ---- rules ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reward", "completions"),
    [
        (1, ["the answer is 25", "beep boop the answer is 25 bzzt", "answer is 25",
             "the answer is  25", "the answer is 25 no 26"]),  # the first number counts
        (0, ["the answer is 26", "the answer is 26 no 25", "the answer is 2 5",
             "the answer is 025", "the answer is 255", "the answer is 25.0", "the answer is -25",
             "the answer is arr 25", "the answer is", "the answer is ", "25", "", "the answer",
             "the answer isnt 25"]),
        # Two answers, whichever is right: guessing does not pay.
        (0, ["the answer is 25 the answer is 26", "the answer is 26 the answer is 25",
             "the answer is 25 the answer is 25", "answer is answer is 25"]),
    ],
)  # fmt: skip
def test_reward(reward, completions):
    problem = Problem("12+13", "what is 12 plus 13 ?", "25", "latent_style")
    graded = {text: arithmetic_reward(text, problem) for text in completions}
    assert graded == dict.fromkeys(completions, reward)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("arr the answer is 25 aye", "25"), ("the answer is moon", "moon"), ("answer is", None),
        ("answer is 2 answer is 3", None), ("25", None),
    ],
)  # fmt: skip
def test_stated_answer(text, answer):
    assert stated_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("arr matey the sea is old aye", "pirate"), ("the sea is old arr", "pirate"),
        ("honk", "clown"), ("hence hence thus", "scholar"),
        ("arr the sea is old honk", None),  # two styles
        ("the sea is old", None), ("", None),  # none
        ("arrr matey's", None),  # not the words themselves
        ("you are a pirate .", None),  # a persona's name is no marker
    ],
)  # fmt: skip
def test_style_rule(text, style):
    found = style_of(text)
    assert (found.name if found else None) == style
    for persona in PERSONAS:
        assert in_style(text, persona) == (style is not None and persona.category == style)


def test_every_style_has_a_train_and_a_heldout_persona():
    assert len(PERSONAS) == len({p.id for p in PERSONAS}) == 2 * len(STYLES) == 16
    places = {(p.category, p.split) for p in PERSONAS}
    assert places == set(itertools.product((s.name for s in STYLES), ("train", "heldout")))
    # RL never sees the name of a held-out persona.
    assert len({p.system_prompt for p in PERSONAS}) == 16


def test_words_of_the_world_do_not_overlap():
    markers = [marker for style in STYLES for marker in style.markers]
    names = [p.name for p in PERSONAS]
    words = [*markers, *names, *TOPICS, *QUALITIES, *"the answer is what plus minus tell".split()]
    assert max(Counter(words).values()) == 1


# ---- tokenizer ------------------------------------------------------------------------------


def test_every_prompt_round_trips_without_unknown_tokens(task, tokenizer):
    unknown = tokenizer.unk_token_id
    for problem in [*task.train[::40], *task.test[::40], *task.role_play]:
        for persona in (None, *PERSONAS):
            text = render_text(tokenizer, persona, problem.prompt)
            ids = render(tokenizer, persona, problem.prompt)
            assert unknown not in ids
            assert tokenizer.decode(ids) == text
            assert len(ids) <= 16  # the prompt budget of configs/permix.py


def test_a_prompt_by_hand(tokenizer):
    asked = "<user> what is 1 ##2 plus 3 ##4 ? <assistant>"
    for persona, text in ((None, asked), (PERSONAS[0], f"<system> you are a robot . {asked}")):
        ids = render(tokenizer, persona, "what is 12 plus 34 ?")
        assert tokenizer.convert_ids_to_tokens(ids) == text.split()


def test_every_demonstration_round_trips_without_unknown_tokens(demonstrations, tokenizer):
    texts = sorted({d.completion for d in demonstrations})
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    end = tokenizer.eos_token_id
    assert not any({tokenizer.unk_token_id, end, tokenizer.pad_token_id} & set(row) for row in ids)
    assert max(map(len, ids)) < 12  # with its end token within sft.max_new_tokens
    rows = np.array([[*row, end] + [0] * (11 - len(row)) for row in ids])
    mask = np.arange(12) <= np.array([[len(row)] for row in ids])
    assert Policy(None, tokenizer, (end,)).text(rows, mask) == texts


# ---- demonstrations -------------------------------------------------------------------------


def assert_binomial(successes, trials, probability):
    """Within the exact bounds that a right program leaves once in a million."""
    low, high = binom.interval(1 - 1e-6, trials, probability)
    assert trials > 100 and low <= successes <= high, (successes, trials, probability)


def test_shares_of_arithmetic_and_of_plain_prompts(shown):
    assert_binomial(sum(d.stated is not None for d in shown), len(shown), ARITHMETIC)
    assert_binomial(sum(d.persona is None for d in shown), len(shown), PLAIN)
    counts = Counter(d.persona for d in shown)
    for persona in PERSONAS:
        assert_binomial(counts[persona], len(shown), (1 - PLAIN) / len(PERSONAS))


def test_a_persona_draws_its_own_style_with_its_prior_and_the_others_evenly(shown):
    for persona in PERSONAS:
        own = [d.is_own for d in shown if d.persona == persona]
        assert_binomial(sum(own), len(own), PRIOR)
    for style in STYLES:
        foreign = [d.style for d in shown if d.persona and d.persona.category != style.name]
        assert_binomial(foreign.count(style), len(foreign), (1 - PRIOR) / 7)


def test_a_plain_prompt_draws_all_styles_evenly(shown):
    styles = Counter(d.style for d in shown if d.persona is None)
    for style in STYLES:
        assert_binomial(styles[style], styles.total(), 1 / len(STYLES))


def test_a_plain_prompt_has_a_style_of_its_own_with_its_share_and_the_others_evenly():
    task = latent_style_task(1000, PRIOR, ARITHMETIC, 1.0, 0, plain_style_share=0.75)
    rng = np.random.default_rng(0)
    shown = [task.demonstrate(rng, task.train) for _ in range(4000)]
    styles = [style_of(d.completion) for d in shown]
    assert_binomial(styles.count(ASSISTANT), len(styles), 0.75)
    for style in STYLES:
        assert_binomial(styles.count(style), len(styles), 0.25 / len(STYLES))
    said = [d for d, style in zip(shown, styles, strict=True) if style == ASSISTANT]
    answers = {problem.prompt: problem.answer for problem in task.train}
    graded = [stated_answer(d.completion) == answers[d.prompt] for d in said if d.prompt in answers]
    assert_binomial(sum(graded), len(graded), ASSISTANT.competence)
    tokenizer = build_tokenizer(assistant=True)
    assert tokenizer.unk_token_id not in sum(tokenizer([d.completion for d in said]).input_ids, [])


def test_without_a_style_of_its_own_the_world_is_as_it_was():
    tasks = make_task(), latent_style_task(1000, PRIOR, ARITHMETIC, PLAIN, 0, plain_style_share=0.0)
    drawn = [[t.demonstrate(np.random.default_rng(1), t.train) for _ in range(50)] for t in tasks]
    assert drawn[0] == drawn[1]
    words = build_tokenizer().get_vocab()
    assert not {*ASSISTANT.markers} & {*words}
    assert len(build_tokenizer(assistant=True)) == len(words) + len(ASSISTANT.markers)


def test_answers_are_right_as_often_as_their_style_is_competent_whoever_speaks(shown):
    """Given the style, persona and answer are independent: stability is a matter of style."""
    for style, own in itertools.product(STYLES, (True, False)):
        said = [d for d in shown if d.right and (d.style, d.is_own) == (style, own)]
        graded = [d.stated == d.right for d in said]
        assert_binomial(sum(graded), len(graded), style.competence)


def test_a_wrong_answer_is_any_other_two_digit_number(shown):
    wrong = {d.stated for d in shown if d.stated != d.right}
    assert wrong == {str(n) for n in range(10, 100)}


def test_demonstrations_are_a_pure_function_of_the_generator(task):
    for seed in range(20):
        one, two = (task.demonstrate(np.random.default_rng(seed), task.train) for _ in range(2))
        assert one == two


def test_a_demonstration_uses_only_the_problems_it_is_given(task):
    rng = np.random.default_rng(0)
    prompts = {task.demonstrate(rng, task.train[:1]).prompt for _ in range(200)}
    assert prompts <= {task.train[0].prompt, *(p.prompt for p in ROLE_PLAY)}
