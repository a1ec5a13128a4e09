"""What a run writes beside its checkpoints: metrics as JSON lines and for TensorBoard."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from permix_jax.core.distributed import is_main
from permix_jax.core.files import append, json_rows, write_rows
from permix_jax.train.tensorboard import Events, events_path


class MetricsLog:
    """Appends one JSON object a step to `metrics.jsonl`, and the same to `tensorboard/`.

    Opened at `step`, it keeps the rows up to it and drops what a killed run wrote beyond its last
    checkpoint: those steps will be done again. Of several processes, the main one writes. Raises
    OSError that names the file where the disk is full.

    found: all rows that were there, none in the other processes.
    """

    def __init__(self, folder: Path, step: int):
        self._file, self.found = None, []
        if not is_main():
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "metrics.jsonl"
        self.found = read_rows(self._path)
        write_rows(self._path, [row for row in self.found if row["step"] <= step])
        self._file = self._path.open("ab", buffering=0)
        self._board = Events(events_path(folder / "tensorboard"), step)

    def write(self, row: Mapping[str, float]) -> None:
        if self._file is None:
            return
        append(self._file, json.dumps(row).encode() + b"\n", sync=False)
        self._board.write(row["step"], {name: x for name, x in row.items() if name != "step"})

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._board.close()


def write_completions(
    config: ConfigDict, workdir: Path, step: int, records: Sequence[Mapping]
) -> None:
    """Writes `completions/<step>.jsonl` if it is a step for it; the first and the last are."""
    t = config.train
    if is_main() and (step in (1, t.steps) or step % t.log_completions_every == 0):
        write_rows(workdir / "completions" / f"{step}.jsonl", records)


def read_rows(path: Path) -> list[dict]:
    """The rows of a JSONL file; a last line cut off by a kill is left out.

    Raises ValueError, naming file and line, where another line is not JSON.
    """
    return json_rows(path.read_text("utf-8").rpartition("\n")[0], path) if path.exists() else []


def without_clocks(rows: Iterable[Mapping[str, float]]) -> list[dict[str, float]]:
    """The metrics that a run which is made again has again."""
    return [
        {k: x for k, x in row.items() if not k.startswith("time/") and k != "tokens_per_second"}
        for row in rows
    ]
