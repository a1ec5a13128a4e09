"""Orbax checkpoints: saved asynchronously by a trainer, read by trainers and evaluators alike.

Layout: `<directory>/<step>/params` and, while training may still go on, `<step>/optimizer`.
"""

import itertools
import logging
from functools import partial
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh

from permix_jax.distributed import any_process, on_main
from permix_jax.models.params import abstract_params, split_trained
from permix_jax.models.transformer import Decoder

logger = logging.getLogger(__name__)


class Checkpoints:
    """The checkpoints of one run; `keep` is how many of the newest stay (None: all)."""

    def __init__(self, directory: Path, keep: int | None = None):
        self.directory = Path(directory).absolute()
        self._keep = keep
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        return ocp.CheckpointManager(
            self.directory,
            options=ocp.CheckpointManagerOptions(max_to_keep=self._keep),
            item_names=("params", "optimizer"),
        )

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def all_steps(self) -> list[int]:
        return sorted(self._manager.all_steps())

    def save(self, step: int, params, optimizer: Any = None) -> None:
        """Starts saving and returns; the arrays may be donated right afterwards."""
        items = {"params": params}
        if optimizer is not None:
            items["optimizer"] = optimizer
        saves = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        self._manager.save(step, args=ocp.args.Composite(**saves))

    def restore(self, abstract: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
        """The newest readable checkpoint's items, laid out as `abstract` says.

        A checkpoint that cannot be read is set aside as `corrupt-<step>`, with a warning, and the
        one before it is tried.

        Args:
          abstract: item name -> pytree of ShapeDtypeStructs with shardings.

        Returns:
          (step, items), or None where there is no checkpoint.
        """
        while (step := self.latest_step()) is not None:
            found, trouble = None, ""
            try:
                found = self.restore_step(step, abstract)
            except Exception as error:  # whatever a broken file makes Orbax raise
                trouble = _first_line(error)
            if not any_process(bool(trouble)):
                return step, found
            aside = self._set_aside_name(step)
            logger.warning(
                "checkpoint %s is unreadable (%s); set aside as %s, falling back to the one before "
                "it",
                self.directory / str(step),
                trouble,
                aside.name,
            )
            self._manager.close()
            on_main(partial((self.directory / str(step)).rename, aside))
            self._manager = self._open()
        return None

    def _set_aside_name(self, step: int) -> Path:
        """`corrupt-<step>`, or `corrupt-<step>-2` and so on where a step broke before."""
        names = (f"corrupt-{step}{f'-{n}' if n > 1 else ''}" for n in itertools.count(1))
        return next(path for name in names if not (path := self.directory / name).exists())

    def restore_step(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        """The items of one checkpoint that `abstract` names; raises what Orbax raises."""
        restores = {name: ocp.args.StandardRestore(item) for name, item in abstract.items()}
        restored = self._manager.restore(step, args=ocp.args.Composite(**restores))
        return {name: restored[name] for name in abstract}

    def shapes(self, step: int) -> dict[str, tuple[int, ...]] | None:
        """Path -> shape of the saved parameters; None where the checkpoint has none."""
        place = self.directory / str(step) / "params"
        if not place.is_dir():
            return None
        tree = ocp.StandardCheckpointHandler().metadata(epath.Path(place)).tree
        return {path: tuple(x.shape) for path, x in flatten_dict(tree, sep="/").items()}

    def wait(self) -> None:
        """Returns when all saves are on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves in flight, and lets go of the folder."""
        self._manager.close()


def newest_step(directory: Path, wanted: int | None = None) -> int:
    """The step of the newest checkpoint, or `wanted` where there is one of that step.

    Raises FileNotFoundError otherwise.
    """
    if not Path(directory).is_dir():
        raise FileNotFoundError(f"{directory}: no such folder of checkpoints")
    checkpoints = Checkpoints(directory)
    there = checkpoints.all_steps()
    checkpoints.close()
    if not there or wanted not in (None, *there):
        which = "at all" if wanted is None else wanted
        raise FileNotFoundError(f"{directory}: no checkpoint {which}; there are {there}")
    return there[-1] if wanted is None else wanted


def load_params(directory: Path, model: Decoder, mesh: Mesh, step: int | None = None):
    """The parameters alone of a checkpoint (the newest, unless `step` says), onto `mesh`.

    They are those that were trained: the model's adapters, if it has any. Their dtypes are the
    model's, whatever they were saved in.

    Raises:
      FileNotFoundError: there is no checkpoint.
      ValueError: it holds no parameters, those of another model, or is damaged.
    """
    step = newest_step(directory, step)
    abstract, _ = split_trained(model, abstract_params(model, mesh))
    checkpoints, place = Checkpoints(directory), Path(directory) / str(step)
    try:
        if trouble := _misfit(checkpoints.shapes(step), abstract):
            raise ValueError(f"{place}: {trouble}")
        return checkpoints.restore_step(step, {"params": abstract})["params"]
    except ValueError as error:
        if str(error).startswith(str(place)):
            raise
        raise ValueError(f"{place}: damaged ({_first_line(error)})") from error
    except Exception as error:  # whatever a broken file makes Orbax raise
        raise ValueError(f"{place}: damaged ({_first_line(error)})") from error
    finally:
        checkpoints.close()


def _misfit(saved: dict[str, tuple[int, ...]] | None, abstract: dict) -> str:
    """What keeps saved parameters, path -> shape, from being those of a model; "" if nothing."""
    if saved is None:
        return "the checkpoint holds no parameters; name one that launch/train.py saved"
    wanted = {path: x.shape for path, x in flatten_dict(abstract, sep="/").items()}
    remedy = "it is of another architecture; give the config of its run"
    for path in sorted({*saved, *wanted}):
        if path not in saved or path not in wanted:
            where = "the config's policy" if path in saved else "the checkpoint"
            return f"{where} has no parameter {path}; {remedy}"
        if saved[path] != wanted[path]:
            return f"{path} has shape {saved[path]}, in the config {wanted[path]}; {remedy}"
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
