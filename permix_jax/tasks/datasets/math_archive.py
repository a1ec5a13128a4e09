r"""Joins the files of MATH's archive, one for each problem, to one JSONL file.

A row has the fields of the problem's file, `answer` (the content of the last \boxed{} of its
solution) and `unique_id` (its path in MATH, "train/algebra/1.json"). Rows are sorted by subject and
number. Problems with an empty box are left out: they are multiple choice and state no answer.
"""

import json
import re
import tarfile
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from permix_jax.rewards.answer import extract_answer

_MEMBER = re.compile(
    r".*/data/math/(?P<id>(?P<split>train|test)/(?P<subject>\w+)/(?P<n>\d+)\.json)"
)
_FIELDS = ("problem", "level", "type", "solution")


def problem_files(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yields (path in the archive, content) of MATH's problems, without unpacking to disk.

    Raises tarfile.TarError, EOFError or OSError if it is not a complete .tar.gz.
    """
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            if member.isfile() and _MEMBER.fullmatch(member.name):
                yield member.name, tar.extractfile(member).read()


def join(files: Iterable[tuple[str, bytes]], split: str, left_out: Collection[str] = ()) -> bytes:
    """The JSONL of `split`, without the `unique_id`s in `left_out`.

    Raises ValueError that names a file which is no problem of MATH.
    """
    rows = []
    for path, content in files:
        match = _MEMBER.fullmatch(path)
        if match["split"] == split and match["id"] not in left_out:
            try:
                problem = json.loads(content)
                row = {field: problem[field] for field in _FIELDS}
                answer = extract_answer(row["solution"]) or ""
                # A box without braces, as in "\boxed 9", begins with a space.
                in_braces = f"{{{answer}}}" in row["solution"]
                row["answer"] = answer if in_braces else answer.strip()
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path}: no problem of MATH ({error!r})") from None
            if row["answer"].strip():
                place = (match["subject"], int(match["n"]))
                rows.append((place, row | {"unique_id": match["id"]}))
    rows.sort(key=lambda item: item[0])
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for _, row in rows).encode()
