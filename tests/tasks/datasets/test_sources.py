"""Files of CSV and Parquet, and data sets of the hub, whose client and package are stubs here."""

import gzip
import re
import sys
from types import ModuleType, SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors

from permix_jax.tasks.datasets.load import load_problems, place
from permix_jax.tasks.datasets.sources import (
    HubTable,
    columns_in,
    file_rows,
    hub_rows,
    newest_revision,
    renamed,
)

ROWS = [
    {"question": "What is 2 + 3?", "answer": "2 + 3 = 5\n#### 5", "topic": "sums", "level": 1},
    {"question": 'Say "4",\nplease.', "answer": "4", "topic": "words", "level": 2},
]
COLUMNS = {"prompt": "question"}
CSV = (
    "question,answer,topic,note\r\n"
    'What is 2 + 3?,"2 + 3 = 5\n#### 5",sums,\r\n'
    '"Say ""4"",\nplease.",4,words,x\r\n'
)


def write_parquet(path, rows=ROWS):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def load(path, cache, columns=None, **table):
    return load_problems(str(path), "", cache, columns or COLUMNS, HubTable(**table))


@pytest.mark.parametrize("form", ["csv", "csv.gz", "parquet"])
def test_a_file_is_read_by_its_ending(tmp_path, form):
    path = tmp_path / f"mine.{form}"
    if form == "parquet":
        write_parquet(path)
    else:
        content = b"\xef\xbb\xbf" + CSV.encode()  # as spreadsheets write it
        path.write_bytes(gzip.compress(content) if form.endswith("gz") else content)
    first, second = load(path, tmp_path)
    assert (first.prompt, first.answer) == ("What is 2 + 3?", "5")
    assert first.meta["solution"] == "2 + 3 = 5" and first.meta["topic"] == "sums"
    assert (second.prompt, second.answer) == ('Say "4",\nplease.', "4")
    assert second.meta.get("level") == (2 if form == "parquet" else None)
    where = {"parquet": f"{path} row 2"}.get(form, f"{path}:5")
    assert place(second) == where and second.source == str(path)


def test_columns_of_parquet_that_hold_neither_text_nor_numbers_are_left_out(tmp_path):
    rows = [{"prompt": "1 + 1?", "answer": 2, "tags": ["a"], "raw": b"x", "solution": None}]
    (row,) = file_rows(write_parquet(tmp_path / "x.parquet", rows))
    assert row == (1, f"{tmp_path}/x.parquet row 1", {"prompt": "1 + 1?", "answer": 2})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "prompt,answer\n1 + 1?,2,3\n",
            ":2: the row has not 2 cells, as the header has; put cells",
        ),
        ("prompt,answer\n1 + 1?\n", ":2: the row has not 2 cells, as the header has; put cells "),
        ('prompt,answer\n"1 + 1?,2\n', r":\d: not a row of CSV \(.*\); save the table as CSV"),
        ("prompt,prompt\n1 + 1?,2\n", ":1: the header names 'prompt' twice; rename one"),
        ("prompt,answer\n", ": has no rows; name a file or table that has some"),
        ("", ": has no rows; name a file or table that has some"),
        ("prompt,text\n1 + 1?,2\n", ":2: there is no field 'answer', only 'prompt', 'text'; add"),
        ("prompt,answer\n1 + 1?,\n", ":2: the answer '' states nothing; correct it or drop the "),
        (b"prompt,answer\n1 + \xff?,2\n", r": the text is not UTF-8 \(.*\); save it as UTF-8"),
    ],
)
def test_a_csv_that_is_no_table_of_problems_is_named(tmp_path, content, message):
    path = tmp_path / "x.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=f"^{path}{message}.*$"):
        load_problems(str(path), "", tmp_path)


def test_a_damaged_parquet_file_is_named(tmp_path):
    path = write_parquet(tmp_path / "x.parquet")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=rf"^{path}: not a whole Parquet file \(.*\); fetch it "):
        load(path, tmp_path)


def test_columns_are_fields_where_a_row_has_them():
    assert columns_in("prompt=question, answer=final") == {"prompt": "question", "answer": "final"}
    assert columns_in("") == {}
    rows = [(1, "x:1", {"question": "q", "final": "f", "prompt": "old", "answer": "old", "z": 1})]
    rows += [(2, "x:2", {"prompt": "p", "answer": "a"})]
    both = {"prompt": "question", "answer": "final"}
    assert [row for *_, row in renamed(rows, both)] == [
        {"z": 1, "prompt": "q", "answer": "f"},
        {"prompt": "p", "answer": "a"},
    ]
    swapped = {"prompt": "answer", "answer": "prompt"}
    assert [row for *_, row in renamed(rows[1:], swapped)] == [{"prompt": "a", "answer": "p"}]
    message = "x:1: data.fields names 'text', which the row lacks; it has 'question', 'z'"
    with pytest.raises(ValueError, match=f"^{message}$"):
        list(renamed([(1, "x:1", {"question": "q", "z": 1})], {"prompt": "text"}))


# The hub

COMMIT = "e53f048856ff4f594e959d75785d2c2d37b678ee"


@pytest.fixture
def hub(monkeypatch):
    """A hub with a data set at COMMIT; what its client and the package are asked, in order."""
    asked = []

    def dataset_info(self, repository, revision=None):
        asked.append(("dataset_info", repository, revision))
        return SimpleNamespace(sha=COMMIT)

    def load_dataset(path, name=None, split=None, revision=None):
        asked.append(("load_dataset", path, name, split, revision))
        if name is None:
            raise ValueError("Config name is missing.\nPlease pick one among: ['main', 'socratic']")
        if split not in ("train", "test"):
            raise ValueError(f"Unknown split \"{split}\". Should be one of ['train', 'test'].")
        return [{**row, "image": object(), "empty": None} for row in ROWS]

    stub = ModuleType("datasets")
    stub.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", stub)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    return asked


def test_a_data_set_of_the_hub_is_read_once_at_its_revision(hub, tmp_path):
    name = "hf:openai/gsm8k"
    assert newest_revision(name) == COMMIT
    table = {"subset": "main", "revision": COMMIT}
    problems = load(name, tmp_path, **table)
    assert [p.prompt for p in problems] == [row["question"] for row in ROWS]
    assert problems[0].meta == {"solution": "2 + 3 = 5", "topic": "sums", "level": 1}
    assert {p.source for p in problems} == {name} and place(problems[1]) == f"{name} 2"
    assert hub == [
        ("dataset_info", "openai/gsm8k", None),
        ("load_dataset", "openai/gsm8k", "main", "train", COMMIT),
    ]
    assert load(name, tmp_path, **table) == problems
    assert len(hub) == 2  # what was read is kept, and needs no hub
    load(name, tmp_path, **table | {"split": "test"})
    load(name, tmp_path, **table | {"revision": "f" * 40})
    assert hub[2:] == [
        ("load_dataset", "openai/gsm8k", "main", "test", COMMIT),
        ("load_dataset", "openai/gsm8k", "main", "train", "f" * 40),
    ]


def test_a_revision_may_be_named(hub):
    assert newest_revision(f"hf:org/name@{'a' * 40}") == "a" * 40 and not hub
    assert newest_revision("hf:org/name@v1.0") == COMMIT
    assert hub == [("dataset_info", "org/name", "v1.0")]


def test_a_local_folder_is_read_by_the_package_each_time(hub, tmp_path):
    name = f"hf:{tmp_path}"
    assert newest_revision(name) == ""
    for _ in range(2):
        assert len(load(name, tmp_path / "cache", subset="main")) == 2
    assert hub == [("load_dataset", str(tmp_path), "main", "train", None)] * 2


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "ValueError: Config name is missing. Please .*; set data.subset to one of those"),
        (
            {"subset": "main", "split": "dev"},
            'ValueError: Unknown split "dev". .*; set data.split (of data.train) or data',
        ),
    ],
)
def test_a_table_that_is_not_there_is_named_with_those_that_are(hub, tmp_path, table, message):
    message = f"hf:org/name: cannot be had ({message}"
    message = re.escape(message).replace(r"\.\*", ".*")
    with pytest.raises(FileNotFoundError, match=f"^{message}.*$"):
        load("hf:org/name", tmp_path, revision=COMMIT, **table)
    assert not list(tmp_path.rglob("*.jsonl*"))


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (errors.OfflineModeIsEnabled("offline"), "check the network (HF_HUB_OFF"),
        (ConnectionError("no route"), "check the network (HF_HUB_OFFLINE, HTTPS_PROXY), or name a"),
        (type("GatedRepoError", (Exception,), {})("403"), "accept its conditions on its page, and"),
        (type("RepositoryNotFoundError", (Exception,), {})("404"), "check the id, or if the data "),
        (ValueError("odd\nlines"), "check the id, data.subset and data.split, or save it as a fil"),
    ],
)
def test_trouble_with_the_hub_is_one_line_with_a_remedy(hub, monkeypatch, error, remedy):
    def dataset_info(self, *_, **__):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", dataset_info)
    said = f"hf:org/name: cannot be had ({type(error).__name__}: "
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(said)}.*; {re.escape(remedy)}.*$"):
        newest_revision("hf:org/name")


def test_without_the_package_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r"^hf:org/name: reading it .*pip install -e '.\[hf\]'; "):
        list(hub_rows("hf:org/name", HubTable(revision=COMMIT), tmp_path))


def test_the_package_itself_reads_a_local_folder(tmp_path, monkeypatch):
    datasets = pytest.importorskip("datasets", reason="pip install -e '.[hf]'")
    if not hasattr(datasets, "load_dataset"):  # the folder of this file
        pytest.skip("pip install -e '.[hf]'")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_text(CSV)
    problems = load(f"hf:{tmp_path}/set", tmp_path / "cache")
    assert [p.answer for p in problems] == ["5", "4"]
