"""The graded completions of an evaluation, one JSONL row each. A kill loses at most a batch."""

import json
from collections.abc import Sequence
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, NamedTuple

from permix_jax.core.distributed import is_main
from permix_jax.core.field_rules import fixed_fields
from permix_jax.core.fields import differing_fields
from permix_jax.core.files import append, read_json, write_json


class Key(NamedTuple):
    """The fields by which the rows of an evaluation differ.

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
    """Writes evaluation.json, which says what is evaluated, or checks that the existing one agrees.

    Raises ValueError, with the differing fields and the remedy, for the folder of another
    evaluation. `rows`: name of the file that the evaluation writes beside it.
    """
    path, identity = folder / "evaluation.json", json.loads(json.dumps(identity))
    if path.exists():
        claimed = read_json(path, "name another --out")
        if "config" in claimed:  # older ones name fields that change no answer
            claimed["config"] = fixed_fields(claimed["config"])
        if fields := differing_fields(identity, claimed):
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
        write_json(path, identity)


class GradedRows:
    """The rows on disk: always the first so many of those that are asked for, in their order.

    Use as a context manager. An interrupted evaluation ends in the same file, byte for byte, as an
    uninterrupted one. Of several processes, which all append the same rows, the main one writes.

    Args:
      path: of completions.jsonl; made if need be.
      batches: the keys of all rows of the evaluation, batch by batch, at least one: named tuples of
        one kind, such as Key. A row has fields of the same names. Rows beyond the last whole batch
        are dropped, and made again: an answer is bit-equal only in the same batch.

    Attributes:
      rows: those that are on disk. total: how many there will be.

    Raises:
      ValueError: a row is not JSON, or is not the one that belongs there; with file:line. A last
        row that a kill cut off is dropped.
    """

    def __init__(self, path: Path, batches: Sequence[Sequence[NamedTuple]]):
        self._path, self._keys, self._file = path, list(chain.from_iterable(batches)), None
        self.total = len(self._keys)
        self.rows, ends = self._read()
        whole = accumulate(map(len, batches), initial=0)
        kept = max(rows for rows in whole if rows <= len(self.rows))
        del self.rows[kept:]
        if is_main():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)
            self._file.truncate(ends[kept])

    def append(self, rows: Sequence[dict]) -> None:
        """Returns when the rows are on disk. Raises ValueError if they are not the next ones, and
        OSError where the disk is full.
        """
        expected = self._keys[len(self.rows) : len(self.rows) + len(rows)]
        if [self._key(row) for row in rows] != expected:
            raise ValueError(f"{self._path}: rows out of order after row {len(self.rows)}")
        if self._file is not None:
            append(self._file, "".join(json.dumps(row) + "\n" for row in rows).encode())
        self.rows += rows

    def __enter__(self) -> "GradedRows":
        return self

    def __exit__(self, *_) -> None:
        if self._file is not None:
            self._file.close()

    def _read(self) -> tuple[list[dict], list[int]]:
        """The rows, and the offset in bytes after each number of them: one entry more than rows."""
        rows, ends = [], [0]
        content = self._path.read_bytes() if self._path.exists() else b""
        whole = content.rfind(b"\n") + 1  # what follows the last line break was cut off
        for number, line in enumerate(content[:whole].splitlines(keepends=True)):
            where = f"{self._path}:{number + 1}"
            try:
                row = json.loads(line)
                key = self._key(row)
            except (ValueError, TypeError, KeyError):
                remedy = "remove the file, or this line and all below, and go on"
                raise ValueError(f"{where}: not a row of an evaluation; {remedy}") from None
            if number >= self.total or key != self._keys[number]:
                raise ValueError(
                    f"{where}: {key} is not the row that this evaluation has there; "
                    "name another --out"
                )
            rows.append(row)
            ends.append(ends[-1] + len(line))
        return rows, ends

    def _key(self, row: dict) -> tuple:
        return tuple(row[name] for name in self._keys[0]._fields)
