"""Downloads source files, and checks their content against their checksums."""

import hashlib
import json
import logging
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo

from permix_jax.core.json_lines import parse_rows
from permix_jax.rewards.answer import extract_answer
from permix_jax.tasks.datasets.catalogue import SourceFile

logger = logging.getLogger(__name__)

_TIMEOUT = 30.0  # seconds
_CHANGED = "what is there now is not the file of this checksum"
_MEMBER = re.compile(
    r".*/data/math/(?P<id>(?P<split>train|test)/(?P<subject>\w+)/(?P<n>\d+)\.json)"
)


def download(
    files: Iterable[SourceFile], manager: tfds.download.DownloadManager, name: str
) -> Iterator[tuple[str, bytes]]:
    """Yields (path, content) of each file. A file that the manager has is not fetched again.

    Raises ValueError, which names the data set `name`, the URL and the remedy, if a download fails
    or has another checksum.
    """
    for file in files:
        path, left_out, why = _fetch(file, manager, name), set(), _CHANGED
        if file.without:
            ((other, content),) = download([file.without], manager, name)
            left_out = {row["unique_id"] for _, _, row in parse_rows(content, other)}
        try:
            content = join(path, file.archived, left_out) if file.archived else path.read_bytes()
        except (tarfile.TarError, EOFError, OSError, ValueError) as error:
            content, why = b"", error
        if hashlib.sha256(content).hexdigest() != file.sha256:
            path.unlink()  # so that the next attempt fetches it again
            path.with_name(f"{path.name}.INFO").unlink()
            raise _not_had(file, name, why)
        yield file.path, content


def url_infos(files: Iterable[SourceFile]) -> dict[str, UrlInfo]:
    """What TFDS checks downloads against. An archive is checked only after its files are joined."""
    pairs = ((file, file.without) for file in files)
    fetched = [file for file in chain.from_iterable(pairs) if file and not file.archived]
    return {f.url: UrlInfo(tfds.core.utils.Size(f.size), f.sha256, filename=None) for f in fetched}


def _fetch(file: SourceFile, manager: tfds.download.DownloadManager, name: str) -> Path:
    notes = Path(manager.download_dir).glob("*.INFO")  # beside a file: the URLs that it came from
    try:
        if not any(file.url in json.loads(note.read_text()).get("urls", ()) for note in notes):
            # Raises within seconds; TFDS alone would retry for minutes.
            with requests.get(file.url, stream=True, timeout=_TIMEOUT) as response:
                response.raise_for_status()
            logger.info("%s: downloading %s", name, file.url)
        tfds.display_progress_bar(True)
        return Path(manager.download(file.url))
    except (requests.RequestException, tfds.download.DownloadError) as error:
        raise _not_had(file, name, error) from None
    except tfds.download.download_manager.NonMatchingChecksumError:
        raise _not_had(file, name, _CHANGED) from None
    finally:
        tfds.display_progress_bar(False)


def _not_had(file: SourceFile, name: str, why: Exception | str) -> ValueError:
    if isinstance(why, Exception):
        why = f"{type(why).__name__}: {' '.join(str(why).split())[:200]}"
    return ValueError(
        f"{name}: cannot download {file.url} ({why}); try again, or put {file.path} into a local "
        "folder and name that folder in data.folder"
    )


def join(archive: Path, split: str, left_out: Collection[str] = ()) -> bytes:
    r"""The problems of a split in MATH's archive as JSONL, without the `unique_id`s in `left_out`.

    A row has the fields of the problem's file, `answer` (the content of the last \boxed{} of its
    solution) and `unique_id` (its path in MATH, "train/algebra/1.json"). Rows are sorted by subject
    and number. Problems with an empty box are left out: they are multiple choice and state none.

    Raises ValueError that names a file which is no problem of MATH; tarfile.TarError, EOFError or
    OSError if the archive is not whole.
    """
    rows = []
    with tarfile.open(archive, "r|gz") as tar:  # a stream: nothing is unpacked to disk
        for member in tar:
            match = member.isfile() and _MEMBER.fullmatch(member.name)
            if not match or match["split"] != split or match["id"] in left_out:
                continue
            try:
                row = _math_row(json.loads(tar.extractfile(member).read()))
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{member.name}: no problem of MATH ({error!r})") from None
            if row["answer"].strip():
                place = (match["subject"], int(match["n"]))
                rows.append((place, row | {"unique_id": match["id"]}))
    rows.sort(key=lambda item: item[0])
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for _, row in rows).encode()


def _math_row(problem: dict) -> dict:
    row = {field: problem[field] for field in ("problem", "level", "type", "solution")}
    answer = extract_answer(row["solution"]) or ""
    # A box without braces, as in "\boxed 9", begins with a space.
    in_braces = f"{{{answer}}}" in row["solution"]
    return row | {"answer": answer if in_braces else answer.strip()}
