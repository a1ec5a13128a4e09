"""The graded completions of an evaluation, a JSONL row each, kept so that a kill loses a batch."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from permix_jax.core.distributed import is_main
from permix_jax.core.field_rules import fixed_fields
from permix_jax.core.fields import differing_fields
from permix_jax.core.files import append, read_json, write_json


class Key(NamedTuple):
    """What tells the rows of an evaluation apart; the fields of a row with these names.

    task: "problems" or "role_play". persona: its id, None for the plain prompt.
    """

    task: str
    problem: str
    persona: str | None
    sample: int


def claim_folder(
    folder: Path,
    identity: dict[str, Any],
    rows: str = "completions.jsonl",
    remedy: str = "name another --out",
) -> None:
    """Writes evaluation.json, which says what is evaluated, or checks that the one there agrees.

    `rows` is the name of the file that the evaluation writes beside it, `remedy` what to do where
    the folder is another's.

    Raises ValueError, with the differing fields, for the folder of another evaluation.
    """
    path, mine = folder / "evaluation.json", json.loads(json.dumps(identity))
    if path.exists():
        theirs = read_json(path, "name another --out")
        if "config" in theirs:  # older ones name fields that change no answer
            theirs["config"] = fixed_fields(theirs["config"])
        if fields := differing_fields(mine, theirs):
            # Hashes differ wherever a field does, and say nothing then.
            fields = [field for field in fields if "sha256" not in field] or fields
            raise ValueError(
                f"{folder} belongs to another evaluation ({'; '.join(fields)}); {remedy}, "
                "or set these fields as they were"
            )
    elif (folder / rows).exists():
        raise ValueError(
            f"{folder} has {rows} but no evaluation.json to say what they are of; name "
            "another --out, or remove the folder"
        )
    else:
        write_json(path, mine)


class GradedRows:
    """The rows on disk: always the first so many of `keys`, in that order.

    Use as a context manager. The order is that of an uninterrupted evaluation, so that one that
    was interrupted ends in the same file, byte for byte. Of several processes, which all append the
    same rows, the main one writes.

    Args:
      path: of completions.jsonl; made if need be.
      keys: of all rows that the evaluation will have, at least one: named tuples of one kind, such
        as Key, whose fields the rows have too.
      batch_ends: numbers of rows after which a batch ends. Rows beyond the last whole batch are
        dropped, and made again: an answer is bit-equal only in the same batch.

    Attributes:
      rows: those that are there.

    Raises:
      ValueError: a row that is not JSON, but for the last one, which a kill may have cut off; or
        one that does not stand in its place. With file:line.
    """

    def __init__(self, path: Path, keys: Sequence[NamedTuple], batch_ends: Sequence[int]):
        self._path, self._keys = path, keys
        self.rows, ends = _read(path, keys)
        kept = max(end for end in (0, *batch_ends) if end <= len(self.rows))
        del self.rows[kept:]
        self._file = None
        if is_main():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            self._file.truncate(ends[kept])

    def append(self, rows: Sequence[dict]) -> None:
        """Returns when the rows are on disk. Raises ValueError if they are not the next ones, and
        OSError where the disk is full.
        """
        wanted = self._keys[len(self.rows) : len(self.rows) + len(rows)]
        if [_key(row, self._keys) for row in rows] != list(wanted):
            raise ValueError(f"{self._path}: rows out of order after row {len(self.rows)}")
        if self._file is not None:
            append(self._file, "".join(json.dumps(row) + "\n" for row in rows).encode())
        self.rows += rows

    def __enter__(self) -> "GradedRows":
        return self

    def __exit__(self, *_) -> None:
        if self._file is not None:
            self._file.close()


def _read(path: Path, keys: Sequence[NamedTuple]) -> tuple[list[dict], list[int]]:
    """The rows, and the offset in bytes after each number of them: one entry more than rows."""
    rows, ends = [], [0]
    content = path.read_bytes() if path.exists() else b""
    whole = content.rfind(b"\n") + 1  # what follows the last line break was cut off
    for number, line in enumerate(content[:whole].splitlines(keepends=True), start=1):
        try:
            row = json.loads(line)
            key = _key(row, keys)
        except (ValueError, TypeError, KeyError):
            remedy = "remove the file, or this line and all below, and go on"
            raise ValueError(f"{path}:{number}: not a row of an evaluation; {remedy}") from None
        if number > len(keys) or key != keys[number - 1]:
            raise ValueError(
                f"{path}:{number}: {key} is not the row that this evaluation has there; "
                "name another --out"
            )
        rows.append(row)
        ends.append(ends[-1] + len(line))
    return rows, ends


def _key(row: dict, keys: Sequence[NamedTuple]) -> tuple:
    return tuple(row[name] for name in keys[0]._fields)
