"""launch/grade.py: verdicts of a file's rows, bad input, interruption."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from commands import answer, executed
from runs import FULL, ROOT, needs_full_device

from permix_jax.app import grading
from permix_jax.app.grading import grade_file
from permix_jax.core.problem import Verdict

ROWS = [
    {"problem": "What is 2 + 3?", "gold": "5", "completion": "It is $\\boxed{5}$."},
    {"problem": "What is 2 + 3?", "gold": "5", "completion": "Two and three.\n#### 6"},
    {"problem": "What is 2 + 3?", "gold": "5", "answer": "5.0"},
    {"problem": "Simplify.", "gold": "\\frac{1}{2}", "answer": "\\frac{2}{4}"},
    {"problem": "What is 2 + 3?", "gold": "5", "completion": "It is 5."},
    {"problem": "What is 2 + 3?", "gold": "", "answer": "5"},
]
RIGHT = [True, False, True, True, False, None]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "rows.jsonl"


def write(file, rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def read(file):
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def rights(file):
    return [verdict["right"] for verdict in read(file)]


def numbers(count):
    """Rows that are right but for every third."""
    return [{"problem": "", "gold": str(n), "answer": str(n + (n % 3 == 0))} for n in range(count)]


# ---- verdicts ------------------------------------------------------------------------------------


def test_each_row_gets_a_verdict_in_order_and_kinds_are_counted(file):
    write(file, ROWS)
    out = file.with_name("verdicts.jsonl")
    said = executed(f"launch/grade.py --file={file} --out={out}")
    assert rights(out) == RIGHT
    assert [list(row) for row in read(out)] == [["right", "kind", "why", "row"]] * 6
    assert read(out)[5]["why"] == "the gold answer states nothing"
    assert [line.split() for line in said.splitlines()] == [
        ["kind", "right", "wrong", "null"],
        ["-", "0", "0", "1"],
        ["number", "3", "2", "0"],
        ["all", "3", "2", "1"],
        ["wrong:", "lines", "2,", "5"],
        ["null:", "lines", "6"],
    ]


def test_without_a_file_for_them_verdicts_are_printed(file, capsys):
    write(file, ROWS)
    said = executed(f"launch/grade.py --file={file} --last_number")
    assert [json.loads(line)["right"] for line in said.splitlines()] == [*RIGHT[:4], True, None]
    assert "all       4      1     1".split() == capsys.readouterr().err.splitlines()[-3].split()


def test_the_answer_is_looked_for_behind_thinking(file):
    texts = ["<think>\\boxed{5}</think> \\boxed{6}", "<think>\\boxed{6}</think> \\boxed{5}"]
    texts += ["<think>\\boxed{5}", "\\boxed{5}", "\\boxed{6}</think> \\boxed{5}"]
    write(file, [{"problem": "", "gold": "5", "completion": text} for text in texts])
    out = file.with_name("out")
    grade_file(file, out)
    assert rights(out) == [False, True, False, True, True]
    with pytest.raises(ValueError, match="out:1: the verdict of another row"):
        grade_file(file, out, thinking_end="")
    printed = executed(f"launch/grade.py --file={file} --thinking_end=")
    assert [json.loads(line)["right"] for line in printed.splitlines()] == [False, *[True] * 4]
    printed = executed(f"launch/grade.py --file={file} --thinking_begun")
    verdicts = [json.loads(line) for line in printed.splitlines()]
    assert [each["right"] for each in verdicts] == [False, True, False, False, True]
    assert verdicts[3]["why"] == "no answer is stated"
    with pytest.raises(
        ValueError, match="rewards.thinking_end is 'end'; use a text with one slash"
    ):
        grade_file(file, thinking_end="end")


def test_a_summary_names_lines_of_the_file_and_not_all_of_many(file):
    write(file, numbers(40))
    file.write_text("\n\n" + file.read_text())
    said = grade_file(file, file.with_name("out"))
    assert said.splitlines()[-1] == "wrong: lines 3, 6, 9, 12, 15, 18, 21, 24, 27, 30 and 4 more"


def test_gzip_is_read(file):
    packed = file.with_name("rows.jsonl.gz")
    write(file, ROWS)
    packed.write_bytes(gzip.compress(file.read_bytes(), mtime=0))
    grade_file(packed, file.with_name("out"))
    assert rights(file.with_name("out")) == RIGHT


def test_long_texts_are_graded(file):
    long = "x^{2}+\\frac{1}{" * 70_000
    write(
        file,
        [
            {"problem": long, "gold": "5", "completion": long + "\\boxed{5}"},
            {"problem": "", "gold": "5", "completion": "\\boxed{" * 150_000 + "5"},
            {"problem": "", "gold": "5", "answer": long},
            {"problem": "", "gold": "5", "answer": "5" * 1_000_000},
            {"problem": "", "gold": long, "answer": long},
        ],
    )
    grade_file(file, file.with_name("out"))
    assert rights(file.with_name("out")) == [True, False, False, False, True]


def test_the_example_in_the_docs(file):
    page = (ROOT / "docs/rewards.md").read_text("utf-8")
    row, verdict = map(json.loads, re.findall(r"```json\n(.*)\n```", page))
    write(file, [row])
    grade_file(file, file.with_name("out"))
    (given,) = read(file.with_name("out"))
    assert given == verdict


# ---- interruption --------------------------------------------------------------------------------


@pytest.fixture
def interrupted(file, monkeypatch):
    """Grades a file of 20 rows in batches of 4 and is interrupted at the 10th; returns `out`."""

    def explain(answer, gold, prompt):
        if gold == "9":
            raise KeyboardInterrupt
        return Verdict(float(answer == gold), "number", "")

    out = file.with_name("out")
    monkeypatch.setattr(grading, "BATCH", 4)
    write(file, numbers(20))
    with monkeypatch.context() as patch:
        patch.setattr(grading, "explain", explain)
        with pytest.raises(KeyboardInterrupt):
            grade_file(file, out)
    monkeypatch.setattr(
        grading, "explain", lambda a, gold, prompt: Verdict(float(a == gold), "number", "again")
    )
    return out


@pytest.mark.parametrize("torn", ["", '{"right": tr'])
def test_what_is_graded_is_kept_and_the_same_command_goes_on(file, interrupted, torn):
    assert len(read(interrupted)) == 8
    interrupted.write_text(interrupted.read_text() + torn)
    said = grade_file(file, interrupted)
    assert [verdict["why"] for verdict in read(interrupted)] == [""] * 8 + ["again"] * 12
    assert rights(interrupted) == [n % 3 != 0 for n in range(20)]
    assert said.splitlines()[-2].split() == ["all", "13", "7", "0"]
    assert grade_file(file, interrupted) == said  # nothing is left to do


def test_rows_may_be_added(file, interrupted):
    write(file, numbers(22))
    grade_file(file, interrupted)
    assert rights(interrupted) == [n % 3 != 0 for n in range(22)]


@pytest.mark.parametrize(
    "change", [{"gold": "6"}, {"answer": "6"}, {"problem": "Why?"}, {"completion": "5"}]
)
def test_verdicts_of_changed_rows_are_refused(file, interrupted, change):
    rows, before = numbers(20), interrupted.read_bytes()
    rows[5] |= change
    if "completion" in change:
        del rows[5]["answer"]
    write(file, rows)
    message = f"{interrupted}:6: the verdict of another row than {file}:6 now has; name another"
    assert_refused(file, interrupted, message)
    assert interrupted.read_bytes() == before


def test_verdicts_of_another_option_are_refused(file, interrupted):
    with pytest.raises(ValueError, match="out:1: the verdict of another row"):
        grade_file(file, interrupted, last_number=True)


def test_verdicts_of_a_longer_file_are_refused(file, interrupted):
    write(file, numbers(3))
    assert_refused(file, interrupted, f"{interrupted}:4: {file} has 3 rows and no such one; name")


@pytest.mark.parametrize("line", ["5", '{"right": true}', "text", '{"gold": "5", "answer": "5"}'])
def test_a_file_of_something_else_is_left_alone(file, line):
    write(file, ROWS)
    out = file.with_name("out")
    out.write_text(line + "\n")
    assert_refused(file, out, f"{out}:1: not a verdict of this command; name another --out")
    assert out.read_text() == line + "\n"
    assert_refused(file, file, f"{file}:1: not a verdict of this command; name another --out")
    assert read(file) == ROWS


def test_ctrl_c_ends_the_command_with_whole_lines_and_without_a_traceback(file):
    """It comes while the second batch is graded."""
    rows = [{"problem": "", "gold": "5", "answer": "5"}] * grading.BATCH
    write(file, [*rows, {"problem": "", "gold": "hang", "answer": "5"}])
    out = file.with_name("out")
    program = f"""
import runpy, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's `&` may have it ignored
from permix_jax.app import grading
exact = grading.explain
def explain(answer, gold, prompt):
    if gold == "hang":
        print("asked", file=sys.stderr, flush=True)
        signal.pause()
    return exact(answer, gold, prompt)
grading.explain = explain
sys.argv = ["grade.py", "--file={file}", "--out={out}"]
runpy.run_path({str(ROOT / "launch/grade.py")!r}, run_name="__main__")
"""
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        assert process.stderr.readline() == "asked\n"
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate()
    kept = "what was done is saved, and the same command goes on from there"
    assert (process.returncode, said, errors) == (130, f"stopped; {kept}\n", "")
    assert rights(out) == [True] * grading.BATCH


# ---- bad input -----------------------------------------------------------------------------------


def assert_refused(file, out, message):
    with pytest.raises(SystemExit) as ended:
        executed(f"launch/grade.py --file={file} --out={out}")
    said = ended.value.code
    assert said.startswith(f"error: {message}") and "\n" not in said, said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": the file is empty; write one JSON object a line"),
        (b'{"gold": "5", "answer": "5"', ":1: not a JSON object ("),
        (b'\n["5"]', ":2: not a JSON object but list"),
        ('{"gold": "½"}'.encode("latin-1"), ":1: not a JSON object: the text is not UTF-8"),
        ('{"gold": "5"}'.encode("utf-16"), ": the text is in UTF-16, or no text; save the file as"),
        (b'{"gold": "5", "answer": "5"}', ":1: there is no field 'problem', only 'gold', 'answer'"),
        (b'{"problem": "", "answer": "5"}', ":1: there is no field 'gold', only 'problem', 'answ"),
        (
            b'{"problem": "", "gold": "5", "response": "5"}',
            ":1: there is no field 'completion', nor 'answer', only 'problem', 'gold', 'response'; "
            "add one, or rename the field that has it",
        ),
        (
            b'{"problem": "", "gold": "5", "answer": "5", "completion": "5"}',
            ":1: fields 'completion' and 'answer' are both there; leave one out",
        ),
        (
            b'{"problem": "", "gold": 5, "answer": "5"}',
            ":1: field 'gold' is 5; write it as text, in quotes",
        ),
        (b'{"problem": "", "gold": "5", "answer": null}', ":1: field 'answer' is None; write it"),
        (b'{"problem": [], "gold": "5", "answer": "5"}', ":1: field 'problem' is []; write it as"),
        (b'{"problem": "", "gold": "\\ud83d", "answer": ""}', ":1: field 'gold' holds '\\ud83d'"),
    ],
)
def test_a_bad_row_is_refused_before_anything_is_written(file, content, message):
    file.write_bytes(content)
    assert_refused(file, file.with_name("out"), f"{file}{message}")
    assert not file.with_name("out").exists()


def test_files_that_cannot_be_read_or_written(file):
    assert_refused(file, "out", f"{file}: no such file; name a file with one JSON object a line")
    assert_refused(file.parent, "out", f"{file.parent}: a folder, not a file; name a file with")
    write(file, ROWS)
    assert_refused(file, file.parent, f"--out={file.parent}: a folder; name a file, such as")
    assert_refused(file, "v.gz", "--out=v.gz: verdicts are not compressed; name a file, such as")


@needs_full_device
def test_a_full_disk_is_said(file):
    write(file, ROWS)
    assert_refused(file, FULL, "[Errno 28] No space left on device; what is finished is kept")


def test_a_file_to_train_on_is_graded_as_it_is(file):
    """Solutions against answers; without a solution that states one, the answer against itself."""
    write(file, [
        {"prompt": "2 + 3?", "answer": "5", "solution": "2 + 3 = 5, so \\boxed{5}."},
        {"prompt": "2 + 3?", "answer": "6", "solution": "2 + 3 = 5\n#### 5"},
        {"prompt": "2 + 3?", "answer": "5", "solution": "Count."},
        {"prompt": "2 + 3?", "answer": ""},
    ])  # fmt: skip
    out = file.with_name("verdicts.jsonl")
    grade_file(file, out)
    assert rights(out) == [True, False, True, None]


def test_options_that_cannot_be():
    assert answer("launch/grade.py") == (
        "error: the following arguments are required: --file (--help says more)"
    )
    assert answer("launch/grade.py --fil=x") == (
        "error: --fil: there is no such option; did you mean --file? (--help says more)"
    )
    assert answer("launch/grade.py --file=x --workers=2") == (
        "error: --workers: there is no such option (--help says more)"
    )
