"""Orbax checkpoints: saved asynchronously by a trainer, read by trainers and evaluators alike.

Layout: `<directory>/<step>/params` and, while training may still go on, `<step>/optimizer`.
"""

import itertools
import logging
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp
from jax.sharding import Mesh

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
            try:
                return step, self.restore_step(step, abstract)
            except Exception as error:  # whatever a broken file makes Orbax raise
                aside = self._set_aside_name(step)
                logger.warning(
                    "checkpoint %s is unreadable (%s); set aside as %s, falling back to the one "
                    "before it",
                    self.directory / str(step),
                    (str(error).strip() or type(error).__name__).splitlines()[0][:200],
                    aside.name,
                )
                self._manager.close()
                (self.directory / str(step)).rename(aside)
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

    def wait(self) -> None:
        """Returns when all saves are on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for saves in flight, and lets go of the folder."""
        self._manager.close()


def load_params(directory: Path, model: Decoder, mesh: Mesh, step: int | None = None):
    """The parameters alone of a checkpoint (the newest, unless `step` says), onto `mesh`.

    They are those that were trained: the model's adapters, if it has any. Their dtypes are the
    model's, whatever they were saved in.

    Raises FileNotFoundError where there is no checkpoint.
    """
    if not Path(directory).is_dir():
        raise FileNotFoundError(f"{directory}: no such folder of checkpoints")
    checkpoints = Checkpoints(directory)
    step = checkpoints.latest_step() if step is None else step
    if step not in checkpoints.all_steps():
        raise FileNotFoundError(
            f"{directory}: no checkpoint {'at all' if step is None else step}; "
            f"there are {checkpoints.all_steps()}"
        )
    abstract, _ = split_trained(model, abstract_params(model, mesh))
    params = checkpoints.restore_step(step, {"params": abstract})["params"]
    checkpoints.close()
    return params
