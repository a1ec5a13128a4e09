import gzip
import hashlib
import io
import json
import socket
import tarfile
from contextlib import closing
from dataclasses import replace

import pytest
import tensorflow_datasets as tfds
from file_server import serve
from small_data import MATH, MATH500, MATH_TEST, MAWPS, jsonl

from permix_jax.tasks.datasets import builders
from permix_jax.tasks.datasets.catalogue import DATASETS
from permix_jax.tasks.datasets.fetch import download, url_infos
from permix_jax.tasks.datasets.load import load_problems
from permix_jax.tasks.datasets.sources import SourceFile


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def server():
    with serve({}) as running:
        yield running


def source(server, path, content, **archive):
    sha256 = hashlib.sha256(content).hexdigest()
    return SourceFile(f"data/{path}", server.url(path), sha256, len(content), **archive)


def fetch(files, folder):
    """What `download` gives for files of the data set "some"."""
    manager = tfds.download.DownloadManager(download_dir=folder, url_infos=url_infos(files))
    return [content for _, content in download(files, manager, "some")]


def archive(rows):
    """The archive that rows of MATH or MATH500 are joined from."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        for row in rows:
            level = (
                row["level"] if str(row["level"]).startswith("Level") else f"Level {row['level']}"
            )
            names = ("problem", "solution")
            problem = {name: row[name] for name in names} | {
                "level": level,
                "type": row.get("type") or row["subject"],
            }
            content = json.dumps(problem).encode()
            info = tarfile.TarInfo(f"agents-1/src/agents/datasets/data/math/{row['unique_id']}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def test_a_file_is_fetched_once(server, tmp_path):
    server.files["a.jsonl"] = b"content"
    file = source(server, "a.jsonl", b"content")
    assert fetch([file], tmp_path) == [b"content"]
    asked = len(server.asked)
    assert fetch([file], tmp_path) == [b"content"]
    assert len(server.asked) == asked


def test_archived_problems_are_joined_and_the_archive_is_fetched_once(server, tmp_path):
    train, left, math500 = MATH[::-1], MATH_TEST, MATH500
    server.files["math.tar.gz"] = archive([*train, *left, *math500])
    server.files["math500.jsonl"] = jsonl(math500)
    tested = source(server, "math500.jsonl", jsonl(math500))
    files = [
        replace(source(server, "math.tar.gz", content), archived=split, without=without)
        for split, content, without in (("train", jsonl(MATH), None), ("test", jsonl(left), tested))
    ]
    assert fetch(files, tmp_path) == [jsonl(MATH), jsonl(left)]
    server.files.clear()
    assert fetch(files, tmp_path) == [jsonl(MATH), jsonl(left)]


@pytest.mark.parametrize(
    ("there", "reason"),
    [(None, "404"), (b"other", "not the file of this checksum")],
)
def test_a_file_that_cannot_be_had_is_named_with_the_remedy(server, tmp_path, there, reason):
    file = source(server, "a.jsonl", b"content")
    if there is not None:
        server.files["a.jsonl"] = there
    with pytest.raises(ValueError) as error:
        fetch([file], tmp_path)
    message = str(error.value)
    assert message.startswith(f"some: cannot download {file.url} (") and reason in message
    assert message.endswith("put data/a.jsonl into a local folder and name that folder in "
                            "data.folder")  # fmt: skip
    assert "\n" not in message
    server.files["a.jsonl"] = b"content"
    assert fetch([file], tmp_path) == [b"content"]


@pytest.mark.parametrize(
    "there",
    [b"no archive", archive(MATH[:1]), gzip.compress(b"no tar", mtime=0)],
    ids=["no archive", "another archive", "no tar"],
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


def test_a_data_set_without_a_folder_is_downloaded_and_built(server, tmp_path, monkeypatch, capfd):
    content = jsonl(MAWPS)
    server.files["mawps.jsonl"] = content
    file = source(server, "mawps.jsonl", content)
    monkeypatch.setitem(DATASETS, "mawps", replace(DATASETS["mawps"], files=(file,)))
    monkeypatch.setattr(builders.ProblemSet, "url_infos", url_infos([file]))
    problems = load_problems("mawps", "", tmp_path / "cache")
    assert [problem.answer for problem in problems] == ["43", "1/3", "43", "5", "6", "1.84"]
    shown = capfd.readouterr()
    assert shown.out == "" and "Dl Completed" in shown.err and "Generating" not in shown.err
    server.files.clear()
    assert load_problems("mawps", "", tmp_path / "cache") == problems
    # The same content in a folder is the same data set.
    (tmp_path / "mawps").mkdir()
    (tmp_path / "mawps.jsonl").write_bytes(content)
    local = replace(file, path="mawps.jsonl")
    monkeypatch.setitem(DATASETS, "mawps", replace(DATASETS["mawps"], files=(local,)))
    assert load_problems("mawps", str(tmp_path), tmp_path / "cache") == problems
    assert len(list((tmp_path / "cache" / "datasets").glob("mawps-*"))) == 1


def test_every_url_is_pinned_to_a_commit_and_has_a_checksum():
    files = [file for dataset in DATASETS.values() for file in dataset.files]
    for file in files:
        assert any(len(part) == 40 for part in file.url.split("/"))
        assert len(file.sha256) == 64 and file.size > 0
    registered = builders.ProblemSet.url_infos
    assert {file.url for file in files if not file.archived} == set(registered)


def test_real_math_comes_out_of_an_archive_as_the_local_files_have_it(
    real_folder, real_problems, server, tmp_path, monkeypatch
):
    def read(name):
        content = (real_folder / "math" / name).read_bytes()
        return gzip.decompress(content) if name.endswith(".gz") else content

    names = ("train.jsonl.gz", "test_minus_math500.jsonl.gz", "math500_test.jsonl")
    rows = [json.loads(line) for name in names for line in read(name).splitlines()]
    server.files["math.tar.gz"] = archive(rows[::-1])
    server.files["math500.jsonl"] = read(names[2])

    train, test = DATASETS["math12k"].files
    math500 = replace(test.without, url=server.url("math500.jsonl"))
    files = (
        replace(train, url=server.url("math.tar.gz")),
        replace(test, url=server.url("math.tar.gz"), without=math500),
    )
    monkeypatch.setitem(DATASETS, "math12k", replace(DATASETS["math12k"], files=files))
    monkeypatch.setattr(builders.ProblemSet, "url_infos", url_infos(files))
    joined = load_problems("math12k", "", tmp_path)  # checked against the pinned checksums
    monkeypatch.undo()
    assert joined == real_problems("math12k")


def test_real_files_have_the_pinned_checksums(real_folder):
    for file in {file for dataset in DATASETS.values() for file in dataset.files}:
        plain, packed = real_folder / file.path, real_folder / f"{file.path}.gz"
        content = plain.read_bytes() if plain.exists() else gzip.decompress(packed.read_bytes())
        assert hashlib.sha256(content).hexdigest() == file.sha256 and len(content) == file.size
