"""Downloads source files and checks their content against their checksums."""

import hashlib
import json
import logging
import tarfile
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import requests
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download.checksums import UrlInfo

from permix_jax.core.json_lines import parse_rows
from permix_jax.tasks.datasets.math_archive import join, problem_files
from permix_jax.tasks.datasets.sources import SourceFile

logger = logging.getLogger(__name__)

_TIMEOUT = 30.0  # seconds


def download(
    files: Iterable[SourceFile], manager: tfds.download.DownloadManager, name: str
) -> Iterator[tuple[str, bytes]]:
    """Yields (path, content) of each file. A file that the manager has is not fetched again.

    Raises:
      ValueError: a download fails, or has another checksum (the message names the data set `name`,
        the URL and the remedy).
    """
    for file in files:
        path = _fetch(file, manager, name)
        content = _joined(path, file, manager, name) if file.archived else path.read_bytes()
        if hashlib.sha256(content).hexdigest() != file.sha256:
            _forget(path)
            raise _not_had(file, name, "what is there now is not the file of this checksum")
        yield file.path, content


def url_infos(files: Iterable[SourceFile]) -> dict[str, UrlInfo]:
    """What TFDS checks downloads against. An archive is checked only after its files are joined."""
    fetched = chain.from_iterable((file, file.without) for file in files)
    return {
        file.url: UrlInfo(tfds.core.utils.Size(file.size), file.sha256, filename=None)
        for file in fetched
        if file and not file.archived
    }


def _fetch(file: SourceFile, manager: tfds.download.DownloadManager, name: str) -> Path:
    try:
        if not _is_downloaded(file.url, manager):
            # Raises within seconds; TFDS alone would retry for minutes.
            with requests.get(file.url, stream=True, timeout=_TIMEOUT) as response:
                response.raise_for_status()
            logger.info("%s: downloading %s", name, file.url)
        tfds.display_progress_bar(True)
        return Path(manager.download(file.url))
    except (requests.RequestException, tfds.download.DownloadError) as error:
        raise _not_had(file, name, _reason(error)) from None
    except tfds.download.download_manager.NonMatchingChecksumError:
        raise _not_had(file, name, "what is there now is not the file of this checksum") from None
    finally:
        tfds.display_progress_bar(False)


def _is_downloaded(url: str, manager: tfds.download.DownloadManager) -> bool:
    """Whether the manager has the file: a note beside each file lists the URLs it came from."""
    notes = Path(manager.download_dir).glob("*.INFO")
    return any(url in json.loads(note.read_text()).get("urls", ()) for note in notes)


def _forget(path: Path) -> None:
    """Deletes the file, so that the next attempt fetches it again."""
    path.unlink()
    path.with_name(f"{path.name}.INFO").unlink()


def _joined(
    archive: Path, file: SourceFile, manager: tfds.download.DownloadManager, name: str
) -> bytes:
    left_out = set()
    if file.without:
        ((path, content),) = download([file.without], manager, name)
        left_out = {row["unique_id"] for _, _, row in parse_rows(content, path)}
    try:
        return join(problem_files(archive), file.archived, left_out)
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        _forget(archive)
        raise _not_had(file, name, _reason(error)) from None


def _not_had(file: SourceFile, name: str, reason: str) -> ValueError:
    return ValueError(
        f"{name}: cannot download {file.url} ({reason}); try again, or put {file.path} into a "
        "local folder and name that folder in data.folder"
    )


def _reason(error: Exception) -> str:
    """The error in one short line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
