"""Other wordings of a persona's prompt, so that training does not depend on the words "You are"."""

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from permix_jax.core.persona import Persona


class Template(NamedTuple):
    """`identity` replaces "You are " before a name or description; `anything` precedes any text."""

    identity: str
    anything: str


TEMPLATES = (
    Template("You are ", ""),
    Template("Adopt the identity of ", "Adopt this identity: "),
    Template("Take on the role of ", "Take on this role: "),
    Template("Answer as if you were ", "Answer as described here: "),
    Template("For this conversation, you are ", "For this conversation, keep to the following: "),
)

# Matches "You are a pirate." and "You are Robin.". Does not match "You are rude.", nor "You are a
# cook, and your name is Jo.", whose second half needs the "You are".
_IDENTITY = re.compile(
    r"You are (?=(?:(?:an?|the|one) |someone\b|[A-Z]))(?![^.?!]*\band (?:you|your|it)\b)"
)


def paraphrase(persona: Persona, index: int) -> Persona:
    """The persona in the wording TEMPLATES[index]; index 0 changes nothing.

    Raises:
      IndexError: there is no such template.
    """
    template, prompt = TEMPLATES[index], persona.system_prompt
    if opening := _IDENTITY.match(prompt):
        return replace(persona, system_prompt=template.identity + prompt[opening.end() :])
    return replace(persona, system_prompt=template.anything + prompt)


def all_paraphrases(personas: Sequence[Persona]) -> list[Persona]:
    """Each persona in each wording; all of them must fit into the prompt budget."""
    return [paraphrase(persona, i) for persona in personas for i in range(len(TEMPLATES))]
