import logging
from dataclasses import replace

import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from permix_jax.core.persona import Persona
from permix_jax.core.problem import Problem
from permix_jax.personas.prompts import chat_messages, fit_budget, render, render_all, render_text

WORDS = "[UNK] <system> <user> <assistant> <end> You are a pirate very old cat add 1 2 3".split()
TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }} <end> {% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
DEFAULT_SYSTEM = "{% if messages[0]['role'] != 'system' %}<system> You are a cat <end> {% endif %}"
PIRATE = Persona("pirate", "Pirate", "You are a pirate", "fictional", "train")
OLD_CAT = Persona("cat", "Old cat", "You are a very very old cat", "animal", "heldout")


ASKED = {"one": "add", "two": "1 2", "six": "add 1 2 3 1 2"}
ONE, TWO, SIX = (Problem(id, prompt, "3", "test") for id, prompt in ASKED.items())


@pytest.fixture
def tokenizer():
    backend = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_a_persona_is_the_system_message():
    assert chat_messages(PIRATE, "add 1 2") == [
        {"role": "system", "content": "You are a pirate"},
        {"role": "user", "content": "add 1 2"},
    ]
    assert chat_messages(None, "add 1 2") == [{"role": "user", "content": "add 1 2"}]


def test_half_a_surrogate_pair_never_reaches_the_tokenizer(tokenizer):
    half = r"holds '\\ud83d', one half of a surrogate pair; write the whole character, or leave it"
    with pytest.raises(ValueError, match=f"^the prompt {half} out$"):
        render(tokenizer, PIRATE, "add \ud83d")
    with pytest.raises(ValueError, match=f"^the text of persona 'pirate' {half} out$"):
        render_text(tokenizer, replace(PIRATE, system_prompt="\ud83d"), "add")


def test_a_persona_may_stand_in_the_users_turn(tokenizer):
    told = replace(PIRATE, placement="user")
    said = {"role": "user", "content": "You are a pirate\n\nadd 1 2"}
    assert chat_messages(told, "add 1 2") == [said]
    text = "<user> You are a pirate\n\nadd 1 2 <end> <assistant>"
    assert render_text(tokenizer, told, "add 1 2") == text
    # One turn less takes two tokens less.
    assert fit_budget(tokenizer, [ONE, TWO], [told], 3 + 4 + 1, "drop") == [ONE]


def test_a_template_sees_no_system_message_where_the_persona_is_the_users(tokenizer):
    tokenizer.chat_template = DEFAULT_SYSTEM + TEMPLATE
    told = render_text(tokenizer, replace(PIRATE, placement="user"), "add")
    assert told == "<system> You are a cat <end> <user> You are a pirate\n\nadd <end> <assistant>"


def test_render_ends_where_the_assistant_begins(tokenizer):
    text = "<system> You are a pirate <end> <user> add 1 2 <end> <assistant>"
    assert render_text(tokenizer, PIRATE, "add 1 2") == text
    ids = render(tokenizer, PIRATE, "add 1 2")
    assert ids == [WORDS.index(word) for word in text.split()]
    assert all(type(id) is int for id in ids)


def test_without_a_persona_the_template_has_its_own_way(tokenizer):
    assert render_text(tokenizer, None, "add") == "<user> add <end> <assistant>"
    tokenizer.chat_template = DEFAULT_SYSTEM + TEMPLATE
    assert render_text(tokenizer, None, "add").startswith("<system> You are a cat <end> <user>")
    assert render_text(tokenizer, PIRATE, "add").startswith("<system> You are a pirate <end> ")


def test_a_template_may_fold_the_system_message_into_the_users_turn(tokenizer):
    tokenizer.chat_template = (
        "<user> {% for m in messages if m.role != 'assistant' %}{{ m.content }} {% endfor %}<end>"
        "{% if add_generation_prompt %} <assistant>{% endif %}"
    )
    told = "<user> You are a pirate add 1 <end> <assistant>"
    assert render_text(tokenizer, PIRATE, "add 1") == told
    assert render_text(tokenizer, None, "add 1") == "<user> add 1 <end> <assistant>"
    assert fit_budget(tokenizer, [ONE, TWO], [PIRATE], 3 + 4 + 1, "drop") == [ONE]


def test_all_prompts_are_rendered_as_each_alone(tokenizer):
    pairs = [(PIRATE, "add 1 2"), (None, "add"), (OLD_CAT, "cat 3")]
    texts = [render_text(tokenizer, *pair) for pair in pairs]
    assert render_all(tokenizer, pairs) == [render(tokenizer, *pair) for pair in pairs]
    assert render_all(tokenizer, pairs) == tokenizer(texts, add_special_tokens=False).input_ids


# A prompt of n words takes n + 3 tokens, with PIRATE 6 more, with OLD_CAT 9 more.
@pytest.mark.parametrize(
    ("personas", "budget", "kept"),
    [
        ([], 3 + 6, [ONE, TWO, SIX]),
        ([], 3 + 6 - 1, [ONE, TWO]),
        ([PIRATE], 3 + 6 + 2, [ONE, TWO]),
        ([PIRATE], 3 + 6 + 2 - 1, [ONE]),
        ([PIRATE, OLD_CAT], 3 + 9 + 6, [ONE, TWO, SIX]),
        ([OLD_CAT, PIRATE], 3 + 9 + 6 - 1, [ONE, TWO]),
    ],
)
def test_the_longest_persona_decides_what_fits(tokenizer, personas, budget, kept, caplog):
    caplog.set_level(logging.WARNING)
    assert fit_budget(tokenizer, [ONE, TWO, SIX], personas, budget, "drop") == kept
    dropped = f"dropped {3 - len(kept)} of 3 problems: prompt over {budget} tokens "
    said = [dropped + "(rollout.max_prompt_tokens)"]
    assert caplog.messages == ([] if len(kept) == 3 else said)


def test_the_templates_default_system_prompt_counts(tokenizer):
    tokenizer.chat_template = DEFAULT_SYSTEM.replace("cat", "very very very old cat") + TEMPLATE
    with_default = len(render(tokenizer, None, "add"))
    assert with_default > len(render(tokenizer, PIRATE, "add"))
    assert fit_budget(tokenizer, [ONE], [PIRATE], with_default, "error") == [ONE]
    with pytest.raises(ValueError, match="problem one"):
        fit_budget(tokenizer, [ONE], [PIRATE], with_default - 1, "error")


def test_overflow_is_refused_with_the_remedy(tokenizer):
    with pytest.raises(ValueError) as error:
        fit_budget(tokenizer, [ONE, SIX], [PIRATE], 12, "error")
    assert str(error.value) == (
        "rollout.max_prompt_tokens is 12; 1 of 2 prompts are over 12 tokens, the longest (problem "
        "six) takes 15: raise it to that, or set rollout.on_overflow to 'drop'"
    )
    assert fit_budget(tokenizer, [ONE, SIX], [PIRATE], 15, "error") == [ONE, SIX]


def test_dropping_every_problem_is_refused(tokenizer):
    with pytest.raises(ValueError, match="none of 2 prompts fits into 9 tokens, .* takes 10"):
        fit_budget(tokenizer, [SIX, ONE], [PIRATE], 9, "drop")
    assert fit_budget(tokenizer, [], [PIRATE], 9, "drop") == []


def test_bad_fields_are_refused(tokenizer):
    with pytest.raises(ValueError, match="^rollout.max_prompt_tokens is 0; use 1 or more$"):
        fit_budget(tokenizer, [ONE], [], 0, "drop")
    with pytest.raises(ValueError, match="^rollout.on_overflow is 'cut'; use one of error, drop$"):
        fit_budget(tokenizer, [ONE], [], 9, "cut")
