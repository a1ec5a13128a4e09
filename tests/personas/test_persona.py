import json
from collections import Counter
from dataclasses import asdict

import pytest

from permix_jax.personas.persona import Persona, default_bank, load_personas

PIRATE = Persona("pirate", "Pirate", "You are a pirate.", "fictional", "train")
NURSE = Persona("nurse", "Nurse", "You are “kind”.\u2028Nurse.", "profession", "heldout")


def test_load_personas_reads_back_what_was_written(tmp_path):
    path = tmp_path / "bank.jsonl"
    rows = [json.dumps(asdict(persona), ensure_ascii=False) for persona in (PIRATE, NURSE)]
    path.write_text(f"{rows[0]}\r\n\n{rows[1]}\n", encoding="utf-8", newline="")
    assert load_personas(path) == [PIRATE, NURSE]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"system_prompt": "  "}, "bank.jsonl:2: system_prompt is '  '"),
        ({"system_prompt": 3}, "bank.jsonl:2: system_prompt is 3"),
        ({"split": "test"}, "bank.jsonl:2: split is 'test'; it must be train or heldout"),
        ({"id": "pirate"}, "bank.jsonl:2: id 'pirate' occurs twice"),
        ({"id": "none"}, "bank.jsonl:2: id 'none' stands for plain prompts"),
        ({"mood": "calm"}, "bank.jsonl:2: unknown 'mood'; fields are id, name, system_prompt"),
        ({"category": None}, "bank.jsonl:2: category is None"),
    ],
)
def test_malformed_row_is_named(tmp_path, change, message):
    path = tmp_path / "bank.jsonl"
    path.write_text(f"{json.dumps(asdict(PIRATE))}\n{json.dumps(asdict(NURSE) | change)}\n")
    with pytest.raises(ValueError) as error:
        load_personas(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "pirate"', "bank.jsonl:1: not a JSON object"),
        (b'{"id": "\xff"}', "bank.jsonl:1: not a JSON object"),
        (b"[" * 100_000, "bank.jsonl:1: not a JSON object"),
        (b'["pirate"]', "bank.jsonl:1: a JSON list"),
        (b'{"id": "pirate", "split": "train"}', "missing name, system_prompt, category; fields"),
        (b"\n \n", "bank.jsonl: no personas; write one JSON object a line with id, name"),
    ],
)
def test_malformed_file_is_named(tmp_path, line, message):
    path = tmp_path / "bank.jsonl"
    path.write_bytes(line)
    with pytest.raises(ValueError) as error:
        load_personas(path)
    assert message in str(error.value)


def test_missing_file_is_named_with_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match="absent.jsonl: no such persona file; write one"):
        load_personas(tmp_path / "absent.jsonl")
    with pytest.raises(FileNotFoundError, match="no such persona file"):
        load_personas(tmp_path)


def test_default_bank_is_fit_for_training_and_for_measuring_generalisation():
    bank = default_bank()
    assert Counter(persona.split for persona in bank) == {"train": 24, "heldout": 8}
    trained = {persona.category for persona in bank if persona.split == "train"}
    held_out = {persona.category for persona in bank if persona.split == "heldout"}
    assert len(held_out - trained) == 2
    assert len({persona.system_prompt for persona in bank}) == len(bank)
    assert all(persona.system_prompt.startswith("You are ") for persona in bank)
    assert all(len(persona.system_prompt.split()) <= 30 for persona in bank)
