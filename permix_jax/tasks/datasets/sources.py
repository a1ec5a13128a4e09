"""Rows of a user's files, JSON Lines, CSV or Parquet; and of data sets on the Hugging Face hub.

A row comes with its number and the place that messages name: "mine.csv:3", "mine.parquet row 3".
"""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub

from permix_jax.core.files import refuse_lfs_pointer, write_text
from permix_jax.core.json_lines import Row, parse_rows, unpacked

ENDINGS = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".parquet")
HUB = "hf:"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PLAIN = (str, int, float, bool)  # values that a row of Parquet or of the hub keeps


class HubTable(NamedTuple):
    """A table of a data set on the hub; `subset` "": its only one. `revision`: a commit."""

    subset: str = ""
    split: str = "train"
    revision: str = ""


def file_rows(path: Path) -> Iterator[Row]:
    """The rows of a file by its ending, one of ENDINGS.

    Of Parquet, columns that hold neither text nor numbers are left out, and so are empty values.
    Raises ValueError, which names file and line, for a file or row that is not whole.
    """
    name, content = str(path), path.read_bytes()
    if name.endswith(".parquet"):
        return _parquet_rows(content, name)
    return (_csv_rows if ".csv" in path.name else parse_rows)(content, name)


def _csv_rows(content: bytes, name: str) -> Iterator[Row]:
    try:
        text = unpacked(content, name).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name}: the text is not UTF-8 ({error.reason}); save it as UTF-8"
        ) from None
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        header = reader.fieldnames or []
        if repeated := [column for column in header if header.count(column) > 1]:
            raise ValueError(f"{name}:1: the header names {repeated[0]!r} twice; rename one")
        for row in reader:
            where = f"{name}:{reader.line_num}"
            if None in row or None in row.values():
                raise ValueError(
                    f"{where}: the row has not {len(header)} cells, as the header has; put cells "
                    "with commas, quotes or line ends into quotes"
                )
            yield reader.line_num, where, row
    except csv.Error as error:
        where = f"{name}:{reader.line_num}"
        raise ValueError(f"{where}: not a row of CSV ({error}); save the table as CSV") from None


def _parquet_rows(content: bytes, name: str) -> Iterator[Row]:
    import pyarrow  # here, because it takes long to import
    from pyarrow import parquet

    refuse_lfs_pointer(content, name)
    try:
        rows = parquet.read_table(pyarrow.BufferReader(content)).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{name}: not a whole Parquet file ({reason}); fetch it again") from None
    for number, row in enumerate(rows, start=1):
        yield number, f"{name} row {number}", _plain(row)


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    return {column: value for column, value in row.items() if isinstance(value, _PLAIN)}


def renamed(rows: Iterable[Row], columns: Mapping[str, str]) -> Iterator[Row]:
    """The rows, in which a column has the name of the field that it is, as `columns` tells.

    {"prompt": "question"}: the column "question" is the field prompt. A row that has the field
    already, and not the column, is left alone. Raises ValueError for a row that has neither.
    """
    for number, where, row in rows:
        for ours, theirs in columns.items():
            if theirs not in row and ours not in row:
                there = ", ".join(map(repr, row)) or "none"
                raise ValueError(
                    f"{where}: data.fields names {theirs!r}, which the row lacks; it has {there}"
                )
        there = {ours: theirs for ours, theirs in columns.items() if theirs in row}
        rest = {name: x for name, x in row.items() if name not in {*there, *there.values()}}
        yield number, where, rest | {ours: row[theirs] for ours, theirs in there.items()}


def newest_revision(name: str) -> str:
    """The commit of "hf:ORG/NAME" or "hf:ORG/NAME@REVISION"; "" for a folder of this machine.

    Raises FileNotFoundError, in one line with a remedy, if the hub does not tell.
    """
    repository, _, revision = name.removeprefix(HUB).partition("@")
    if Path(repository).expanduser().is_dir():
        return ""
    if _COMMIT.fullmatch(revision):
        return revision
    try:
        return huggingface_hub.HfApi().dataset_info(repository, revision=revision or None).sha
    except Exception as error:  # each version of the hub's client lets other network errors through
        raise FileNotFoundError(f"{name}: {_trouble(error)}") from error


def hub_rows(name: str, table: HubTable, cache: Path) -> Iterator[Row]:
    """The rows of "hf:ORG/NAME", by the `datasets` package; they are kept in `cache`.

    What is kept is read again without the hub. A folder of this machine in place of ORG/NAME is
    read by the same package, each time. Columns and values are left out as in `file_rows`.

    Raises ImportError without the package; FileNotFoundError or ValueError, in one line with a
    remedy, if the data cannot be had.
    """
    repository = name.removeprefix(HUB).partition("@")[0]
    key = hashlib.sha256(json.dumps([repository, *table]).encode()).hexdigest()[:16]
    kept = cache / f"hf-{key}.jsonl"
    if not (table.revision and kept.is_file()):
        rows = [_plain(row) for row in _load(name, repository, table)]
        if not rows:
            raise ValueError(f"{name}: its split {table.split!r} is empty; name another data.split")
        text = "".join(json.dumps(row) + "\n" for row in rows)
        if not table.revision:
            return parse_rows(text.encode(), name)
        write_text(kept, text)
    return parse_rows(kept.read_bytes(), name)


def _load(name: str, repository: str, table: HubTable) -> Iterable[Mapping[str, Any]]:
    try:
        from datasets import load_dataset
    except ImportError:
        raise ImportError(
            f"{name}: reading it needs a package: pip install -e '.[hf]'; or name a file in "
            f"{', '.join(ENDINGS)}"
        ) from None
    options = {"name": table.subset or None, "split": table.split}
    try:
        path = Path(repository).expanduser()
        if path.is_dir():
            return load_dataset(str(path), **options)
        return load_dataset(repository, revision=table.revision, **options)
    except Exception as error:  # each version of the package lets other errors through
        raise FileNotFoundError(f"{name}: {_trouble(error)}") from error


def _trouble(error: Exception) -> str:
    """Says why a data set of the hub cannot be had, and what to do."""
    kind, reason = type(error).__name__, " ".join(str(error).split())[:300]
    remedy = "check the id, data.subset and data.split, or save it as a file and name that"
    if "Gated" in kind or "gated" in reason:
        remedy = "accept its conditions on its page, and log in with `hf auth login` or HF_TOKEN"
    elif "Config name is missing" in reason or "BuilderConfig" in reason:
        remedy = "set data.subset to one of those"
    elif "Unknown split" in reason:
        remedy = "set data.split (of data.train) or data.test_split to one of those"
    elif "RepositoryNotFound" in kind or "DatasetNotFound" in kind:
        remedy = "check the id, or if the data set is private, log in with `hf auth login`"
    elif "Offline" in kind or "Connect" in kind or "offline" in reason.lower():
        remedy = "check the network (HF_HUB_OFFLINE, HTTPS_PROXY), or name a file"
    return f"cannot be had ({kind}: {reason}); {remedy}"


def columns_in(text: str) -> dict[str, str]:
    """{"prompt": "question"} of "prompt=question"; pairs are separated by commas."""
    pairs = (pair.split("=", 1) for pair in text.split(",") if pair.strip())
    return {ours.strip(): theirs.strip() for ours, theirs in pairs}
