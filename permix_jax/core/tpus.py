"""TPU chips, as their data sheets have them."""

from typing import NamedTuple

GIB = 2**30


class Chip(NamedTuple):
    """One TPU chip.

    Source: https://cloud.google.com/tpu/docs (system architecture, one page for each version). The
    clock is the peak over the multiply-adds of a cycle: 128 x 128 of each MXU (v6e: 256 x 256), of
    which a v4 and a v5p have 8 and the others 4. The compiler's counts of cycles agree with it
    (`tests/planning/test_prediction.py`).
    """

    hbm: float  # bytes of HBM that XLA (libtpu) leaves to programs
    flops: float  # peak bf16 FLOP/s
    hbm_bandwidth: float  # bytes/s
    ici_bandwidth: float  # bytes/s, of all links to neighbours together
    links: int  # to neighbours
    clock: float  # cycles/s, of the cycles that the compiler counts
    kinds: tuple[str, ...] = ()  # JAX's names of it


CHIPS = {
    "v4": Chip(30.75 * GIB, 275e12, 1228e9, 2400e9 / 8, 6, 1.05e9, ("TPU v4",)),
    "v5e": Chip(15.75 * GIB, 197e12, 819e9, 1600e9 / 8, 4, 1.5e9, ("TPU v5 lite", "TPU v5e")),
    "v5p": Chip(95.73 * GIB, 459e12, 2765e9, 4800e9 / 8, 6, 1.75e9, ("TPU v5", "TPU v5p")),
    "v6e": Chip(31.24 * GIB, 918e12, 1640e9, 3584e9 / 8, 4, 1.75e9, ("TPU v6 lite", "TPU v6e")),
}
