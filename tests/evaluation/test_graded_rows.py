import errno
import json
import os

import pytest

from permix_jax.evaluation.graded_rows import GradedRows, Key, claim_folder

KEYS = [Key("problems", f"q{i}", persona, 0) for persona in (None, "poet") for i in range(4)]
BATCHES = [KEYS[:3], KEYS[3:6], KEYS[6:]]


def row(number: int, **fields) -> dict:
    return {**KEYS[number]._asdict(), "completion": f"é {number}", **fields}


def write(path, count: int) -> None:
    with GradedRows(path, BATCHES) as log:
        for number in range(len(log.rows), count):
            log.append([row(number)])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "eval" / "completions.jsonl"


@pytest.mark.parametrize(("written", "kept"), [(0, 0), (2, 0), (3, 3), (5, 3), (7, 6), (8, 8)])
def test_rows_come_back_but_for_those_of_a_batch_that_is_not_whole(path, written, kept):
    write(path, written)
    with GradedRows(path, BATCHES) as log:
        assert log.rows == [row(number) for number in range(kept)] and log.total == 8
    assert [json.loads(line) for line in path.read_text().splitlines()] == log.rows


def test_a_line_cut_off_anywhere_costs_its_batch_alone(path):
    write(path, 8)
    whole = path.read_bytes()
    sixth = sum(map(len, whole.splitlines(keepends=True)[:6]))
    for cut in range(sixth, len(whole)):
        path.write_bytes(whole[:cut])
        with GradedRows(path, BATCHES) as log:
            assert len(log.rows) == 6
        write(path, 8)
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"task": "problems", "prob', "completions.jsonl:2: not a row of an evaluation"),
        ("[1, 2]", "completions.jsonl:2: not a row of an evaluation"),
        ('{"task": "problems"}', "completions.jsonl:2: not a row of an evaluation"),
        (json.dumps(row(4)), r"completions.jsonl:2: \('problems', 'q0', 'poet', 0\) is not the"),
    ],
)
def test_a_wrong_line_in_the_middle_is_named_and_nothing_is_lost(path, line, message):
    write(path, 3)
    lines = path.read_text().splitlines()
    lines[1] = line
    path.write_text("\n".join(lines) + "\n")
    before = path.read_bytes()
    with pytest.raises(ValueError, match=message):
        GradedRows(path, BATCHES)
    assert path.read_bytes() == before


def test_rows_of_a_longer_evaluation_are_refused(path):
    write(path, 8)
    with pytest.raises(ValueError, match="completions.jsonl:5: .* name another --out"):
        GradedRows(path, [KEYS[:4]])


def test_rows_that_are_not_the_next_ones_are_not_written(path):
    with GradedRows(path, BATCHES) as log:
        log.append([row(0)])
        with pytest.raises(ValueError, match="out of order after row 1"):
            log.append([row(2)])
    assert len(path.read_text().splitlines()) == 1


def test_a_full_disk_keeps_what_was_written(path, monkeypatch):
    write(path, 3)

    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, GradedRows(path, BATCHES) as log:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left.*what is finished is kept.*jsonl"):
            log.append([row(number) for number in (3, 4, 5)])
    write(path, 8)
    with GradedRows(path, BATCHES) as log:
        assert log.rows == [row(number) for number in range(8)]


def test_a_folder_is_claimed_once(tmp_path):
    folder = tmp_path / "eval"
    claim_folder(folder, {"policy": {"step": 3}, "prompts_sha256": "a"})
    claim_folder(folder, {"policy": {"step": 3}, "prompts_sha256": "a"})
    with pytest.raises(ValueError, match=r"another evaluation \(policy.step: 4 instead of 3\); "):
        claim_folder(folder, {"policy": {"step": 4}, "prompts_sha256": "b"})
    with pytest.raises(ValueError, match=r"\(prompts_sha256: 'b' instead of 'a'\)"):
        claim_folder(folder, {"policy": {"step": 3}, "prompts_sha256": "b"})
    (folder / "evaluation.json").write_text("{")
    with pytest.raises(ValueError, match="evaluation.json:1: not JSON"):
        claim_folder(folder, {})


def test_completions_of_unknown_origin_are_refused(tmp_path):
    (tmp_path / "completions.jsonl").write_text("")
    with pytest.raises(ValueError, match="no evaluation.json to say what they are of"):
        claim_folder(tmp_path, {})
