import gzip
import io
import json
import re
import tarfile

import pytest

from permix_jax.tasks.datasets.math_archive import join, problem_files

ROOT = "agents-e8c4/src/agents/datasets/data/math"


def problem(text, solution):
    # In another order than that of the joined rows, and with a field that those do not have.
    return {"solution": solution, "type": "Algebra", "level": "Level 2", "problem": text, "x": 1}


FILES = {
    f"{ROOT}/train/algebra/10.json": problem("Ten?", r"\boxed{1} or $\boxed{\frac{1}{2}}$"),
    f"{ROOT}/train/algebra/9.json": problem("Nine: ½?", r"$\boxed 9$"),
    f"{ROOT}/test/algebra/9.json": problem("Test?", r"\boxed{ 9 }"),
    f"{ROOT}/test/geometry/1.json": problem("Other?", r"\boxed{8}"),
    f"{ROOT}/train/geometry/1.json": problem("Empty?", r"\boxed{}"),
}


def pack(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


@pytest.fixture
def archive(tmp_path):
    others = {"agents-e8c4/README.md": b"no problem", f"{ROOT}/train/algebra/notes.txt": b"no"}
    problems = {name: json.dumps(content).encode() for name, content in FILES.items()}
    return pack(tmp_path / "agents.tar.gz", others | problems)


def test_joins_the_problems_of_a_split_in_the_order_of_their_numbers(archive):
    lines = join(problem_files(archive), "train").decode().splitlines()
    assert [json.loads(line)["unique_id"] for line in lines] == [
        "train/algebra/9.json", "train/algebra/10.json"
    ]  # fmt: skip
    assert lines[0] == (
        '{"problem": "Nine: ½?", "level": "Level 2", "type": "Algebra", "solution": '
        '"$\\\\boxed 9$", "answer": "9", "unique_id": "train/algebra/9.json"}'
    )
    assert json.loads(lines[1])["answer"] == r"\frac{1}{2}"
    assert json.loads(join(problem_files(archive), "test").splitlines()[0])["answer"] == " 9 "


def test_leaves_out_what_the_other_set_has(archive):
    joined = join(problem_files(archive), "test", {"test/algebra/9.json"})
    assert [json.loads(line)["unique_id"] for line in joined.splitlines()] == [
        "test/geometry/1.json"
    ]


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"problem": "a"}', b"\xff"])
def test_a_file_that_is_no_problem_is_named(content):
    path = f"{ROOT}/train/algebra/1.json"
    with pytest.raises(ValueError, match=f"{re.escape(path)}: no problem of MATH"):
        join([(path, content)], "train")


@pytest.mark.parametrize("content", [b"", b"not a gzip file", gzip.compress(b"no tar", mtime=0)])
def test_what_is_no_archive_is_refused(tmp_path, content):
    (tmp_path / "broken").write_bytes(content)
    with pytest.raises((tarfile.TarError, EOFError, OSError)):
        list(problem_files(tmp_path / "broken"))


def test_half_an_archive_is_refused(archive):
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises((tarfile.TarError, EOFError, OSError)):
        list(problem_files(archive))
