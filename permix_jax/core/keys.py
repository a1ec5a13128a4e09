"""JAX keys as a pure function of (seed, purpose, indices).

`randomness.py` has the draws on the host.
"""

import zlib

import jax


def key(seed: int, purpose: str, *indices: int) -> jax.Array:
    """A JAX key, `fold_in` of the purpose and then of each index into the seed's key."""
    result = jax.random.key(seed)
    for index in (zlib.crc32(purpose.encode()), *indices):
        result = jax.random.fold_in(result, index)
    return result
