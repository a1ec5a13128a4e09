"""Persona: who the model is asked to be, and the JSONL files they are kept in."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from permix_jax.json_lines import parse_rows, text_field

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


def load_personas(path: str | Path) -> list[Persona]:
    """Reads a JSON Lines file, one object with exactly the FIELDS of a `Persona` a line.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is empty, or a line is malformed (the message names file:line).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such persona file; write one JSON object a line with {', '.join(FIELDS)}"
        )
    return _parse(path.read_bytes(), str(path))


def default_bank() -> list[Persona]:
    """The personas that come with the package, of every split; docs/personas.md counts them."""
    return _parse((resources.files(__package__) / "bank.jsonl").read_bytes(), "bank.jsonl")


def _parse(content: bytes, name: str) -> list[Persona]:
    personas: dict[str, Persona] = {}
    for _, where, row in parse_rows(content, name):
        persona = _persona(row, where)
        if persona.id in personas:
            raise ValueError(f"{where}: id {persona.id!r} occurs twice; give each persona its own")
        personas[persona.id] = persona
    return list(personas.values())


def _persona(row: Mapping[str, Any], where: str) -> Persona:
    if missing := [name for name in FIELDS if name not in row]:
        raise ValueError(f"{where}: missing {', '.join(missing)}; fields are {', '.join(FIELDS)}")
    if unknown := [name for name in row if name not in FIELDS]:
        raise ValueError(
            f"{where}: unknown {', '.join(map(repr, unknown))}; fields are {', '.join(FIELDS)}"
        )
    for name in row:
        text_field(row, name, where)
    if row["split"] not in SPLITS:
        raise ValueError(f"{where}: split is {row['split']!r}; use one of {', '.join(SPLITS)}")
    if row["id"] == "none":
        raise ValueError(f"{where}: id 'none' stands for plain prompts in metrics; choose another")
    return Persona(**row)
