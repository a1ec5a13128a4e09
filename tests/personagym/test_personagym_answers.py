import json

import pytest

from permix_jax.personagym.benchmark import Answer, read_answers

ROW = {"id": "1", "persona": "A nun", "task": "Wit", "question": "Why?", "response": "{persona}"}


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_rows_come_back_as_they_were_written(tmp_path):
    answers = [Answer(**ROW), Answer(**ROW | {"id": "2", "response": ""})]
    path = write(tmp_path / "a.jsonl", *(answer._asdict() | {"sample": 0} for answer in answers))
    assert read_answers(path, ["Wit"]) == answers


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "a.jsonl: the file is empty"),
        ([ROW, ROW], "a.jsonl:2: id '1' is that of line 1 too"),
        ([ROW | {"task": "Toxicity"}], "a.jsonl:1: task 'Toxicity' has no rubric; use .'Wit'."),
        ([ROW | {"response": None}], "a.jsonl:1: field 'response' is None"),
        ([ROW | {"question": " "}], "a.jsonl:1: field 'question' is ' '"),
        ([[1]], "a.jsonl:1: not a JSON object"),
    ],
)
def test_a_bad_row_is_named_with_its_line(tmp_path, rows, message):
    with pytest.raises(ValueError, match=message):
        read_answers(write(tmp_path / "a.jsonl", *rows), ["Wit"])


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; write the policy's answers first"):
        read_answers(tmp_path / "a.jsonl", ["Wit"])
