import gzip
import hashlib
import io
import json
import re
import socket
import tarfile
from contextlib import closing
from dataclasses import replace

import pytest
import tensorflow_datasets as tfds
from file_server import serve
from small_data import MATH, MATH500, MATH_TEST, MAWPS, jsonl

from permix_jax.tasks.datasets import builders
from permix_jax.tasks.datasets.builders import download, join, url_infos
from permix_jax.tasks.datasets.catalogue import DATASETS, SourceFile
from permix_jax.tasks.datasets.load import load_problems

ROOT = "agents-1/src/agents/datasets/data/math"


@pytest.fixture
def server():
    with serve({}) as running:
        yield running


def source(server, path, content, **archive):
    sha256 = hashlib.sha256(content).hexdigest()
    return SourceFile(f"data/{path}", f"{server.home}/{path}", sha256, len(content), **archive)


def fetch(files, folder):
    """What `download` gives for files of the data set "some"."""
    manager = tfds.download.DownloadManager(download_dir=folder, url_infos=url_infos(files))
    return [content for _, content in download(files, manager, "some")]


def pack(files):
    """A .tar.gz of the files, path -> content, and of two that are no problems."""
    packed = io.BytesIO()
    others = {"agents-1/README.md": b"no problem", f"{ROOT}/train/algebra/notes.txt": b"no"}
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        for name, content in (others | files).items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def archive(rows):
    """The archive that rows of MATH or MATH500 are joined from."""
    files = {}
    for row in rows:
        problem = {
            "level": f"Level {str(row['level']).removeprefix('Level ')}",
            "type": row.get("type") or row["subject"],
            "solution": row["solution"],
            "problem": row["problem"],
        }
        files[f"{ROOT}/{row['unique_id']}"] = json.dumps(problem).encode()
    return pack(files)


def test_archived_problems_are_joined_and_files_are_fetched_once(server, tmp_path):
    train, left, math500 = MATH[::-1], MATH_TEST, MATH500
    server.files["math.tar.gz"] = archive([*train, *left, *math500])
    server.files["math500.jsonl"] = jsonl(math500)
    tested = source(server, "math500.jsonl", jsonl(math500))
    files = [
        source(server, "math.tar.gz", content, archived=split, without=without)
        for split, content, without in (("train", jsonl(MATH), None), ("test", jsonl(left), tested))
    ]
    assert fetch(files, tmp_path) == [jsonl(MATH), jsonl(left)]
    server.files.clear()
    assert fetch(files, tmp_path) == [jsonl(MATH), jsonl(left)]


@pytest.mark.parametrize(
    ("there", "reason"), [({}, "404"), ({"a.jsonl": b"other"}, "not the file of this checksum")]
)
def test_a_file_that_cannot_be_had_is_named_with_the_remedy(server, tmp_path, there, reason):
    file = source(server, "a.jsonl", b"content")
    server.files |= there
    with pytest.raises(ValueError) as error:
        fetch([file], tmp_path)
    message = str(error.value)
    assert message.startswith(f"some: cannot download {file.url} (") and reason in message
    assert message.endswith(
        "put data/a.jsonl into a local folder and name that folder in data.folder"
    )
    assert "\n" not in message
    server.files["a.jsonl"] = b"content"
    assert fetch([file], tmp_path) == [b"content"]


@pytest.mark.parametrize(
    "there",
    [b"no archive", archive(MATH[:1]), archive(MATH)[:300], gzip.compress(b"no tar", mtime=0)],
    ids=["no archive", "another archive", "half an archive", "no tar"],
)
def test_an_archive_of_other_content_is_named_and_fetched_again(server, tmp_path, there):
    file = source(server, "math.tar.gz", jsonl(MATH), archived="train")
    server.files["math.tar.gz"] = there
    with pytest.raises(ValueError, match=r"^some: cannot download http.*data\.folder$"):
        fetch([file], tmp_path)
    server.files["math.tar.gz"] = archive(MATH)
    assert fetch([file], tmp_path) == [jsonl(MATH)]


def test_no_network_is_one_line(tmp_path):
    with closing(socket.socket()) as unused:
        unused.bind(("127.0.0.1", 0))  # nobody listens
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/a.jsonl"
        with pytest.raises(ValueError) as error:
            fetch([SourceFile("data/a.jsonl", url, "0" * 64, 1)], tmp_path)
    assert str(error.value).startswith(f"some: cannot download {url} (ConnectionError: ")
    assert "\n" not in str(error.value) and len(str(error.value)) < 600


def downloaded_from(monkeypatch, name, files):
    """Within the test, the data set `name` has these files."""
    monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], files=files))
    monkeypatch.setattr(builders.ProblemSet, "url_infos", url_infos(files))


def test_a_data_set_without_a_folder_is_downloaded_and_built(server, tmp_path, monkeypatch, capfd):
    content = jsonl(MAWPS)
    server.files["mawps.jsonl"] = content
    file = source(server, "mawps.jsonl", content)
    downloaded_from(monkeypatch, "mawps", (file,))
    problems = load_problems("mawps", "", tmp_path / "cache")
    assert [problem.answer for problem in problems] == ["43", "1/3", "43", "5", "6", "1.84"]
    shown = capfd.readouterr()
    assert shown.out == "" and "Dl Completed" in shown.err and "Generating" not in shown.err
    server.files.clear()
    assert load_problems("mawps", "", tmp_path / "cache") == problems
    # The same content in a folder is the same data set.
    (tmp_path / "mawps.jsonl").write_bytes(content)
    downloaded_from(monkeypatch, "mawps", (replace(file, path="mawps.jsonl"),))
    assert load_problems("mawps", str(tmp_path), tmp_path / "cache") == problems
    assert len(list((tmp_path / "cache" / "datasets").glob("mawps-*"))) == 1


def test_every_url_is_pinned_to_a_commit_and_has_a_checksum():
    files = [file for dataset in DATASETS.values() for file in dataset.files]
    for file in files:
        assert any(len(part) == 40 for part in file.url.split("/"))
        assert len(file.sha256) == 64 and file.size > 0
    registered = builders.ProblemSet.url_infos
    assert {file.url for file in files if not file.archived} == set(registered)


def content_of(folder, path):
    plain, packed = folder / path, folder / f"{path}.gz"
    return plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())


def test_real_math_comes_out_of_an_archive_as_the_local_files_have_it(
    real_folder, server, tmp_path
):
    train, test = DATASETS["math12k"].files
    contents = [content_of(real_folder, file.path) for file in (train, test, test.without)]
    rows = [json.loads(line) for content in contents for line in content.splitlines()]
    server.files |= {"math.tar.gz": archive(rows[::-1]), "math500.jsonl": contents[2]}
    math500 = replace(test.without, url=f"{server.home}/math500.jsonl")
    train, test = (replace(file, url=f"{server.home}/math.tar.gz") for file in (train, test))
    # What is fetched is checked against the pinned checksums, too.
    assert fetch([train, replace(test, without=math500)], tmp_path) == contents[:2]


def test_real_files_have_the_pinned_checksums(real_folder):
    for file in {file for dataset in DATASETS.values() for file in dataset.files}:
        content = content_of(real_folder, file.path)
        assert hashlib.sha256(content).hexdigest() == file.sha256 and len(content) == file.size


# MATH's archive


def joined(tmp_path, files, *args):
    (tmp_path / "agents.tar.gz").write_bytes(pack(files))
    rows = join(tmp_path / "agents.tar.gz", *args).decode().splitlines()
    return rows, [json.loads(row)["unique_id"] for row in rows]


def problem(text, solution):
    # In another order than that of the joined rows, and with a field that those do not have.
    row = {"solution": solution, "type": "Algebra", "level": "Level 2", "problem": text, "x": 1}
    return json.dumps(row).encode()


FILES = {
    f"{ROOT}/train/algebra/10.json": problem("Ten?", r"\boxed{1} or $\boxed{\frac{1}{2}}$"),
    f"{ROOT}/train/algebra/9.json": problem("Nine: ½?", r"$\boxed 9$"),
    f"{ROOT}/test/algebra/9.json": problem("Test?", r"\boxed{ 9 }"),
    f"{ROOT}/test/geometry/1.json": problem("Other?", r"\boxed{8}"),
    f"{ROOT}/train/geometry/1.json": problem("Empty?", r"\boxed{}"),
}


def test_joins_the_problems_of_a_split_in_the_order_of_their_numbers(tmp_path):
    rows, ids = joined(tmp_path, FILES, "train")
    assert ids == ["train/algebra/9.json", "train/algebra/10.json"]
    assert rows[0] == (
        '{"problem": "Nine: ½?", "level": "Level 2", "type": "Algebra", "solution": '
        '"$\\\\boxed 9$", "answer": "9", "unique_id": "train/algebra/9.json"}'
    )
    assert json.loads(rows[1])["answer"] == r"\frac{1}{2}"
    assert json.loads(joined(tmp_path, FILES, "test")[0][0])["answer"] == " 9 "


def test_leaves_out_what_the_other_set_has(tmp_path):
    _, ids = joined(tmp_path, FILES, "test", {"test/algebra/9.json"})
    assert ids == ["test/geometry/1.json"]


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"problem": "a"}', b"\xff"])
def test_a_file_that_is_no_problem_is_named(tmp_path, content):
    path = f"{ROOT}/train/algebra/1.json"
    with pytest.raises(ValueError, match=f"{re.escape(path)}: no problem of MATH"):
        joined(tmp_path, {path: content}, "train")
