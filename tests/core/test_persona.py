import json

import pytest

from permix_jax.core.persona import FIELDS, Persona
from permix_jax.personas.bank import load_personas

PIRATE = Persona("pirate", "Pirate", "You are a pirate.", "fictional", "train")
NURSE = Persona("nurse", "Nurse", "You are “kind”.\u2028Nurse.", "profession", "heldout")


def row(persona):
    return {name: getattr(persona, name) for name in FIELDS}


def test_load_personas_reads_back_what_was_written(tmp_path):
    path = tmp_path / "bank.jsonl"
    rows = [json.dumps(row(persona), ensure_ascii=False) for persona in (PIRATE, NURSE)]
    path.write_text(f"{rows[0]}\r\n\n{rows[1]}\n", encoding="utf-8", newline="")
    assert load_personas(path) == [PIRATE, NURSE]
    assert {persona.placement for persona in load_personas(path)} == {"system"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"system_prompt": "  "}, "bank.jsonl:2: field 'system_prompt' is '  '; it must be text"),
        ({"system_prompt": 3}, "bank.jsonl:2: field 'system_prompt' is 3; it must be text"),
        ({"split": "test"}, "bank.jsonl:2: split is 'test'; use one of train, heldout, harmful"),
        ({"id": "pirate"}, "bank.jsonl:2: id 'pirate' occurs twice"),
        ({"id": "none"}, "bank.jsonl:2: id 'none' stands for plain prompts"),
        ({"placement": "user"}, "bank.jsonl:2: unknown 'placement'; fields are id, name"),
        ({"mood": "calm"}, "bank.jsonl:2: unknown 'mood'; fields are id, name, system_prompt"),
        ({"category": None}, "bank.jsonl:2: field 'category' is None; it must be text"),
    ],
)
def test_malformed_row_is_named(tmp_path, change, message):
    path = tmp_path / "bank.jsonl"
    path.write_text(f"{json.dumps(row(PIRATE))}\n{json.dumps(row(NURSE) | change)}\n")
    with pytest.raises(ValueError) as error:
        load_personas(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_row_that_lacks_fields_is_named(tmp_path):
    path = tmp_path / "bank.jsonl"
    path.write_text('{"id": "pirate", "split": "train"}')
    with pytest.raises(ValueError, match="missing name, system_prompt, category; fields"):
        load_personas(path)


def test_missing_file_is_named_with_the_remedy(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="absent.jsonl: no such persona file; name one in pers"
    ):
        load_personas(tmp_path / "absent.jsonl")
    with pytest.raises(FileNotFoundError, match="no such persona file"):
        load_personas(tmp_path)
