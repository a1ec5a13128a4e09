"""Token lists of any length as arrays of a few fixed shapes."""

from collections.abc import Sequence

import numpy as np


def right_pad(rows: Sequence[Sequence[int]], length: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int32 [rows, length], padded with 0; and a bool mask, True for what is not padding.

    Raises ValueError if a row is longer than `length`.
    """
    tokens = np.zeros((len(rows), length), np.int32)
    mask = np.zeros((len(rows), length), bool)
    for i, row in enumerate(rows):
        if len(row) > length:
            raise ValueError(f"row {i} has {len(row)} tokens, over the length of {length}")
        tokens[i, : len(row)] = row
        mask[i, : len(row)] = True
    return tokens, mask


def bucket(length: int, limit: int) -> int:
    """The padded length of `length` tokens: a quarter of `limit`, half of it, or all.

    Three lengths make at most three compiled programs, and no row of over a quarter of `limit` is
    padded to more than twice its length. Raises ValueError above the limit.
    """
    for size in (-(-limit // 4), -(-limit // 2), limit):
        if length <= size:
            return size
    raise ValueError(f"{length} tokens are over the limit of {limit}")


def power_of_two(length: int) -> int:
    """The least power of two that is not below `length`: few limits serve prompts of any length."""
    return 1 << (length - 1).bit_length()
