"""What a run writes beside its checkpoints: metrics as JSON lines, and for its loggers."""

import json
import logging
import socket
import struct
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from permix_jax.core.distributed import is_main
from permix_jax.core.files import append, json_rows, write_rows
from permix_jax.rollout.sampler import Completions
from permix_jax.train.batch import faulty_logprobs
from permix_jax.train.loggers import Loggers

_LOG = logging.getLogger(__name__)


class MetricsLog:
    """Appends one JSON object a step to `metrics.jsonl`, and sends the same to the loggers.

    Opened at `step`, it keeps the rows up to it and drops what a killed run wrote beyond its last
    checkpoint: those steps will be done again. TensorBoard no longer shows what was dropped. Of
    several processes, the main one writes. Raises OSError that names the file where the disk is
    full. (tensorboardX's own writer hands events to a thread. A full disk ends that thread, and the
    next event waits for it for ever.)

    tensorboard: whether `tensorboard/` gets the rows, too. loggers: services that do.
    found: all rows that were there, none in the other processes.
    """

    def __init__(
        self,
        folder: Path,
        step: int,
        tensorboard: bool = True,
        loggers: Loggers | None = None,
    ):
        self._rows, self._events, self.found = None, None, []
        self._loggers = loggers or Loggers()
        if not is_main():
            return
        rows = folder / "metrics.jsonl"
        self.found = read_rows(rows)
        self._loggers.begin(self.found, step)  # before the rows beyond `step` are gone
        write_rows(rows, [row for row in self.found if row["step"] <= step])
        self._rows = rows.open("ab", buffering=0)
        if tensorboard:
            # The name that TensorBoard looks for.
            name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}"
            events = folder / "tensorboard" / name
            events.parent.mkdir(parents=True, exist_ok=True)
            self._events = events.open("ab", buffering=0)
        self._write_event(file_version="brain.Event:2")
        self._write_event(step=step + 1, session_log={"status": "START"})

    def write(self, row: Mapping[str, float]) -> None:
        if self._rows is None:
            return
        append(self._rows, json.dumps(row).encode() + b"\n", sync=False)
        if self._events is not None:
            self._write_event(step=row["step"], summary=_scalars(row))
        self._loggers.write(row)

    def flush(self) -> None:
        """Returns when all rows survive a kill of the process: in a store, not all do at once."""
        for file in (self._rows, self._events):
            if file is not None:
                file.flush()

    def _write_event(self, **fields) -> None:
        """As a record: the length, its checksum, the event, its checksum."""
        if self._events is None:
            return
        # Takes two seconds where PyTorch is installed, which it imports.
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.record_writer import masked_crc32c

        content = Event(wall_time=time.time(), **fields).SerializeToString()
        length = struct.pack("<Q", len(content))
        sums = [struct.pack("<I", masked_crc32c(part)) for part in (length, content)]
        append(self._events, length + sums[0] + content + sums[1], sync=False)

    def close(self) -> None:
        for file in (self._rows, self._events):
            if file is not None:
                file.close()


def _scalars(row: Mapping[str, float]) -> Any:
    """TensorBoard's message, a `Summary`, of the metrics of a step."""
    from tensorboardX.proto.summary_pb2 import Summary
    from tensorboardX.summary import scalar

    named = {name: x for name, x in row.items() if name != "step"}
    return Summary(value=[value for name, x in named.items() for value in scalar(name, x).value])


def write_completions(
    config: ConfigDict, workdir: Path, step: int, records: Sequence[Mapping], loggers: Loggers
) -> None:
    """Writes `completions/<step>.jsonl` every `train.log_completions_every` steps, and of the first
    and the last. The loggers get some of its rows with the step's metrics."""
    t = config.train
    if is_main() and (step in (1, t.steps) or step % t.log_completions_every == 0):
        write_rows(workdir / "completions" / f"{step}.jsonl", records)
        loggers.completions(records)


def warn_of_faults(completions: Completions, step: int) -> None:
    """Warns of the rollouts of a step that the loss leaves out for their log-probs, in one line."""
    faulty = faulty_logprobs(completions)
    rollouts = np.flatnonzero(faulty.any(axis=1))
    if not len(rollouts) or not is_main():
        return
    first, token = rollouts[0], faulty[rollouts[0]].argmax()
    _LOG.warning(
        "step %d: %d of %d rollouts are left out of the loss, first rollout %d: its token %d was "
        "sampled with log-prob %s, not a number up to 0; use model.dtype=float32, or lower "
        "train.learning_rate",
        step, len(rollouts), len(faulty), first, token, completions.logprobs[first, token],
    )  # fmt: skip


def read_rows(path: Path) -> list[dict]:
    """The rows of a JSONL file; a last line cut off by a kill is left out.

    Raises ValueError, naming file and line, where another line is not JSON.
    """
    return json_rows(path.read_text("utf-8").rpartition("\n")[0], path) if path.exists() else []


def without_clocks(rows: Iterable[Mapping[str, float]]) -> list[dict[str, float]]:
    """The metrics without time, speed and memory: what another run of the same config has again."""
    of_the_machine = ("time/", "perf/", "tokens_per_second")
    return [{k: x for k, x in row.items() if not k.startswith(of_the_machine)} for row in rows]
