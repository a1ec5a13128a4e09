"""The file of events holds what TensorBoard reads, and a full disk is an error."""

import os
import struct

import pytest
from runs import FULL, needs_full_device
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c

from permix_jax.train.log import MetricsLog
from permix_jax.train.tensorboard import Events


def events_of(path) -> list[Event]:
    """The events of a file, whose checksums are checked."""
    content, found = path.read_bytes(), []
    while content:
        length, its_sum = struct.unpack("<QI", content[:12])
        assert its_sum == masked_crc32c(content[:8])
        event, (its_sum,) = (
            content[12 : 12 + length],
            struct.unpack_from("<I", content, 12 + length),
        )
        assert its_sum == masked_crc32c(event)
        found.append(Event.FromString(event))
        content = content[16 + length :]
    return found


def test_a_row_is_an_event_with_its_scalars(tmp_path):
    log = MetricsLog(tmp_path, 4)
    log.write({"step": 5, "loss": 0.25, "persona/a poet/accuracy": 1})
    [path] = (tmp_path / "tensorboard").iterdir()  # it is there before the log is closed
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
def test_a_full_disk_is_an_error_that_names_the_file(tmp_path):
    os.symlink(FULL, tmp_path / "events")
    with pytest.raises(OSError, match="No space left on device; .*events"):
        Events(tmp_path / "events", 0)


@needs_full_device
@pytest.mark.parametrize("file", ["_file", "_board"])
def test_a_disk_that_fills_ends_a_log_at_once(tmp_path, file):
    """Neither a thread that died nor a buffer keeps the row, and closing raises nothing more."""
    log = MetricsLog(tmp_path, 0)
    log.write({"step": 1, "loss": 0.5})
    filled = getattr(log, file) if file == "_file" else log._board._file
    with FULL.open("wb") as full:
        os.dup2(full.fileno(), filled.fileno())
    with pytest.raises(OSError, match="No space left on device; what is finished is kept"):
        log.write({"step": 2, "loss": 0.25})
    log.close()
