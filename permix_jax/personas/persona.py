"""Persona: who the model is asked to be, and the JSONL files they are kept in."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib import resources
from pathlib import Path

SPLITS = ("train", "heldout")


@dataclass(frozen=True)
class Persona:
    """A persona; `split` is "train" (RL may draw it) or "heldout" (evaluation only)."""

    id: str
    name: str
    system_prompt: str
    category: str
    split: str


FIELDS = tuple(field.name for field in fields(Persona))


def load_personas(path: str | Path) -> list[Persona]:
    """Reads a JSON Lines file, one object with exactly the fields of `Persona` a line.

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
    """The personas that come with the package: 24 for training, 8 held out."""
    return _parse((resources.files(__package__) / "bank.jsonl").read_bytes(), "bank.jsonl")


def _parse(content: bytes, name: str) -> list[Persona]:
    personas: dict[str, Persona] = {}
    for where, persona in _rows(content, name):
        if persona.id in personas:
            raise ValueError(f"{where}: id {persona.id!r} occurs twice; give each persona its own")
        personas[persona.id] = persona
    if not personas:
        raise ValueError(
            f"{name}: no personas; write one JSON object a line with {', '.join(FIELDS)}"
        )
    return list(personas.values())


def _rows(content: bytes, name: str) -> Iterator[tuple[str, Persona]]:
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            where = f"{name}:{number}"
            yield where, _persona(line, where)


def _persona(line: bytes, where: str) -> Persona:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: not a JSON object ({error})") from None
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a JSON {type(row).__name__}; every line must be an object")
    if missing := [name for name in FIELDS if name not in row]:
        raise ValueError(f"{where}: missing {', '.join(missing)}; fields are {', '.join(FIELDS)}")
    if unknown := [name for name in row if name not in FIELDS]:
        raise ValueError(
            f"{where}: unknown {', '.join(map(repr, unknown))}; fields are {', '.join(FIELDS)}"
        )
    for name, value in row.items():
        if not isinstance(value, str) or not value.strip():
            raise ValueError(f"{where}: {name} is {value!r}; it must be a string that is not empty")
    if row["split"] not in SPLITS:
        raise ValueError(f"{where}: split is {row['split']!r}; it must be {' or '.join(SPLITS)}")
    if row["id"] == "none":
        raise ValueError(f"{where}: id 'none' stands for plain prompts in metrics; choose another")
    return Persona(**row)
