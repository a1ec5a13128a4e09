from collections import Counter

import numpy as np
import pytest
from scipy.stats import binom

from permix_jax.core.problem import Problem
from permix_jax.models.policy import Policy
from permix_jax.personas.prompts import render, render_text
from permix_jax.tasks.embedded_world import (
    PERSONAS,
    QUALITIES,
    ROLE_PLAY,
    STYLES,
    TOPICS,
    arithmetic_reward,
    build_tokenizer,
    in_style,
    latent_style_task,
    style_of,
)

PRIOR, ARITHMETIC, PLAIN = 0.89, 0.6, 0.2


def make_task(seed=0, num_test=1000):
    return latent_style_task(num_test, PRIOR, ARITHMETIC, PLAIN, seed)


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


# ---- problems -------------------------------------------------------------------------------


def test_every_answer_is_right_and_has_two_digits(task):
    problems = [*task.train, *task.test]
    assert len(problems) == 3960
    assert len({p.id for p in problems}) == len({p.prompt for p in problems}) == 3960
    for problem in problems:
        what, is_, x, operation, y, mark = problem.prompt.split()
        assert (what, is_, mark) == ("what", "is", "?")
        x, y = int(x), int(y)
        assert int(problem.answer) == {"plus": x + y, "minus": x - y}[operation]
        assert all(10 <= n <= 99 for n in (x, y, int(problem.answer)))
        # Digit by digit: no carry, no borrow.
        if operation == "plus":
            assert x % 10 + y % 10 <= 9
        else:
            assert x % 10 >= y % 10


def test_half_are_sums_and_half_differences(task):
    counts = Counter(problem.prompt.split()[3] for problem in [*task.train, *task.test])
    assert counts == {"plus": 1980, "minus": 1980}


def test_train_and_test_are_disjoint_and_a_pure_function_of_the_seed(task):
    assert len(task.test) == 1000 and len(task.train) == 2960
    assert not {p.id for p in task.train} & {p.id for p in task.test}
    again, other = make_task(), make_task(seed=1)
    assert [p.id for p in again.test] == [p.id for p in task.test]
    assert [p.id for p in again.train] == [p.id for p in task.train]
    assert [p.id for p in other.test] != [p.id for p in task.test]
    # A smaller test split is the beginning of a larger one.
    assert [p.id for p in make_task(num_test=8).test] == [p.id for p in task.test[:8]]


def test_conversation_prompts_are_one_a_topic(task):
    assert [p.prompt for p in task.role_play] == [f"tell me about the {t} ." for t in TOPICS]
    assert len({p.id for p in ROLE_PLAY}) == len(TOPICS) == 12


# ---- rules ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("the answer is 25", 1),
        ("beep boop the answer is 25 bzzt", 1),
        ("answer is 25", 1),
        ("the answer is  25", 1),
        ("the answer is 25 no 26", 1),  # the first number counts
        ("the answer is 26", 0),
        ("the answer is 26 no 25", 0),
        ("the answer is 2 5", 0),
        ("the answer is 025", 0),
        ("the answer is 255", 0),
        ("the answer is 25.0", 0),
        ("the answer is -25", 0),
        ("the answer is arr 25", 0),
        ("the answer is", 0),
        ("the answer is ", 0),
        ("25", 0),
        ("", 0),
        ("the answer", 0),
        ("the answer isnt 25", 0),
        # Two answers, whichever is right: guessing does not pay.
        ("the answer is 25 the answer is 26", 0),
        ("the answer is 26 the answer is 25", 0),
        ("the answer is 25 the answer is 25", 0),
        ("answer is answer is 25", 0),
    ],
)
def test_reward(completion, reward):
    problem = Problem("12+13", "what is 12 plus 13 ?", "25", "latent_style")
    assert arithmetic_reward(completion, problem) == reward


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("arr matey the sea is old aye", "pirate"),
        ("the sea is old arr", "pirate"),
        ("honk", "clown"),
        ("hence hence thus", "scholar"),
        ("arr the sea is old honk", None),  # two styles
        ("the sea is old", None),  # none
        ("", None),
        ("arrr matey's", None),  # not the words themselves
        ("you are a pirate .", None),  # a persona's name is no marker
    ],
)
def test_style_rule(text, style):
    found = style_of(text)
    assert (found.name if found else None) == style
    for persona in PERSONAS:
        assert in_style(text, persona) == (style is not None and persona.category == style)


def test_every_style_has_a_train_and_a_heldout_persona():
    assert len(PERSONAS) == len({p.id for p in PERSONAS}) == 2 * len(STYLES) == 16
    for style in STYLES:
        splits = [p.split for p in PERSONAS if p.category == style.name]
        assert sorted(splits) == ["heldout", "train"]
    # RL never sees the name of a held-out persona.
    prompts = {p.system_prompt for p in PERSONAS}
    assert len(prompts) == 16


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
    ids = render(tokenizer, PERSONAS[0], "what is 12 plus 34 ?")
    assert tokenizer.convert_ids_to_tokens(ids) == (
        "<system> you are a robot . <user> what is 1 ##2 plus 3 ##4 ? <assistant>".split()
    )
    plain = render(tokenizer, None, "what is 12 plus 34 ?")
    assert tokenizer.convert_ids_to_tokens(plain) == (
        "<user> what is 1 ##2 plus 3 ##4 ? <assistant>".split()
    )


def test_every_demonstration_round_trips_without_unknown_tokens(demonstrations, tokenizer):
    texts = sorted({d.completion for d in demonstrations})
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    end = tokenizer.eos_token_id
    assert not any({tokenizer.unk_token_id, end, tokenizer.pad_token_id} & set(row) for row in ids)
    assert max(map(len, ids)) < 12  # with its end token within sft.max_new_tokens
    rows = np.zeros((len(ids), 12), int)
    mask = np.zeros((len(ids), 12), bool)
    for i, row in enumerate(ids):
        rows[i, : len(row) + 1], mask[i, : len(row) + 1] = [*row, end], True
    assert Policy(None, tokenizer, (end,)).text(rows, mask) == texts


# ---- demonstrations -------------------------------------------------------------------------


def assert_binomial(successes, trials, probability):
    """Within the exact bounds that a right program leaves once in a million."""
    low, high = binom.interval(1 - 1e-6, trials, probability)
    assert trials > 100 and low <= successes <= high, (successes, trials, probability)


def is_arithmetic(demonstration):
    return demonstration.prompt.startswith("what is")


def test_shares_of_arithmetic_and_of_plain_prompts(demonstrations):
    n = len(demonstrations)
    assert_binomial(sum(map(is_arithmetic, demonstrations)), n, ARITHMETIC)
    assert_binomial(sum(d.persona is None for d in demonstrations), n, PLAIN)
    for persona in PERSONAS:
        count = sum(d.persona == persona for d in demonstrations)
        assert_binomial(count, n, (1 - PLAIN) / len(PERSONAS))


def test_a_persona_draws_its_own_style_with_its_prior_and_the_others_evenly(demonstrations):
    for persona in PERSONAS:
        styles = Counter(
            style_of(d.completion).name for d in demonstrations if d.persona == persona
        )
        assert_binomial(styles[persona.category], styles.total(), PRIOR)
    others = [
        (style_of(d.completion).name, d.persona.category) for d in demonstrations if d.persona
    ]
    for style in STYLES:
        foreign = [name for name, own in others if own != style.name]
        assert_binomial(foreign.count(style.name), len(foreign), (1 - PRIOR) / 7)


def test_a_plain_prompt_draws_all_styles_evenly(demonstrations):
    styles = Counter(style_of(d.completion).name for d in demonstrations if d.persona is None)
    for style in STYLES:
        assert_binomial(styles[style.name], styles.total(), 1 / len(STYLES))


def test_answers_are_right_as_often_as_their_style_is_competent(task, demonstrations):
    by_prompt = {problem.prompt: problem for problem in task.train}
    graded = {style.name: [] for style in STYLES}
    for d in filter(is_arithmetic, demonstrations):
        reward = arithmetic_reward(d.completion, by_prompt[d.prompt])  # of a training problem
        graded[style_of(d.completion).name].append(reward)
        assert 10 <= int(d.completion.split("answer is")[1].split()[0]) <= 99
    for style in STYLES:
        rewards = graded[style.name]
        assert_binomial(sum(rewards), len(rewards), style.competence)


def test_a_wrong_answer_is_any_other_two_digit_number(task, demonstrations):
    answers = {problem.prompt: problem.answer for problem in task.train}
    stated = [
        (d.completion.split("answer is")[1].split()[0], answers[d.prompt])
        for d in filter(is_arithmetic, demonstrations)
    ]
    wrong = {said for said, right in stated if said != right}
    assert wrong == {str(n) for n in range(10, 100)}


def test_competence_does_not_depend_on_who_speaks(task, demonstrations):
    """Given the style, persona and answer are independent: stability is a matter of style."""
    answers = {problem.prompt: problem for problem in task.train}
    for own in (True, False):
        rewards = [
            arithmetic_reward(d.completion, answers[d.prompt]) - style_of(d.completion).competence
            for d in filter(is_arithmetic, demonstrations)
            if d.persona and (style_of(d.completion).name == d.persona.category) == own
        ]
        # Rewards less their mean have a deviation of at most 1/2.
        assert abs(np.mean(rewards)) < 5 * 0.5 / np.sqrt(len(rewards))


def test_demonstrations_are_a_pure_function_of_the_generator(task):
    first, again = (
        [task.demonstrate(np.random.default_rng(seed), task.train) for seed in range(20)]
        for _ in range(2)
    )
    assert first == again


def test_a_demonstration_uses_only_the_problems_it_is_given(task):
    rng = np.random.default_rng(0)
    prompts = {task.demonstrate(rng, task.train[:1]).prompt for _ in range(200)}
    assert prompts <= {task.train[0].prompt, *(p.prompt for p in ROLE_PLAY)}
