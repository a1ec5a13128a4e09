"""Persona: who the model is asked to be."""

from dataclasses import dataclass

FIELDS = ("id", "name", "system_prompt", "category", "split")
SPLITS = ("train", "heldout", "harmful", "harmful_train", "neutral")
EVAL_SETS = ("heldout", "harmful", "neutral", "train")  # what an evaluation may ask
PLACEMENTS = ("system", "user")


@dataclass(frozen=True)
class Persona:
    """A persona; files have all fields but `placement`.

    split: RL draws from "train" and, if the config sets a share, from "harmful_train". Evaluation
      asks "heldout", "harmful" (incompetent, distracted, hostile to numbers: bad for accuracy) and
      "neutral" (controls that should change nothing).
    placement: the prompt is the system message, or stands at the top of the user turn.
    """

    id: str
    name: str
    system_prompt: str
    category: str
    split: str
    placement: str = "system"
