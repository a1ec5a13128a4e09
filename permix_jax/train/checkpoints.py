"""Orbax checkpoints: saved asynchronously by a trainer, read by trainers and evaluators alike.

Layout: `<directory>/<step>/params`, `<step>/checksums`, a record of the arrays
(`checksums.py`), and while training may still go on `<step>/optimizer`.
"""

import itertools
import json
import logging
from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh

from permix_jax.core.distributed import alone, any_process, gather, on_main
from permix_jax.core.places import Address, place_of
from permix_jax.models.params import abstract_params, split_trained
from permix_jax.models.transformer import Decoder
from permix_jax.train.checksums import checksums, opened, path_name, sealed, shapes
from permix_jax.train.damage import find_damage
from permix_jax.train.mirror import Mirror, MissingError

logger = logging.getLogger(__name__)

Saved = dict[str, dict[str, list]]  # item -> path of an array -> [shape, dtype, checksum]
Shapes = dict[str, tuple[tuple[int, ...], str]]  # path of an array -> (shape, dtype)


_ITEMS = "params", "optimizer", "checksums"


class DamagedError(ValueError):
    """The files of a checkpoint are not what was saved."""


class MisfitError(ValueError):
    """A checkpoint is whole, but of another model, optimiser or kind."""


@dataclass
class Keep:
    """Which checkpoints stay: the `newest` so many, those of `steps`, and that of the step `best`.

    It is Orbax's PreservationPolicy, asked at every save. All processes must have the same `best`.
    """

    newest: int
    steps: Collection[int] = ()
    best: int | None = None

    def should_preserve(self, checkpoints: Sequence, *, context: Any) -> list[bool]:
        """For each checkpoint, in the order of their steps, whether it stays."""
        stay = {info.step for info in checkpoints[-self.newest :]} | {*self.steps, self.best}
        return [info.step in stay for info in checkpoints]


class _Info(NamedTuple):
    """What `Keep` asks of a checkpoint."""

    step: int


def _stays(keep: Keep | None, steps: Sequence[int]) -> list[bool]:
    """For each of the steps whether its checkpoint stays."""
    infos = [_Info(step) for step in steps]
    return keep.should_preserve(infos, context=None) if keep else [True] * len(steps)


class Checkpoints:
    """The checkpoints of one run; `keep` says which stay (None: all)."""

    def __init__(self, directory: Path, keep: Keep | None = None):
        self.directory, self._keep = place_of(directory).absolute(), keep
        self._mirror = Mirror(self.directory) if isinstance(self.directory, Address) else None
        self._local = self._mirror.local if self._mirror else self.directory
        if self._mirror and not alone():
            self._manager = _manager_of_own_files(self._local)
        else:
            policy = None if self._mirror else keep  # a mirror has one checkpoint at a time
            options = ocp.CheckpointManagerOptions(preservation_policy=policy)
            self._manager = ocp.CheckpointManager(self._local, options=options, item_names=_ITEMS)

    def latest_step(self) -> int | None:
        return max(self.all_steps(), default=None)

    def all_steps(self) -> list[int]:
        return self._mirror.steps() if self._mirror else sorted(self._manager.all_steps())

    def save(self, step: int, params, optimizer: Any = None) -> None:
        """Starts saving and returns; the arrays may be donated right afterwards."""
        items = {"params": params} | ({} if optimizer is None else {"optimizer": optimizer})
        sums = {name: checksums(item) for name, item in items.items()}
        saves = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        saves["checksums"] = ocp.args.JsonSave(sealed({"orbax": ocp.__version__, "items": sums}))
        if self._mirror:
            self.wait()
            self._mirror.clear(step)
        self._manager.save(step, args=ocp.args.Composite(**saves))
        if self._mirror:
            keep = self._keep and replace(self._keep)  # as it is now
            self._mirror.send(step, self._manager.wait_until_finished, partial(_stays, keep))

    def restore(self, abstract: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """(step, items) of the newest undamaged checkpoint; None where none was ever saved here.

        `abstract` has for each item a pytree of ShapeDtypeStructs with shardings. A damaged
        checkpoint is renamed to `corrupt-<step>`, with a warning, and the one before it is tried.
        Nothing is renamed for any other reason.

        Raises:
          DamagedError: every checkpoint is damaged, now or since an earlier start.
          MisfitError, or whatever else keeps the newest undamaged checkpoint from being restored.
        """
        while (step := self.latest_step()) is not None:
            try:
                return step, self.read(step, abstract)
            except DamagedError as error:
                self._set_aside(step, error)
        if aside := sorted(path.name for path in self.directory.glob("corrupt-*")):
            raise DamagedError(
                f"{self.directory}: every checkpoint is damaged ({', '.join(aside)}); put back a "
                "copy of one under its step as name, or move the folder away to begin anew"
            )
        return None

    def read(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        """The items of one checkpoint that `abstract` names, verified. All processes call it.

        Raises:
          DamagedError: its files are provably not what was saved.
          MisfitError: its arrays are not those of `abstract`; the message names one.
          Any other error is raised as it is.
        """
        place, value, error = self.directory / str(step), abstract, None
        # After each stage all agree: no process goes on where another has failed.
        for stage in (self._as_saved, self._restored, self._verified):
            try:
                value = stage(step, value)
            except Exception as raised:  # all processes decide below what it means
                error = raised
            if any_process(error is not None):
                break
        else:
            return jax.tree.map(lambda x, wanted: x.astype(wanted.dtype), value, abstract)
        known = isinstance(error, DamagedError | MisfitError)
        reasons = dict(gather((type(error), str(error)) if known else (None, "")))
        if not reasons.keys() - {None}:
            logger.warning("%s cannot be restored; looking for damaged files", place)
            if damage := on_main(partial(self._find_damage, step)):
                reasons[DamagedError] = damage
        if DamagedError in reasons:
            raise DamagedError(f"{place}: damaged ({reasons[DamagedError]})") from error
        if MisfitError in reasons:
            raise MisfitError(f"{place}: {reasons[MisfitError]}") from error
        raise error or RuntimeError(f"{place}: another process could not restore it")

    def _find_damage(self, step: int) -> str:
        """What is wrong with the files; "" where no damage is proven."""
        if self._mirror and not (self._local / str(step)).exists():  # it could not be fetched
            return ""
        try:
            record = self._record(step)
            same = record.get("orbax") == ocp.__version__
            return find_damage(self._local / str(step), record.get("items"), same)
        except Exception as error:
            logger.warning("%s: no damage can be proven (%s)", self.directory / str(step), error)
            return ""

    def _as_saved(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        """`abstract` in the dtypes that were saved. Raises where its arrays are not those saved."""
        self.wait()
        if self._mirror:
            try:
                self._mirror.fetch(step, [*abstract, "checksums"])
            except MissingError as error:
                raise DamagedError(str(error)) from error
            self._manager.reload()
        saved, items = self._record(step).get("items"), {}
        for name, item in abstract.items():
            on_disk = self._shapes(step, name, saved)
            _require_fit(name, on_disk, shapes(item))
            items[name] = jax.tree_util.tree_map_with_path(
                lambda path, x, on_disk=on_disk: x.update(dtype=on_disk[path_name(path)][1]), item
            )
        return items

    def _restored(self, step: int, as_saved: dict[str, Any]) -> dict[str, Any]:
        restores = {name: ocp.args.StandardRestore(item) for name, item in as_saved.items()}
        restored = self._manager.restore(step, args=ocp.args.Composite(**restores))
        return {name: restored[name] for name in as_saved}

    def _verified(self, step: int, items: dict[str, Any]) -> dict[str, Any]:
        """`items`. Raises DamagedError where the record, if there is one, has another checksum."""
        saved = self._record(step).get("items")
        for name, item in items.items() if saved else ():
            facts = checksums(item)
            if wrong := [path for path in facts if facts[path] != saved[name][path]]:
                raise DamagedError(f"{name}/{wrong[0]} has another checksum than when it was saved")
        return items

    def _set_aside(self, step: int, error: DamagedError) -> None:
        """Renames a checkpoint to `corrupt-<step>`, or `corrupt-<step>-2` where there is one."""
        names = (f"corrupt-{step}{f'-{n}' if n > 1 else ''}" for n in itertools.count(1))
        aside = next(path for n in names if not (path := self.directory / n).exists())
        logger.warning("%s; set aside as %s, the one before it is tried", error, aside.name)
        if self._mirror:
            self._mirror.set_aside(step, aside.name)
        else:
            on_main(partial((self.directory / str(step)).rename, aside))
        self._manager.reload()

    def _record(self, step: int) -> dict[str, Any]:
        """What `save` wrote beside the arrays: `items` with their checksums, Orbax's version.

        {} where an earlier version of permix_jax saved the checkpoint, without a record. Raises
        DamagedError where the record is missing or is not as it was written.
        """
        folder = self._local / str(step)
        file, listed = folder / "checksums/metadata", folder / "_CHECKPOINT_METADATA"
        if not file.exists():
            if listed.exists() and b'"checksums"' in listed.read_bytes():
                raise DamagedError("the record of checksums is missing")
            return {}
        try:
            return opened(json.loads(file.read_bytes()))
        except (ValueError, TypeError) as error:
            raise DamagedError("the record of checksums is not as it was written") from error

    def _shapes(self, step: int, name: str, saved: Saved | None) -> Shapes:
        """Those of an item; empty where it was not saved."""
        if saved is not None:
            return {path: (tuple(x[0]), x[1]) for path, x in saved.get(name, {}).items()}
        place = epath.Path(self._local / str(step) / name)
        if not place.is_dir():
            return {}
        return shapes(ocp.StandardCheckpointHandler().metadata(place).tree)

    def wait(self) -> None:
        """Returns when all saves are on disk, or in the store."""
        if self._mirror:
            self._mirror.wait()
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves in flight, and lets go of the folder."""
        try:
            if self._mirror:
                self._mirror.close()
        finally:
            self._manager.close()


class _OwnArrays(ocp.StandardCheckpointHandler):
    """Writes what this process has of the arrays, which `Mirror.fetch` joins with the others'."""

    def finalize(self, directory: Path) -> None:
        """Joins nothing: Orbax would look for what the other processes have written."""


def _manager_of_own_files(folder: Path) -> ocp.CheckpointManager:
    """Saves what this process has of the arrays, into a folder of its own, without the others."""
    folder.mkdir()
    own = jax.process_index()
    processes = ocp.options.MultiprocessingOptions(
        primary_host=None, active_processes={own}, barrier_sync_key_prefix=f"process-{own}"
    )
    arrays = _OwnArrays(multiprocessing_options=processes)
    record = ocp.JsonCheckpointHandler(multiprocessing_options=processes)
    handlers = ocp.handlers.DefaultCheckpointHandlerRegistry()
    for item in ("params", "optimizer"):
        handlers.add(item, ocp.args.StandardSave, arrays)
        handlers.add(item, ocp.args.StandardRestore, arrays)
    handlers.add("checksums", ocp.args.JsonSave, record)
    # Made in the background, the folders of one process would be taken for those of another.
    folders = ocp.AsyncOptions(create_directories_asynchronously=False)
    options = ocp.CheckpointManagerOptions(
        create=False, multiprocessing_options=processes, async_options=folders
    )
    return ocp.CheckpointManager(folder, options=options, handler_registry=handlers)


def newest_step(directory: Path, wanted: int | None = None) -> int:
    """`wanted`, or the newest checkpoint's step. Raises FileNotFoundError if it is not there."""
    if not place_of(directory).is_dir():
        raise FileNotFoundError(f"{directory}: no such folder of checkpoints")
    with closing(Checkpoints(directory)) as checkpoints:
        steps = checkpoints.all_steps()
    if not steps or wanted not in (None, *steps):
        which = "at all" if wanted is None else wanted
        raise FileNotFoundError(f"{directory}: no checkpoint {which}; there are {steps}")
    return steps[-1] if wanted is None else wanted


def load_params(directory: Path, model: Decoder, mesh: Mesh, step: int | None = None):
    """The trained parameters of a checkpoint (the newest, or that of `step`), onto `mesh`.

    Where the model has adapters, these alone. Their dtypes are the model's, not those on disk.

    Raises:
      FileNotFoundError: there is no checkpoint.
      DamagedError, MisfitError: see `Checkpoints.read`.
    """
    step = newest_step(directory, step)
    abstract, _ = split_trained(model, abstract_params(model, mesh))
    with closing(Checkpoints(directory)) as checkpoints:
        try:
            return checkpoints.read(step, {"params": abstract})["params"]
        except DamagedError as error:
            remedy = "move its folder away and launch/train.py makes it again, or name another step"
            raise DamagedError(f"{error}; {remedy}") from error


# Item -> what it is, an array of it, and who wants it.
_WORDS = {
    "params": ("parameters", "parameter", "the config's policy"),
    "optimizer": ("state of an optimiser", "array", "this run's optimiser"),
}
_REMEDY = {
    "params": "it is of another architecture; give the config of its run",
    "optimizer": "another version of the optimiser or of permix_jax saved it; go on with that "
    "version, or name another workdir",
}


def _require_fit(name: str, saved: Shapes, wanted: Shapes) -> None:
    """Raises MisfitError, naming an array, where the shapes differ. Dtypes may differ."""
    (whole, kind, theirs), remedy = _WORDS[name], _REMEDY[name]
    if not saved:
        raise MisfitError(f"the checkpoint holds no {whole}; name one that launch/train.py saved")
    for path in sorted({*saved, *wanted}):
        if path not in saved or path not in wanted:
            where = theirs if path in saved else "the checkpoint"
            raise MisfitError(f"{where} has no {kind} {path}; {remedy}")
        shape, in_config = saved[path][0], wanted[path][0]
        if shape != in_config:
            raise MisfitError(f"{path} has shape {shape}, in the config {in_config}; {remedy}")
