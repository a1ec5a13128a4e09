"""Random draws as a pure function of (seed, purpose, indices); nothing random is stored.

The same arguments give the same draws in any process. So a resumed run draws what the uninterrupted
one would have drawn, and a row does not depend on its batch.
"""

import zlib

import numpy as np


def generator(seed: int, purpose: str, *indices: int) -> np.random.Generator:
    """As `keys.key`, for draws by NumPy on the host."""
    # As a spawn key, (1,) and (1, 0) give different draws; as entropy they would not.
    spawn_key = (zlib.crc32(purpose.encode()), *indices)
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(seed, spawn_key=spawn_key)))
