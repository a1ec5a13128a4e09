"""Reads personas from JSON Lines: the bank of the package, or a user's file."""

from importlib import resources
from pathlib import Path

from permix_jax.core.json_lines import parse_rows, text_field
from permix_jax.core.persona import FIELDS, SPLITS, Persona


def load_personas(path: str | Path) -> list[Persona]:
    """Reads a JSON Lines file whose objects have exactly the FIELDS of a `Persona`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is empty, or a line is malformed (the message names file:line).
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path}: no such persona file; name one in personas.file, with one JSON object a line "
            f"of {', '.join(FIELDS)}"
        )
    return _parse(path.read_bytes(), str(path))


def default_bank() -> list[Persona]:
    """The package's personas of all splits; docs/personas.md counts them."""
    return _parse((resources.files(__package__) / "bank.jsonl").read_bytes(), "bank.jsonl")


def _parse(content: bytes, name: str) -> list[Persona]:
    personas, fields = {}, f"fields are {', '.join(FIELDS)}"
    for _, where, row in parse_rows(content, name):
        if missing := [field for field in FIELDS if field not in row]:
            raise ValueError(f"{where}: missing {', '.join(missing)}; {fields}")
        if unknown := [field for field in row if field not in FIELDS]:
            raise ValueError(f"{where}: unknown {', '.join(map(repr, unknown))}; {fields}")
        persona = Persona(**{field: text_field(row, field, where) for field in row})
        if persona.split not in SPLITS:
            raise ValueError(f"{where}: split is {persona.split!r}; use one of {', '.join(SPLITS)}")
        if persona.id == "none":
            raise ValueError(
                f"{where}: id 'none' stands for plain prompts in metrics; choose another"
            )
        if persona.id in personas:
            raise ValueError(f"{where}: id {persona.id!r} occurs twice; give each persona its own")
        personas[persona.id] = persona
    return list(personas.values())
