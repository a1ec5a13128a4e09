"""Rows of JSON Lines files, and what is said of files that hold none."""

import gzip
import json

import pytest

from permix_jax.core.json_lines import parse_rows, read_rows
from permix_jax.personagym.benchmark import load_benchmark
from permix_jax.personagym.judges import read_judges
from permix_jax.personas.bank import load_personas
from permix_jax.tasks.datasets.load import load_problems
from permix_jax.train.rehearsal import rehearsal_prompts

HALF = "one half of a surrogate pair; write the whole character, or leave it out"
NOT_UTF_8 = r"x.jsonl:1: not a JSON object: the text is not UTF-8 \(invalid .*\); save .* as UTF-8"
CUT_OFF = gzip.compress(b'{"a": 1}', mtime=0)[:-3]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def rows_of(content: bytes, name: str = "x.jsonl") -> list[dict]:
    return [row for _, _, row in parse_rows(content, name)]


def test_a_byte_order_mark_windows_line_ends_and_blank_lines_are_no_part_of_rows():
    content = b'\xef\xbb\xbf\r\n{"a": "1"}\r\n\r\n{"a": "2"}'
    rows = [(2, "x.jsonl:2", {"a": "1"}), (4, "x.jsonl:4", {"a": "2"})]
    assert list(parse_rows(content, "x.jsonl")) == rows


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.jsonl"])
def test_gzip_is_known_by_its_content(name):
    assert rows_of(gzip.compress(b'{"a": 1}\n', mtime=0), name) == [{"a": 1}]


def test_a_whole_surrogate_pair_and_a_zero_character_are_text():
    assert rows_of(rb'{"a": "\ud83d\ude00\u0000"}') == [{"a": "\U0001f600\0"}]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (rb'{"prompt": "two \ud83d"}', rf"x.jsonl:1: field 'prompt' holds '\\ud83d', {HALF}"),
        (b"{}\n" + rb'{"a": [{"b": "\udc00"}]}', rf"x.jsonl:2: field 'a' holds '\\udc00', {HALF}"),
        (rb'{"\ud83d": 1}', rf"x.jsonl:1: field '\\ud83d' holds '\\ud83d', {HALF}"),
        (b'{"a": "\xff"}', NOT_UTF_8),
        (b'{"a": "\xed\xa0\xbd"}', NOT_UTF_8),
        ('{"a": 1}'.encode("utf-16"), "x.jsonl: the text is in UTF-16, .* as UTF-8"),
        ('{"a": 1}'.encode("utf-16-be"), "x.jsonl: the text is in UTF-16, .* as UTF-8"),
        (b'{"a": 1}\n[2]', "x.jsonl:2: not a JSON object but list; write one JSON object a line"),
        (b'{"a": ' + b"[" * 10**5, r"x.jsonl:1: not a JSON object \(maximum recursion .*"),
        (b'{"a": ' + b"1" * 5000 + b"}", r"x.jsonl:1: not a JSON object \(Exceeds the limit .*"),
        (b" \r\n", "x.jsonl: the file is empty; write one JSON object a line"),
        (b"\xef\xbb\xbf", "x.jsonl: the file is empty; write one JSON object a line"),
        (CUT_OFF, r"x.jsonl: not a whole gzip file \(.*\); fetch it again"),
        (POINTER, "x.jsonl: a Git LFS pointer in place of the file; run 'git lfs pull' in its .*"),
    ],
)
def test_what_holds_no_rows_is_one_line_with_the_place(content, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        rows_of(content)


def test_a_folder_in_place_of_a_file_is_said(tmp_path):
    remedy = "name a file with one JSON object a line"
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}: a folder, not a file; {remedy}$"):
        read_rows(tmp_path)
    with pytest.raises(FileNotFoundError, match=f"^{tmp_path}/x: no such file; {remedy}$"):
        read_rows(tmp_path / "x")


def read_questions(path):
    benchmark = path.parent / "benchmark"
    benchmark.mkdir()
    rubric = "{score_example} {persona} {question} {response}"
    example = "{persona} {question} {rubric}"
    rows = [{"path": "prompts/rubric_grading/sys_prompt.txt", "text": "Be fair."}]
    rows += [{"path": "prompts/score_examples/prompt.txt", "text": example}]
    (benchmark / "rubrics.jsonl").write_text(json.dumps({"task": "T", "rubric": rubric}))
    (benchmark / "prompts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    path.rename(benchmark / "benchmark_v1.jsonl")
    load_benchmark(str(benchmark), benchmark)


PERSONA = {"id": "p", "name": "P", "category": "c", "split": "train"}


@pytest.mark.parametrize(
    ("read", "row", "field"),
    [
        (lambda path: load_problems(str(path), "", path.parent), {"answer": "4"}, "prompt"),
        (lambda path: load_problems(str(path), "", path.parent), {"prompt": "?"}, "solution"),
        (load_personas, PERSONA, "system_prompt"),
        (lambda path: rehearsal_prompts(str(path), None), {}, "prompt"),
        (read_judges, {"name": "j", "base_url": "http://x"}, "model"),
        (read_questions, {"persona": "a pirate"}, "T"),
    ],
    ids=["problem", "solution", "persona", "rehearsal", "judge", "question"],
)
def test_half_a_character_is_named_by_every_reader_of_users_files(tmp_path, read, row, field):
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({**row, field: "cut off \ud83d"}))
    with pytest.raises(ValueError, match=rf"{path.name[-5:]}:1: field '{field}' .* {HALF}$"):
        read(path)
