"""Randomness as a pure function of (seed, purpose, indices): nothing random is ever stored.

The same arguments give the same draws in any process, so a resumed run draws what the
uninterrupted one would have drawn, and a row does not depend on the batch it sits in.
"""

import zlib

import numpy as np


def generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """NumPy's counterpart of `keys.key`, for draws on the host."""
    # A spawn key, unlike entropy, tells (1,) from (1, 0).
    spawn_key = (zlib.crc32(purpose.encode()), *indices)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=spawn_key)))
