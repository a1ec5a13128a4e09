import json
import os
import struct
from pathlib import Path

import pytest
from runs import FULL, needs_full_device
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from permix_jax.core.files import write_rows
from permix_jax.train.log import MetricsLog, read_rows


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write_steps(folder, done, steps):
    log = MetricsLog(folder, done)
    for step in steps:
        log.write({"step": step, "loss": step / 4})
    log.close()


def test_resuming_drops_the_rows_beyond_the_checkpoint_alone(tmp_path):
    write_steps(tmp_path, 0, [1, 2, 3, 4, 5])
    write_steps(tmp_path, 3, [4])
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2, 3, 4]
    write_steps(tmp_path, 4, [])
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2, 3, 4]


@pytest.mark.parametrize("torn", ['{"step": 3, "lo', '{"step": 3, "loss": 1.0}', "{"])
def test_a_last_line_without_its_end_is_dropped(tmp_path, torn):
    write_steps(tmp_path, 0, [1, 2])
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(torn)
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2]
    write_steps(tmp_path, 3, [4])
    assert [row["step"] for row in rows_of(tmp_path)] == [1, 2, 4]


def test_what_is_read_is_what_was_written(tmp_path):
    rows = [{"text": "a\nb \u2028 é"}, {"x": [1, None, 0.1]}]
    write_rows(tmp_path / "deep" / "rows.jsonl", rows)
    assert read_rows(tmp_path / "deep" / "rows.jsonl") == rows
    assert read_rows(tmp_path / "absent.jsonl") == []
    write_rows(tmp_path / "rows.jsonl", [])
    assert read_rows(tmp_path / "rows.jsonl") == []


@pytest.mark.parametrize("killed_in", ["write_bytes", "replace"])
def test_a_kill_while_rewriting_leaves_the_old_file(tmp_path, monkeypatch, killed_in):
    path = tmp_path / "rows.jsonl"
    write_rows(path, [{"step": 1}])

    def killed(self, *_):
        self.touch()  # as far as it got
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, killed_in, killed)
        with pytest.raises(KeyboardInterrupt):
            write_rows(path, [{"step": 2}])
    assert read_rows(path) == [{"step": 1}]
    write_rows(path, [{"step": 3}])
    assert read_rows(path) == [{"step": 3}]
    assert [file.name for file in tmp_path.iterdir()] == ["rows.jsonl"]


def test_a_line_that_is_not_json_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n{"st\n{"step": 3}\n')
    with pytest.raises(ValueError, match=r"metrics.jsonl:2: not JSON; mend"):
        read_rows(tmp_path / "metrics.jsonl")


def events_of(path) -> list[Event]:
    """The events of a file, whose checksums are checked."""
    content, events = path.read_bytes(), []
    while content:
        length, checksum = struct.unpack("<QI", content[:12])
        assert checksum == masked_crc32c(content[:8])
        event = content[12 : 12 + length]
        (checksum,) = struct.unpack_from("<I", content, 12 + length)
        assert checksum == masked_crc32c(event)
        events.append(Event.FromString(event))
        content = content[16 + length :]
    return events


def test_a_row_is_an_event_with_its_scalars(tmp_path):
    log = MetricsLog(tmp_path, 4)
    log.write({"step": 5, "loss": 0.25, "persona/a poet/accuracy": 1})
    [path] = (tmp_path / "tensorboard").iterdir()  # it is there before the log is closed
    assert rows_of(tmp_path) == [{"step": 5, "loss": 0.25, "persona/a poet/accuracy": 1}]
    version, start, event = events_of(path)
    log.close()
    assert path.name.startswith("events.out.tfevents.")
    assert version.file_version == "brain.Event:2"
    # What an earlier start wrote of step 5 is not shown.
    assert (start.session_log.status, start.step) == (SessionLog.START, 5)
    assert event.step == 5 and event.wall_time >= version.wall_time > 0
    scalars = {value.tag: value.simple_value for value in event.summary.value}
    assert scalars == {"loss": 0.25, "persona/a_poet/accuracy": 1.0}


@needs_full_device
@pytest.mark.parametrize(("file", "name"), [("_rows", "metrics.jsonl"), ("_events", "tfevents")])
def test_a_disk_that_fills_ends_a_log_at_once(tmp_path, file, name):
    """Neither a thread that died nor a buffer keeps the row, and closing raises nothing more."""
    log = MetricsLog(tmp_path, 0)
    log.write({"step": 1, "loss": 0.5})
    with FULL.open("wb") as full:
        os.dup2(full.fileno(), getattr(log, file).fileno())
    with pytest.raises(OSError, match=f"No space left on device; what is finished is kept.*{name}"):
        log.write({"step": 2, "loss": 0.25})
    log.close()
