"""Checkpoints in an object store: they come back, and only whole ones count."""

from contextlib import closing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from permix_jax.core.places import place_of
from permix_jax.train.checkpoints import Checkpoints, DamagedError, Keep, newest_step
from permix_jax.train.saved_steps import saved_steps


@pytest.fixture
def folder(request):
    address = place_of(f"memory://{request.node.name}/run/checkpoints")
    yield address
    address.remove()


def names(folder) -> list[str]:
    """Of the checkpoints that have a file: the store in memory keeps empty folders."""
    return sorted({name.partition("/")[0] for name in folder.files()})


def arrays(step: int) -> dict:
    return {"a": jnp.arange(12.0).reshape(3, 4) * step, "b": jnp.full(3, step, jnp.int32)}


def save(folder, *steps: int, keep: Keep | None = None) -> None:
    with closing(Checkpoints(folder, keep)) as checkpoints:
        for step in steps:
            checkpoints.save(step, arrays(step), {"m": arrays(-step)})


def restored(folder) -> tuple[int, dict]:
    abstract = jax.eval_shape(lambda: arrays(1))
    here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda x: x.update(sharding=here), abstract)
    with closing(Checkpoints(folder)) as checkpoints:
        return checkpoints.restore({"params": abstract, "optimizer": {"m": abstract}})


def test_the_newest_comes_back_and_as_many_stay_as_asked(folder):
    save(folder, 1, 2, 3, 4, keep=Keep(newest=2, steps=(1,)))
    assert saved_steps(folder) == [1, 3, 4] and newest_step(folder) == 4
    assert names(folder) == ["1", "3", "4"]
    step, items = restored(folder)
    assert step == 4
    for mine, theirs in ((items["params"], arrays(4)), (items["optimizer"]["m"], arrays(-4))):
        jax.tree.map(np.testing.assert_array_equal, mine, theirs)


def test_what_not_all_processes_have_sent_does_not_count_and_is_replaced(folder):
    save(folder, 1, 2)
    mark = folder / "2" / "sent.0-of-1"
    (folder / "2" / "sent.0-of-2").write_bytes(mark.read_bytes())
    mark.unlink()
    (folder / "2" / "params" / "ocdbt.process_1" / "manifest.ocdbt").write_bytes(b"of a killed one")
    assert saved_steps(folder) == [1] and restored(folder)[0] == 1
    save(folder, 2)
    assert restored(folder)[0] == 2
    assert not [name for name in folder.files() if "process_1" in name]


@pytest.mark.parametrize("damage", ["missing", "short", "flipped", "unlisted"])
def test_a_damaged_one_is_set_aside_and_the_one_before_it_taken(folder, damage):
    save(folder, 1, 2)
    of_two = folder / "2"
    name, _ = max(of_two.files().items(), key=lambda of: ("/d/" in of[0], of[1]))
    content = (of_two / name).read_bytes()
    if damage == "missing":
        (of_two / name).unlink()
    elif damage == "short":
        (of_two / name).write_bytes(content[:-1])
    elif damage == "flipped":
        flipped = bytes([content[0] ^ 1]) + content[1:]
        for data in [n for n in of_two.files() if "/d/" in n]:
            old = (of_two / data).read_bytes()
            (of_two / data).write_bytes(old if data != name else flipped)
    else:
        (of_two / "sent.0-of-1").write_bytes(b"{")
    assert restored(folder)[0] == 1
    assert saved_steps(folder) == [1]
    assert names(folder) == ["1", "corrupt-2"]


def test_a_run_does_not_begin_anew_over_damaged_checkpoints(folder):
    save(folder, 1)
    (folder / "1" / "checksums" / "metadata").write_bytes(b"{}")
    with pytest.raises(DamagedError, match=f"{folder}: every checkpoint is damaged .corrupt-1"):
        restored(folder)


def test_no_checkpoint_leaves_a_local_folder_behind(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    save(folder, 1)
    restored(folder)
    assert not list(tmp_path.iterdir())
