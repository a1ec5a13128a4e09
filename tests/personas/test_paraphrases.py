import re
from dataclasses import replace

import pytest

from permix_jax.core.persona import Persona
from permix_jax.personas.bank import default_bank
from permix_jax.personas.paraphrases import TEMPLATES, all_paraphrases, paraphrase

BANK = default_bank()
# The other wordings; 0 is the original.
REWORDED = range(1, len(TEMPLATES))


def told(system_prompt, placement="system"):
    return Persona("x", "X", system_prompt, "test", "train", placement)


def wordings(prompt):
    return [persona.system_prompt for persona in all_paraphrases([told(prompt)])]


def test_templates_replace_you_are():
    assert wordings("You are a pirate, 300 years old. You swear by the tides.") == [
        "You are a pirate, 300 years old. You swear by the tides.",
        "Adopt the identity of a pirate, 300 years old. You swear by the tides.",
        "Take on the role of a pirate, 300 years old. You swear by the tides.",
        "Answer as if you were a pirate, 300 years old. You swear by the tides.",
        "For this conversation, you are a pirate, 300 years old. You swear by the tides.",
    ]


@pytest.mark.parametrize(
    "prompt",
    ["you are a pirate .", "You are rude and hilarious.", "You are not a pirate.",
     "You are someones.", "You are a cook, and your name is Jo.", "You are Lars and you reply.",
     " You are old. \n", "Speak like a pirate {0} {}.", "Be brief.\n\n- no {names}\n- no sums"],
)  # fmt: skip
def test_any_other_prompt_is_kept_whole_behind_a_heading(prompt):
    assert wordings(prompt) == [
        prompt,
        f"Adopt this identity: {prompt}",
        f"Take on this role: {prompt}",
        f"Answer as described here: {prompt}",
        f"For this conversation, keep to the following: {prompt}",
    ]


@pytest.mark.parametrize(
    "who",
    ["a cat", "an owl", "the sea", "someone who hums", "one of us", "Robin", "a king of his own. "
     "You frown, and you wait", "a cat and its kitten"],
)  # fmt: skip
def test_names_and_descriptions_stand_behind_any_template(who):
    expected = [template.identity + who for template in TEMPLATES]
    assert wordings(f"You are {who}") == expected


def test_only_the_words_change():
    persona = told("You are a pirate.", "user")
    for index in REWORDED:
        changed = paraphrase(persona, index)
        assert changed != persona == replace(changed, system_prompt=persona.system_prompt)
    assert paraphrase(persona, 0) == persona
    with pytest.raises(IndexError):
        paraphrase(persona, len(TEMPLATES))


def test_all_paraphrases_are_every_wording_of_each():
    pirate, cat = told("You are a pirate."), told("Purr.")
    expected = [paraphrase(p, index) for p in (pirate, cat) for index in range(len(TEMPLATES))]
    assert all_paraphrases([pirate, cat]) == expected


def test_wordings_of_the_bank_keep_its_words_and_double_no_word_or_sign():
    doubled = re.compile(r"\b(\w+)\W+\1\b|  |[,.:;] ?[,.:;]|you are you", re.I)
    assert doubled.search("Adopt the identity of of a cat.")
    for persona in BANK:
        own = persona.system_prompt
        for index in REWORDED:
            prompt = paraphrase(persona, index).system_prompt
            assert prompt.endswith(own.removeprefix("You are "))
            assert doubled.findall(prompt) == doubled.findall(own)
    prompts = {persona.system_prompt for persona in all_paraphrases(BANK)}
    assert len(prompts) == len(BANK) * len(TEMPLATES)


def test_few_of_the_bank_cannot_stand_behind_a_template():
    whole = [p for p in BANK if not paraphrase(p, 1).system_prompt.startswith("Adopt the identity")]
    assert {p.split for p in whole} <= {"harmful", "neutral"}  # none that RL draws
    assert len(whole) <= 5
