"""What was saved comes back, on any mesh, whatever happened to the newest checkpoint."""

import logging
import shutil
from contextlib import closing
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

from permix_jax.core.sharding import make_mesh
from permix_jax.models.params import abstract_like, abstract_params
from permix_jax.models.transformer import Decoder
from permix_jax.train.checkpoints import (
    Checkpoints,
    DamagedError,
    Keep,
    MisfitError,
    load_params,
)
from permix_jax.train.damage import find_damage


def opened(folder, **options):
    return closing(Checkpoints(folder, **options))


def assert_equal(actual, wanted):
    assert jax.tree.structure(actual) == jax.tree.structure(wanted)
    for mine, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(wanted), strict=True):
        assert mine.dtype == theirs.dtype
        np.testing.assert_array_equal(mine, theirs)


@pytest.fixture(scope="module")
def optimizer_state(tiny_params):
    """Adam's state with numbers of its own in it."""
    state = jax.jit(optax.adam(1e-3).init)(tiny_params)
    return {"step": jnp.int32(7), "opt_state": jax.tree.map(lambda x: x + 3, state)}


@pytest.fixture(scope="module")
def shapes(tiny_model, mesh):
    return {"params": abstract_params(tiny_model, mesh)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory, tiny_params):
    folder = tmp_path_factory.mktemp("saved")
    with opened(folder) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, jax.tree.map(lambda x: x * step, tiny_params))  # noqa: B023
    return folder


@pytest.fixture
def three(saved, tmp_path):
    """A folder with checkpoints 1, 2 and 3 of tiny_params times 1, 2 and 3."""
    return shutil.copytree(saved, tmp_path, dirs_exist_ok=True)


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def files_of(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def flip(file, position: int, bit: int = 2) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)


def spoil(folder, how: str) -> None:
    """Breaks a checkpoint's files as a full disk, a careless hand or a cosmic ray would."""
    files = files_of(folder)
    assert files
    if how == "flipped":
        largest = max(files_of(folder / "params"), key=lambda path: path.stat().st_size)
        flip(largest, largest.stat().st_size // 2)
    for path in files:
        if how == "truncated":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif how == "emptied":
            path.write_bytes(b"")
        elif how == "arrays gone" and "METADATA" not in path.name.upper():
            path.unlink()


def test_a_save_survives_the_donation_of_what_was_saved(tmp_path, tiny_params, optimizer_state):
    params, optimizer = jax.tree.map(jnp.copy, (tiny_params, optimizer_state))
    like = {"params": abstract_like(params), "optimizer": abstract_like(optimizer)}
    update = jax.jit(partial(jax.tree.map, lambda x: -x - 1), donate_argnums=0)

    with opened(tmp_path) as checkpoints:
        checkpoints.save(5, params, optimizer)
        updated = jax.block_until_ready((update(params), update(optimizer)))
        # Where a save still reads an array, a CPU device copies it and does not give up its memory.
        checkpoints.wait()
        step, items = checkpoints.restore(like)
    assert step == 5
    assert_equal(items["params"], tiny_params)
    assert_equal(items["optimizer"], optimizer_state)
    assert (np.asarray(updated[0]["embedding"]) != tiny_params["embedding"]).all()


def test_parameters_alone_load_onto_another_mesh(
    tmp_path, tiny_model, tiny_params, optimizer_state
):
    cube = make_mesh(2, 2, 2)
    with opened(tmp_path) as checkpoints:
        checkpoints.save(1, tiny_params, optimizer_state)
    params = load_params(tmp_path, tiny_model, cube)
    assert_equal(params, tiny_params)
    placed = jax.tree.map(lambda x: x.sharding, (params, abstract_params(tiny_model, cube)))
    assert placed[0] == placed[1]
    gate = params["layers_0"]["mlp"]["gate"]
    assert {shard.data.shape for shard in gate.addressable_shards} == {(8, 12)}


def test_load_params_takes_the_newest_or_the_step_it_is_told(three, tiny_model, tiny_params, mesh):
    for step, factor in ((None, 3), (2, 2), (1, 1)):
        params = load_params(three, tiny_model, mesh, step)
        np.testing.assert_array_equal(params["embedding"], tiny_params["embedding"] * factor)
    with pytest.raises(FileNotFoundError, match=r"no checkpoint 9; there are \[1, 2, 3\]"):
        load_params(three, tiny_model, mesh, 9)


def test_what_stays_is_asked_at_each_save(tmp_path, tiny_params):
    keep = Keep(1, steps=[2], best=1)
    with opened(tmp_path, keep=keep) as checkpoints:
        for step in (1, 2, 3, 4):
            checkpoints.save(step, tiny_params)
        assert checkpoints.all_steps() == [1, 2, 4]
        keep.best = 4
        checkpoints.save(5, tiny_params)
        assert checkpoints.all_steps() == [2, 4, 5]
    assert names(tmp_path) == {"2", "4", "5"}


def test_the_newest_n_are_kept(tmp_path, tiny_params):
    with opened(tmp_path, keep=Keep(2)) as checkpoints:
        for step in (10, 20, 30, 40):
            checkpoints.save(step, tiny_params)
        checkpoints.wait()
        assert checkpoints.all_steps() == [30, 40]
        assert checkpoints.latest_step() == 40
    assert names(tmp_path) == {"30", "40"}


# Orbax's readers are cut off by the error, and say so when they are collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how", ["truncated", "emptied", "arrays gone", "flipped"])
def test_a_broken_newest_checkpoint_is_named_and_falls_back_to_the_one_before(
    three, tiny_model, tiny_params, mesh, shapes, caplog, how
):
    spoil(three / "3", how)
    with pytest.raises(DamagedError, match=r"/3: damaged \(.*; move its folder away and"):
        load_params(three, tiny_model, mesh)
    broken = {p.relative_to(three / "3") for p in (three / "3").rglob("*")}
    with opened(three) as checkpoints:
        with caplog.at_level(logging.WARNING, "permix_jax.train.checkpoints"):
            step, items = checkpoints.restore(shapes)
        assert step == 2
        assert_equal(items["params"], jax.tree.map(lambda x: x * 2, tiny_params))
        message = caplog.messages[-1]
        assert str(three / "3") in message and "corrupt-3" in message and "\n" not in message
        # Nothing else is lost, the broken one included, and training goes on over it.
        assert broken <= {p.relative_to(three / "corrupt-3") for p in three.glob("corrupt-3/**/*")}
        assert checkpoints.all_steps() == [1, 2]
        checkpoints.save(3, tiny_params)
        checkpoints.wait()
        assert checkpoints.restore(shapes)[0] == 3


def test_where_every_checkpoint_is_damaged_nothing_begins_anew(three, shapes):
    for step in "123":
        spoil(three / step, "emptied")
    for _ in range(2):  # also the next start, which finds no checkpoint but those set aside
        with (
            opened(three) as checkpoints,
            pytest.raises(DamagedError, match=f"{three}: every checkpoint is damaged .*corrupt-1"),
        ):
            checkpoints.restore(shapes)
    assert names(three) == {"corrupt-1", "corrupt-2", "corrupt-3"}


def test_a_step_that_breaks_twice_is_set_aside_twice(three, tiny_params, shapes):
    for _ in range(2):
        spoil(three / "3", "emptied")
        with opened(three) as checkpoints:
            assert checkpoints.restore(shapes)[0] == 2
            checkpoints.save(3, tiny_params)
    assert names(three) == {"1", "2", "3", "corrupt-3", "corrupt-3-2"}


def test_what_is_wrong_with_the_optimiser_is_found(tmp_path, tiny_params, optimizer_state):
    """An array more than was saved is named, and renames nothing; damage beside scalars is seen."""
    params, optimizer = abstract_like((tiny_params, optimizer_state))
    more = {**optimizer, "opt_state": (*optimizer["opt_state"], {"new": optimizer["step"]})}
    with opened(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save(step, tiny_params, optimizer_state)
        checkpoints.wait()
        with pytest.raises(MisfitError, match="/2: the checkpoint has no array opt_state/2/new;"):
            checkpoints.restore({"params": params, "optimizer": more})
        assert find_damage(tmp_path / "2", None, True) == ""
        assert names(tmp_path) == {"1", "2"}
        file = max(files_of(tmp_path / "2/optimizer"), key=lambda path: path.stat().st_size)
        file.write_bytes(file.read_bytes()[:-20])
        assert checkpoints.restore({"params": params, "optimizer": optimizer})[0] == 1
    assert names(tmp_path) == {"1", "corrupt-2"}


@pytest.mark.parametrize(
    ("error", "of_metadata_too"),
    [
        (RuntimeError("RESOURCE_EXHAUSTED"), False),
        (PermissionError(13, "denied"), False),
        (KeyError("x"), False),
        (MemoryError(), True),
        (AttributeError("x"), True),
        (ValueError("RESOURCE_EXHAUSTED: x"), True),
        (OSError(5, "EIO"), True),
    ],
)
def test_an_error_that_is_not_damage_is_raised_and_renames_nothing(
    three, shapes, monkeypatch, error, of_metadata_too
):
    def failing(*_, **__):
        raise error

    with opened(three) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "restore", failing)
        if of_metadata_too:
            monkeypatch.setattr(ocp.StandardCheckpointHandler, "metadata", failing)
        with pytest.raises(type(error)) as raised:
            checkpoints.restore(shapes)
    assert raised.value is error
    assert names(three) == {"1", "2", "3"}


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_flipped_bit_anywhere_is_never_restored(tmp_path):
    """Whatever file it is in, the arrays come back as they were, or damage is reported."""
    params = {"w": jax.random.normal(jax.random.key(0), (16, 24)), "b": jnp.arange(7.0)}
    good, rng, outcomes = tmp_path / "good", np.random.default_rng(0), set()
    with opened(good) as checkpoints:
        checkpoints.save(1, params)
    for number, file in enumerate(sorted(files_of(good))):
        copy = shutil.copytree(good, tmp_path / str(number))
        flip(copy / file.relative_to(good), rng.integers(file.stat().st_size), rng.integers(8))
        with opened(copy) as checkpoints:
            try:
                restored = checkpoints.read(1, {"params": abstract_like(params)})["params"]
            except DamagedError:
                outcomes.add("damaged")
            else:
                assert_equal(restored, params)
                outcomes.add("restored")
    assert outcomes == {"restored", "damaged"}


def test_a_checkpoint_of_before_checksums_is_restored(three, tiny_model, tiny_params, mesh):
    shutil.rmtree(three / "3/checksums")
    listed = three / "3/_CHECKPOINT_METADATA"
    listed.write_text(listed.read_text().replace("checksums", "other"))
    assert_equal(load_params(three, tiny_model, mesh), jax.tree.map(lambda x: x * 3, tiny_params))
    shutil.rmtree(three / "3/params")
    with pytest.raises(MisfitError, match="/3: the checkpoint holds no parameters; name one that"):
        load_params(three, tiny_model, mesh)


def test_a_save_that_was_killed_half_way_is_no_checkpoint(three, tiny_params):
    (three / "3").rename(three / "3.orbax-checkpoint-tmp")
    with opened(three) as checkpoints:
        assert checkpoints.all_steps() == [1, 2]
        checkpoints.save(3, tiny_params)
        checkpoints.wait()
        assert checkpoints.all_steps() == [1, 2, 3]


def test_no_checkpoint_at_all(tmp_path, tiny_model, mesh, shapes):
    with opened(tmp_path / "fresh") as checkpoints:
        assert checkpoints.latest_step() is None and checkpoints.all_steps() == []
        assert checkpoints.restore(shapes) is None
    with pytest.raises(FileNotFoundError, match="no checkpoint at all"):
        load_params(tmp_path / "fresh", tiny_model, mesh)
    with pytest.raises(FileNotFoundError, match="no such folder of checkpoints"):
        load_params(tmp_path / "absent", tiny_model, mesh)
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"mlp_dim": 32}, r"layers_0/mlp/down has shape \(24, 16\), in the config \(32, 16\)"),
        ({"num_layers": 3}, "the checkpoint has no parameter layers_2/"),
        ({"num_layers": 1}, "the config's policy has no parameter layers_1/"),
    ],
)
def test_parameters_of_another_architecture_are_refused(three, tiny_model, mesh, fields, message):
    other = Decoder(replace(tiny_model.config, **fields))
    with pytest.raises(ValueError, match=message + ".*; it is of another architecture"):
        load_params(three, other, mesh)
