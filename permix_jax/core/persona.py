"""Persona: who the model is asked to be."""

from dataclasses import dataclass

FIELDS = ("id", "name", "system_prompt", "category", "split")
SPLITS = ("train", "heldout", "harmful", "harmful_train", "neutral")
EVAL_SETS = ("heldout", "harmful", "neutral", "train")  # what an evaluation may ask
PLACEMENTS = ("system", "user")


@dataclass(frozen=True)
class Persona:
    """A persona; the files hold all but `placement`. `split` says who sees it.

    RL draws from "train" and, for a share that the config sets, from "harmful_train"; evaluation
    asks "heldout", "harmful" (hard on accuracy: incompetent, distracted, hostile to numbers) and
    "neutral" (controls that should change nothing). The two never mix.

    `placement` says where the prompt stands: as the system message, or at the top of the user turn.
    """

    id: str
    name: str
    system_prompt: str
    category: str
    split: str
    placement: str = "system"
