"""Checksums of the arrays in a checkpoint: the same for every mesh, dtype kept, no files read.

A checkpoint holds a record of what was saved: the path, shape, dtype and checksum of each array.
Whoever restores the arrays computes their checksums again and compares. This finds every flipped
bit, wherever it was flipped: on the disk, on the way, or in a buffer. The file format alone does
not: its chunks carry no checksum, and a flipped bit in one is often decompressed without error.
"""

import ctypes
import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_WORDS = {1: np.uint8, 2: np.uint16, 4: np.uint32}


def checksums(tree) -> dict[str, list]:
    """Path of each array -> [shape, dtype, checksum], plain values for JSON.

    The checksum of an array, seen as rows along its last axis, is 64 bits of two sums modulo 2^32:
    of the rows' sums, each times an odd number that depends on the row, and of the columns' sums
    likewise. The bits of an element count as an unsigned number. One changed element always
    changes both sums, since an odd number times a difference that is not 0 modulo 2^32 is not 0.
    Integer sums have no rounding, so the order of addition, and with it the mesh, does not matter.

    Of several processes, all must call it, in the same order.
    """
    leaves = _by_path(tree).items()
    arrays = {path: x if isinstance(x, jax.Array) else jnp.asarray(x) for path, x in leaves}
    sums = {path: _host_sums(x) if _on_this_host(x) else _sums(x) for path, x in arrays.items()}
    return {
        path: [list(arrays[path].shape), str(arrays[path].dtype), f"{rows:08x}{columns:08x}"]
        for path, (rows, columns) in jax.device_get(sums).items()
    }


def shapes(tree) -> dict[str, tuple[tuple[int, ...], str]]:
    """Path of each array, or ShapeDtypeStruct -> (shape, dtype)."""
    return {path: (tuple(x.shape), str(x.dtype)) for path, x in _by_path(tree).items()}


def sealed(record: dict[str, Any]) -> dict[str, Any]:
    """The record with a hash of itself, which `opened` compares."""
    return {**record, "sha256": _sha256(record)}


def opened(sealed_record: dict[str, Any]) -> dict[str, Any]:
    """The record that was sealed. Raises ValueError where it is not as it was."""
    record = dict(sealed_record)
    if record.pop("sha256", None) != _sha256(record):
        raise ValueError("the record has another hash than when it was written")
    return record


def _sha256(record: dict) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _by_path(tree) -> dict[str, Any]:
    """Its leaves; they have the same path in a tuple and a list, in a named tuple and a dict."""
    return {path_name(keys): leaf for keys, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def path_name(keys: tuple) -> str:
    """JAX's path of a leaf as one string, such as "layers_0/mlp/up"."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")


def _odd(index):
    """An odd uint32 for each index, far apart for neighbours."""
    return index * np.uint32(0x9E3779B9) * np.uint32(2) + np.uint32(0x85EBCA6B)


@jax.jit
def _sums(x: jax.Array) -> jax.Array:
    """The two sums, uint32 [2], on the array's devices."""
    x = x.reshape(x.shape or (1,))
    x = x.astype(jnp.uint8) if x.dtype == bool else x
    bits = jax.lax.bitcast_convert_type(x, _WORDS[x.dtype.itemsize]).astype(jnp.uint32)
    rows = jnp.sum(bits, -1, dtype=jnp.uint32)
    columns = jnp.sum(bits, tuple(range(bits.ndim - 1)), dtype=jnp.uint32)
    row = jnp.arange(rows.size, dtype=jnp.uint32).reshape(rows.shape)
    column = jnp.arange(columns.size, dtype=jnp.uint32)
    sums = (_odd(row) * rows).sum(dtype=jnp.uint32), (_odd(column) * columns).sum(dtype=jnp.uint32)
    return jnp.stack(sums)


def _on_this_host(x: jax.Array) -> bool:
    """Whether all of an array lies in this process's memory.

    There NumPy adds it up: it is about twenty times as fast as XLA's CPU backend, which does not
    vectorise integer sums.
    """
    return x.is_fully_addressable and {d.platform for d in x.devices()} == {"cpu"}


def _host_sums(x: jax.Array) -> np.ndarray:
    """As `_sums`, shard by shard, without a copy of the array."""
    shape = x.shape or (1,)
    places = np.arange(np.prod(shape[:-1], dtype=np.int64), dtype=np.uint32).reshape(shape[:-1])
    columns = np.arange(shape[-1], dtype=np.uint32)
    total = np.zeros((2, 1), np.uint32)
    for shard in x.addressable_shards:
        if shard.replica_id:
            continue
        bits, index = _memory(shard.data), shard.index
        bits = bits.reshape(-1, bits.shape[-1] if bits.ndim else 1)
        row, column = places[index[:-1]].reshape(-1), columns[index[-1:] or slice(None)]
        total[0] += (_odd(row) * bits.sum(1, dtype=np.uint32)).sum(dtype=np.uint32)
        total[1] += (_odd(column) * bits.sum(0, dtype=np.uint32)).sum(dtype=np.uint32)
    return total[:, 0]


def _memory(x: jax.Array) -> np.ndarray:
    """The bits of an array on one CPU device, in place.

    `np.asarray(x)` would be kept with the array, and JAX does not donate memory that NumPy reads.
    """
    jax.block_until_ready(x)
    content = (ctypes.c_uint8 * x.nbytes).from_address(x.unsafe_buffer_pointer())
    return np.frombuffer(content, _WORDS[x.dtype.itemsize], x.size).reshape(x.shape)
