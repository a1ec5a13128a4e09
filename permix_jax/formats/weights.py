"""Weights from safetensors files straight into sharded arrays, and into safetensors files.

Each device's part of a parameter is read in small blocks. On a CPU the memory that it is read into
becomes the array; elsewhere it is copied to the device and freed. So host memory holds the arrays
of CPU devices, and beside them less than the largest tensor.
"""

import tempfile
from collections.abc import Iterable, Iterator
from functools import cache
from math import prod
from pathlib import Path
from typing import NamedTuple

import jax
import ml_dtypes  # noqa: F401  makes "bfloat16" a dtype name of numpy
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.sharding import Mesh, Sharding
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from permix_jax.core.files import require_file, write_json
from permix_jax.core.progress import Progress
from permix_jax.formats.folder import COPY_ALL, INDEX, SINGLE, weight_files
from permix_jax.formats.huggingface import Weight, text_name, weights
from permix_jax.models.params import param_shardings, without_lora
from permix_jax.models.transformer import Decoder

_EMBEDDING, _HEAD = "model.embed_tokens.weight", "lm_head.weight"
DTYPES = ("BF16", "F16", "F32", "F64")
SHARD_BYTES = 4 * 2**30  # of a written file
_BLOCK = 2**19  # elements: small enough for caches to hold while a block is transposed
_BLOCKS_PER_MAPPING = 8


class Stored(NamedTuple):
    """A tensor in a safetensors file; `dtype` as safetensors spells it: BF16, F32, ..."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: str

    def blocks(self, *index: slice) -> Iterator[tuple[slice, np.ndarray]]:
        """Yields (rows, block): tensor[index] in blocks, and the slice of rows that each one is."""
        start, stop, _ = index[0].indices(self.shape[0])
        step = max(1, _BLOCK // prod(self.shape[1:]))
        for mapped in range(start, stop, step * _BLOCKS_PER_MAPPING):
            # The file is opened again for each: pages that were read stay resident until it closes.
            with open_safetensors(self.path) as file:
                tensor = file.get_slice(self.name)
                for row in range(mapped, min(stop, mapped + step * _BLOCKS_PER_MAPPING), step):
                    end = min(stop, row + step)
                    yield slice(row - start, end - start), tensor[(slice(row, end), *index[1:])]
                del tensor


def stored_tensors(folder: Path) -> dict[str, Stored]:
    """The tensors of a folder's safetensors files, by name. Raises as `load_weights` for files."""
    stored, files = {}, weight_files(folder)
    placed = {name: path for path, promised in files.items() for name in promised}
    for path, promised in files.items():
        with open_safetensors(path) as file:
            names = set(file.keys())
            if lacking := promised - names:
                raise ValueError(
                    f"{path}: lacks tensor {min(lacking)}, which {INDEX} names; "
                    "fetch both files again"
                )
            for name in names:
                if placed.get(name, path) == path:  # else an old copy, which the index passes over
                    tensor = file.get_slice(name)
                    shape = tuple(tensor.get_shape())
                    stored[name] = Stored(path, name, shape, tensor.get_dtype())
    return stored


def open_safetensors(path: Path):
    """Opens a file for `with`. Raises as `require_file`, and ValueError if it is damaged."""
    require_file(path, COPY_ALL)
    try:
        return safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: damaged ({error}); fetch it again") from None


def load_weights(folder: Path, model: Decoder, mesh: Mesh) -> dict:
    """Loads the Decoder's parameters, sharded arrays of `config.param_dtype`, without adapters.

    Shows a progress bar. Raises FileNotFoundError if a file is missing; ValueError if a file is
    damaged, a tensor is missing, surplus, misshapen or of a dtype that is not read, or a tied head
    has weights of its own.
    """
    table = list(weights(model.config))
    stored = stored_tensors(folder)
    try:
        tensors = _match(stored, table, model.config.tie_embeddings)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from None
    dtype = np.dtype(model.config.param_dtype)
    shardings = flatten_dict(param_shardings(without_lora(model), mesh), sep="/")
    params = {}
    with Progress("loading weights", len(table)) as progress:
        for weight in table:
            sharding = shardings[weight.path]
            params[weight.path] = _load(tensors[weight.name], weight, dtype, sharding)
            progress.advance()
    return unflatten_dict(params, sep="/")


def _match(stored: dict[str, Stored], table: list[Weight], tied: bool) -> dict[str, Stored]:
    """The tensors of the table, by their names in a text-only checkpoint."""
    # Old checkpoints hold the RoPE frequencies, too; config.json determines them.
    kept = [
        tensor for tensor in stored.values() if not tensor.name.endswith(".rotary_emb.inv_freq")
    ]
    found = {text: tensor for tensor in kept if (text := text_name(tensor.name)) is not None}
    copy = found.pop(_HEAD, None) if tied else None
    expected = {weight.name for weight in table}
    for kind, odd in (("missing", expected - found.keys()), ("surplus", found.keys() - expected)):
        if odd:
            raise ValueError(
                f"{kind} tensor {min(odd)} ({len(odd)} in all): "
                "take the weights and config.json from the same checkpoint"
            )
    for weight in table:
        _, _, shape, dtype = found[weight.name]
        if shape != weight.hf_shape:
            raise ValueError(
                f"tensor {weight.name} has shape {shape}, expected {weight.hf_shape}: "
                "take the weights and config.json from the same checkpoint"
            )
        if dtype not in DTYPES:
            raise ValueError(
                f"tensor {weight.name} has dtype {dtype}, expected one of {', '.join(DTYPES)}: "
                "use a checkpoint that is not quantised"
            )
    if copy is not None and not _equal(copy, found[_EMBEDDING]):
        raise ValueError(
            f"{_HEAD} differs from {_EMBEDDING}: set tie_word_embeddings to false in config.json"
        )
    return found


def _equal(first: Stored, second: Stored) -> bool:
    if first.shape != second.shape:
        return False
    pairs = zip(first.blocks(slice(None)), second.blocks(slice(None)), strict=True)
    return all(np.array_equal(a, b) for (_, a), (_, b) in pairs)


def _load(tensor: Stored, weight: Weight, dtype: np.dtype, sharding: Sharding) -> jax.Array:
    @cache  # a part that several devices hold is read once
    def read(*bounds: tuple[int, int]) -> np.ndarray:
        """The part of the parameter within (start, stop) of each axis."""
        part = _aligned(tuple(stop - start for start, stop in bounds), dtype)
        index, target = [slice(*bound) for bound in bounds], part
        if cut := weight.inputs:  # [*inputs, *outputs] here, [outputs, inputs] there
            inputs = _flattened(bounds[:cut], weight.shape[:cut])
            outputs = _flattened(bounds[cut:], weight.shape[cut:])
            index = [outputs, inputs]
            target = part.reshape(inputs.stop - inputs.start, outputs.stop - outputs.start).T
        for rows, block in tensor.blocks(*index):
            target[rows] = block.astype(dtype, copy=False)
        return part

    def part(index: tuple[slice, ...]) -> np.ndarray:
        return read(*(s.indices(n)[:2] for s, n in zip(index, weight.shape, strict=True)))

    array = jax.make_array_from_callback(weight.shape, sharding, part, dtype=dtype)
    return array.block_until_ready()  # before the next tensor takes host memory


def _flattened(bounds: tuple[tuple[int, int], ...], shape: tuple[int, ...]) -> slice:
    """The range of a part in axes that are flattened to one. Only the first axis may be cut."""
    assert bounds[1:] == tuple((0, size) for size in shape[1:])
    start, stop = bounds[0]
    return slice(start * prod(shape[1:]), stop * prod(shape[1:]))


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An uninitialised array, aligned to 64 bytes: JAX on a CPU adopts it without a copy."""
    size = prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def write_weights(
    folder: Path, tensors: Iterable[tuple[str, np.ndarray]], shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes tensors as model.safetensors, or as shards of up to `shard_bytes` with an index.

    One shard is in memory at a time. The files get their names when all are complete, the index
    last. Raises ValueError if the folder holds weights already.
    """
    for name in (SINGLE, INDEX):
        if (folder / name).exists():
            raise ValueError(f"{folder / name} is there already; name another folder, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="incomplete-", dir=folder) as temporary:
        shards, total = [], 0
        for shard in _shards(tensors, shard_bytes):
            path = Path(temporary, f"{len(shards)}.safetensors")
            path.touch()
            usual = path.stat().st_mode
            save_file(shard, path, metadata={"format": "pt"})
            path.chmod(usual)  # save_file makes files that only their owner can read
            shards.append((path, list(shard)))
            total += sum(tensor.nbytes for tensor in shard.values())
            del shard  # before the next one is filled
        if len(shards) == 1:
            shards[0][0].rename(folder / SINGLE)
            return
        weight_map = {}
        for i, (path, names) in enumerate(shards, 1):
            moved = path.rename(folder / f"model-{i:05}-of-{len(shards):05}.safetensors")
            weight_map.update(dict.fromkeys(names, moved.name))
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _shards(
    tensors: Iterable[tuple[str, np.ndarray]], shard_bytes: int
) -> Iterator[dict[str, np.ndarray]]:
    """Groups consecutive tensors up to `shard_bytes`; a larger tensor is a group of its own."""
    shard, size = {}, 0
    for name, tensor in tensors:
        if shard and size + tensor.nbytes > shard_bytes:
            yield shard
            shard, size = {}, 0
        shard[name] = np.ascontiguousarray(tensor)
        size += tensor.nbytes
    yield shard
