"""Lists of problems: data sets by name, which are built once and kept; users' files; the hub."""

import contextlib
import hashlib
import io
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from permix_jax.core.json_lines import Row
from permix_jax.core.problem import Problem
from permix_jax.tasks.datasets.catalogue import DATASETS, local_path
from permix_jax.tasks.datasets.rows import problems, users_own
from permix_jax.tasks.datasets.sources import (
    ENDINGS,
    HUB,
    HubTable,
    file_rows,
    hub_rows,
    renamed,
)

logger = logging.getLogger(__name__)

# A built set depends on its files and on this code: a change of either builds a new one.
_CODE = ("builders.py", "catalogue.py", "rows.py")


def load_problems(
    name: str,
    folder: str,
    cache: Path,
    columns: Mapping[str, str] | None = None,
    table: HubTable | None = None,
) -> list[Problem]:
    """All problems of a data set, with bare questions, in the order of its files.

    Args:
      name: of `catalogue.DATASETS`; or the path of a file of ENDINGS, or "hf:ORG/NAME", whose rows
        have the fields `prompt`, `answer` and optionally `id`. Their other fields become `meta`.
      folder: has the files of the named sets; "": they are downloaded.
      cache: what is built, downloaded and read of the hub is kept in its subfolder `datasets/`.
      columns: the columns that hold the fields, where those of a file or of the hub have other
        names, such as {"prompt": "question"}.
      table: which table of "hf:ORG/NAME".

    Raises FileNotFoundError; ImportError for the hub without the `datasets` package; ValueError for
    an unknown set, a bad row (file:line), no download.
    """
    if name in DATASETS:
        found = _load_built(name, folder, cache / "datasets")
    else:
        rows = _users_rows(name, cache / "datasets", table or HubTable())
        found = list(problems(renamed(rows, columns or {}), name, users_own))
        if not found:
            raise ValueError(f"{name}: has no rows; name a file or table that has some")
    at = f", revision {table.revision:.12}" if table and table.revision else ""
    logger.info("%s: %d problems, sha256 %.12s%s", name, len(found), content_digest(found), at)
    return found


def _users_rows(name: str, cache: Path, table: HubTable) -> Iterator[Row]:
    if name.startswith(HUB):
        return hub_rows(name, table, cache)
    if not name.endswith(ENDINGS):
        raise ValueError(
            f"{name!r} is no data set; use one of {', '.join(DATASETS)}, or the path of a file, "
            f"which ends in {', '.join(ENDINGS)}, or hf:ORG/NAME on the Hugging Face hub"
        )
    path = Path(name).expanduser()
    if not path.is_file():
        remedy = "name a file with the fields prompt and answer in data.train or data.test"
        raise FileNotFoundError(f"{path}: there is no such file; {remedy}")
    return file_rows(path)


def place(problem: Problem) -> str:
    """Where to find a problem: file:line of a user's file, or the named set and the id."""
    if problem.source.endswith(ENDINGS) and not problem.source.startswith(HUB):
        for line, where, row in file_rows(Path(problem.source).expanduser()):
            if str(row.get("id", line)) == problem.id:
                return where
    return f"{problem.source} {problem.id}"


def content_digest(problems: Iterable[Problem]) -> str:
    """sha256 of the problems in their order, without the name of their source."""
    digest = hashlib.sha256()
    for p in problems:
        row = [p.id, p.prompt, p.answer, p.meta]
        digest.update(json.dumps(row, sort_keys=True).encode() + b"\n")
    return digest.hexdigest()


def _load_built(name: str, folder: str, root: Path) -> list[Problem]:
    # Here, because TFDS takes a second to import and the embedded world does not need it.
    from permix_jax.tasks.datasets.builders import BUILDERS, FEATURES

    where = root / f"{name}-{_key(name, folder)}"
    builder = BUILDERS[name](data_dir=where, folder=folder)
    whole = Path(builder.data_dir, "dataset_info.json")  # TFDS writes it last
    if not whole.is_file():
        _build(builder, whole, root / "downloads")
        # Read what was built as a later run does: from the disk.
        builder = BUILDERS[name](data_dir=where, folder=folder)
    examples = builder.as_data_source(DATASETS[name].split)
    examples = examples.__getitems__(range(len(examples)))
    rows = [{field: example[field].decode() for field in FEATURES} for example in examples]
    return [Problem(**row | {"meta": json.loads(row["meta"])}) for row in rows]


def _build(builder, whole: Path, downloads: Path) -> None:
    """Builds into a folder of another name; TFDS renames it when it is complete."""
    import tensorflow_datasets as tfds

    shutil.rmtree(builder.data_dir, ignore_errors=True)  # half built, if it exists
    tfds.display_progress_bar(False)  # `builders.py` shows its own
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_dir=downloads,
                download_config=tfds.download.DownloadConfig(try_download_gcs=False),
                file_format="array_record",
            )
    except OSError:
        # Another process may have built the same set and renamed its folder first.
        if not whole.is_file():
            raise
    finally:
        tfds.display_progress_bar(True)


def _key(name: str, folder: str) -> str:
    """A hash of what a set is built from: the content of its files, and the code."""
    code = (Path(__file__).parent / file for file in _CODE)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in code))
    for file in DATASETS[name].files:
        content = local_path(folder, file, name).read_bytes() if folder else b""
        sha256 = hashlib.sha256(content).digest() if folder else bytes.fromhex(file.sha256)
        digest.update(sha256)
    return digest.hexdigest()[:16]
