"""A disk that is full, by the device that always is."""

import json
import os

import pytest
from runs import FULL, needs_full_device

from permix_jax.core.files import append, write_json


@needs_full_device
def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "summary.json"
    write_json(path, {"n": 1})
    os.symlink(FULL, tmp_path / "summary.json.partial")
    with pytest.raises(OSError, match="No space left on device; what is finished is kept") as full:
        write_json(path, {"n": 2})
    assert full.value.filename == str(path) and "\n" not in str(full.value)
    assert json.loads(path.read_text()) == {"n": 1}


@needs_full_device
def test_an_append_to_a_full_disk_is_told_once(tmp_path):
    """Closing the file afterwards raises nothing more."""
    os.symlink(FULL, tmp_path / "rows.jsonl")
    with (tmp_path / "rows.jsonl").open("ab", buffering=0) as file:
        with pytest.raises(OSError, match="No space left on device; .*rows.jsonl"):
            append(file, b"row\n")


def test_what_is_appended_is_there_before_the_file_is_closed(tmp_path):
    path = tmp_path / "rows.jsonl"
    with path.open("ab", buffering=0) as file:
        append(file, b"one\n")
        append(file, b"two\n")
        assert path.read_bytes() == b"one\ntwo\n"
