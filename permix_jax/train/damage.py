"""Whether the files of a checkpoint are damaged, which has to be proven."""

import itertools
import json
import re
from pathlib import Path

import jax
import orbax.checkpoint as ocp
import tensorstore as ts
from etils import epath

from permix_jax.train.checksums import shapes

# What TensorStore says of content that is missing, cut off or undecodable. Other codes, such as
# PERMISSION_DENIED or RESOURCE_EXHAUSTED, say nothing about the content.
_BAD_CONTENT = ("NOT_FOUND", "OUT_OF_RANGE", "FAILED_PRECONDITION", "DATA_LOSS", "INVALID_ARGUMENT")


def find_damage(folder: Path, items: dict[str, dict] | None, same_orbax: bool) -> str:
    """What is wrong with the files of one checkpoint; "" where all of them can be read.

    A restore can fail for many reasons: no memory, no permission, another version of a library.
    Only damage makes a checkpoint worthless, so it has to be proven. All files are read again,
    without a device, chunk by chunk, so it takes the time of a restore and little memory. Raises
    ValueError or OSError where the files cannot be read for a reason that is not damage.

    Args:
      folder: of one step.
      items: item -> path -> [shape, dtype, ...] as they were saved; None: not known.
      same_orbax: whether the version of Orbax that runs also saved the checkpoint. Only then is
        metadata that it cannot decode a proof of damage.
    """
    items = items or {place.parent.name: None for place in folder.glob("*/manifest.ocdbt")}
    damages = (_item_damage(folder / name, saved, same_orbax) for name, saved in items.items())
    return next(filter(None, damages), "")


def _item_damage(place: Path, saved: dict[str, list] | None, same_orbax: bool) -> str:
    if not place.is_dir():
        return f"{place.name} is missing"
    for file in (place / "_METADATA", place / "_sharding", *place.glob("array_metadatas/*")):
        try:
            if file.exists():
                json.loads(file.read_bytes())
        except ValueError:
            return f"{place.name}/{file.relative_to(place)} is not JSON"
    try:
        tree = ocp.StandardCheckpointHandler().metadata(epath.Path(place)).tree
        on_disk = {path: [list(shape), dtype] for path, (shape, dtype) in shapes(tree).items()}
    except (ValueError, KeyError, FileNotFoundError) as error:
        by_tensorstore = re.match(r"[A-Z_]{6,}: ", str(error))
        if not same_orbax or by_tensorstore and not str(error).startswith(_BAD_CONTENT):
            raise
        return f"the metadata of {place.name} cannot be decoded: {_first_line(error)}"
    if saved is not None and on_disk != {path: facts[:2] for path, facts in saved.items()}:
        return f"the metadata of {place.name} is not what was saved"
    damages = (_array_damage(place, leaf.name) for leaf in jax.tree.leaves(tree))
    return next(filter(None, damages), "")


def _array_damage(place: Path, name: str) -> str:
    store = {"driver": "ocdbt", "base": f"file://{place.absolute()}/", "path": f"{name}/"}
    try:
        array = ts.open({"driver": "zarr", "kvstore": store}, read=True, open=True).result()
        steps = array.chunk_layout.read_chunk.shape or ()  # None: a scalar
        axes = (range(0, size, step) for size, step in zip(array.shape, steps, strict=True))
        for corner in itertools.product(*axes):
            ends = (min(a + b, n) for a, b, n in zip(corner, steps, array.shape, strict=True))
            cut = tuple(map(slice, corner, ends))
            array[cut].read().result()
    except ValueError as error:
        if not str(error).startswith(_BAD_CONTENT):
            raise
        return f"{place.name}/{name} cannot be read: {_first_line(error)}"
    return ""


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
