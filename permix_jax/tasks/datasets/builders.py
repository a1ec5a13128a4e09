"""A `tensorflow_datasets` builder for each data set, and its downloads; none needs TensorFlow.

Importing this module registers the builders with TFDS, as "permix_gsm8k" and so on: TFDS has a
"gsm8k" of its own, with other features. An example has `id`, `prompt` (the bare question),
`answer`, `source` and `meta` (JSON). Examples keep the order of their files.
"""

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
from permix_jax.core.problem import Problem
from permix_jax.rewards.answer import extract_answer
from permix_jax.tasks.datasets.catalogue import DATASETS, SourceFile, local_path
from permix_jax.tasks.datasets.rows import read_problems

logger = logging.getLogger(__name__)

FEATURES = ("id", "prompt", "answer", "source", "meta")
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


class ProblemSet(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Builds the data set `SOURCE` from a local folder if one is named, else from its URLs."""

    VERSION = tfds.core.Version("1.0.0")
    SOURCE: str
    url_infos = url_infos(chain.from_iterable(dataset.files for dataset in DATASETS.values()))

    def __init__(self, *, folder: str = "", **arguments):
        """`folder`: where `local_path` finds the files. `arguments`: those of TFDS."""
        self._folder = folder
        super().__init__(**arguments)

    def _info(self) -> tfds.core.DatasetInfo:
        dataset = DATASETS[self.SOURCE]
        return tfds.core.DatasetInfo(
            builder=self,
            description=dataset.description,
            features=tfds.features.FeaturesDict({name: tfds.features.Text() for name in FEATURES}),
            homepage=dataset.homepage,
            license=dataset.license,
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        dataset = DATASETS[self.SOURCE]
        if self._folder:
            paths = [local_path(self._folder, file, self.SOURCE) for file in dataset.files]
            contents = [(str(path), path.read_bytes()) for path in paths]
        else:
            contents = list(download(dataset.files, dl_manager, self.SOURCE))
        read = (read_problems(text, name, self.SOURCE, dataset.reader) for name, text in contents)
        return {dataset.split: self._generate_examples(list(chain.from_iterable(read)))}

    def _generate_examples(self, problems: Iterable[Problem]) -> Iterator[tuple[int, dict]]:
        for index, problem in enumerate(problems):
            yield index, {**vars(problem), "meta": json.dumps(problem.meta, ensure_ascii=False)}


BUILDERS: dict[str, type[ProblemSet]] = {}
for _source in DATASETS:
    _fields = {"SOURCE": _source, "name": f"permix_{_source}", "__module__": __name__}
    BUILDERS[_source] = type(f"Permix_{_source}", (ProblemSet,), _fields)
