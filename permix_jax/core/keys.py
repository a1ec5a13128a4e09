"""JAX keys as a pure function of (seed, purpose, indices); `randomness.py` draws on the host."""

import zlib

import jax


def key(seed: int, purpose: str, *indices: int) -> jax.Array:
    """The seed's key with the purpose, and then each index, folded in (`jax.random.fold_in`)."""
    result = jax.random.key(seed)
    for index in (zlib.crc32(purpose.encode()), *indices):
        result = jax.random.fold_in(result, index)
    return result
