"""Other wordings of a persona's prompt, so that training does not lean on the words "You are"."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from permix_jax.core.persona import Persona


class Template(NamedTuple):
    """What stands before the persona's own words.

    `identity` takes the place of "You are " before someone's name or description; `anything` can
    precede any text.
    """

    identity: str
    anything: str


TEMPLATES = (
    Template("You are ", ""),
    Template("Adopt the identity of ", "Adopt this identity: "),
    Template("Take on the role of ", "Take on this role: "),
    Template("Answer as if you were ", "Answer as described here: "),
    Template("For this conversation, you are ", "For this conversation, keep to the following: "),
)

# "You are a pirate." and "You are Robin.", but neither "You are rude." nor "You are a cook, and
# your name is Jo.", whose second half has no "you are" to lean on.
_IDENTITY = re.compile(
    r"You are (?=(?:(?:an?|the|one) |someone\b|[A-Z]))(?![^.?!]*\band (?:you|your|it)\b)"
)


def paraphrase(persona: Persona, index: int) -> Persona:
    """The persona in the words of TEMPLATES[index], otherwise the same; index 0 changes nothing.

    Raises:
      IndexError: there is no such template.
    """
    template, prompt = TEMPLATES[index], persona.system_prompt
    if opening := _IDENTITY.match(prompt):
        return replace(persona, system_prompt=template.identity + prompt[opening.end() :])
    return replace(persona, system_prompt=template.anything + prompt)


def all_paraphrases(personas: Sequence[Persona]) -> list[Persona]:
    """Each persona in each wording: those whose prompts must fit into the budget."""
    return [paraphrase(persona, i) for persona in personas for i in range(len(TEMPLATES))]
