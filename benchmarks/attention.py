"""What attention in packed rows reads, and whether TPUs' compiler takes its kernels.

`python benchmarks/attention.py` prints how many scores the kernels of `models/attention_tpu.py`
compute for random batches of the presets' shapes, and how many JAX's splash attention would.
`python benchmarks/attention.py --compile` compiles the kernels, forward and backward, for each TPU
chip, head size and length of rows; `--compile=v5e,128,8192` for these alone. It needs the `libtpu`
package, and no TPU.
"""

import argparse
import runpy
import time
from functools import partial
from itertools import product
from pathlib import Path

from permix_jax.planning.environment import compile_for_tpu

compile_for_tpu()  # before JAX is imported

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.sharding import SingleDeviceSharding  # noqa: E402
from settings import lengths  # noqa: E402

from permix_jax.core.tpus import CHIPS  # noqa: E402
from permix_jax.models.attention import PackedLayout  # noqa: E402
from permix_jax.models.attention_tpu import Visits, attend_tiles, tile_of, visits  # noqa: E402
from permix_jax.models.packing import Packing, Ragged, pack  # noqa: E402
from permix_jax.planning.chips import topology_devices  # noqa: E402
from permix_jax.report.tables import text_table  # noqa: E402
from permix_jax.train.programs import step_shapes  # noqa: E402

_STEPS = 4
_SHAPES = {"v4": "2x2x1", "v5e": "2x2", "v5p": "2x2x1", "v6e": "2x2"}
_HEAD_SIZES, _ROWS = (64, 128, 256), (2048, 8192, 32768)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    text = "compile the kernels for TPUs: for all, or for CHIP,HEAD_SIZE,TOKENS"
    parser.add_argument("--compile", nargs="?", const="all", help=text)
    if (case := parser.parse_args().compile) is None:
        print_visits()
        return
    if case == "all":
        cases = product(CHIPS, _HEAD_SIZES, _ROWS)
    else:
        chip, *numbers = case.split(",")
        cases = [(chip, *map(int, numbers))]
    for case in cases:
        print_compiled(*case)


def print_visits() -> None:
    """One line for each shape of rows that presets have, of random lengths and of full ones."""
    cells, known = [], set()
    configs = runpy.run_path(str(Path(__file__).parent.parent / "configs/permix.py"))
    for preset in configs["PRESETS"]:
        config = configs["get_config"](preset)
        shape = step_shapes(config)[-1]
        if shape in known or shape.width % 128:  # blocks compute such rows
            continue
        known.add(shape)
        for full in (False, True):
            packings = [packed(config, seed, full) for seed in range(1 if full else _STEPS)]
            counts = np.sum([visited(packing) for packing in packings], axis=0)
            name = f"{preset or 'the default'}, {'all full' if full else 'random'}"
            cells.append([name, *(f"{x:,.0f}" for x in counts), f"{counts[2] / counts[1]:.1f}"])
    head = ["rows of", "needed", "visited", "splash, twice", "splash / visited"]
    print("Millions of scores of a head:", text_table(head, cells), sep="\n")


def packed(config, seed: int, full: bool) -> Packing:
    """A step's packed rows: prompts of similar length, completions that mostly end early."""
    r, U = config.rollout, config.train.problems_per_step
    rng, N = np.random.default_rng(seed), U * r.group_size
    P, T = r.max_prompt_tokens, r.max_new_tokens
    of_prompts = np.full(U, P) if full else rng.integers(3 * P // 4, P + 1, U)
    drawn = np.full(N, T) if full else rng.permutation(lengths(N, T, T // 4))

    def tokens(counts) -> Ragged:
        return Ragged(np.zeros(counts.sum(), np.int32), np.asarray(counts, int))

    owners = np.repeat(np.arange(U), r.group_size)
    return pack(tokens(of_prompts), tokens(drawn), owners, step_shapes(config))


def visited(packing: Packing) -> np.ndarray:
    """Millions of scores that are seen, that the kernels compute, and that splash attention would.

    Splash attention skips what a mask of its row skips that is known when it is compiled: here
    later tiles. It is called for a token's own sequence and for its prompt.
    """
    layout = PackedLayout(*(x.reshape(-1, *x.shape[2:]) for x in packing.rows.layout))
    T, real = layout.positions.shape[1], layout.sequence >= 0
    tile, filled = tile_of(layout, 2, 128, "bfloat16"), real.any(axis=1)
    count, n = np.asarray(_visits(layout, tile).count)[filled].sum(), T // tile
    needed = (layout.positions + 1)[real].sum()
    return np.array([needed, count * tile**2, filled.sum() * n * (n + 1) * tile**2]) / 1e6


@partial(jax.jit, static_argnums=1)
def _visits(layout: PackedLayout, tile: int) -> Visits:
    return visits(layout, 0, tile)


def print_compiled(chip: str, head_dim: int, tokens: int) -> None:
    """Prints how long the kernels take to compile, or the compiler's error."""
    device, begin = topology_devices(f"{chip}:{_SHAPES[chip]}")[0], time.monotonic()
    try:
        compiled = compile_kernels(device, head_dim, tokens)
    except jax.errors.JaxRuntimeError as error:
        found = str(error).partition("\n")[0]
    else:
        mib = compiled.memory_analysis().temp_size_in_bytes / 2**20
        found = f"compiled in {time.monotonic() - begin:.0f} s, {mib:.1f} MiB beside"
    print(f"{chip}, heads of {head_dim}, rows of {tokens}: {found}", flush=True)


def compile_kernels(device, head_dim: int, tokens: int, dtype="bfloat16") -> jax.stages.Compiled:
    """Value and gradients for a row of 2 query heads on one key/value head, windows traced."""
    jax.config.update("jax_enable_compilation_cache", False)  # it cannot read such programs back
    array = partial(jax.ShapeDtypeStruct, sharding=SingleDeviceSharding(device))
    at, blocks = array((1, tokens), jnp.int32), array((1, tokens // 128, 14), jnp.int32)
    layout = PackedLayout(at, at, at, blocks)
    tile = tile_of(layout, 2, head_dim, dtype)

    def total(query, keys, values, layout, window):
        out = attend_tiles(query, keys, values, visits(layout, window, tile), head_dim**-0.5)
        return out.astype(jnp.float32).sum()

    query, keys = array((1, tokens, 2, head_dim), dtype), array((1, 1, tokens, head_dim), dtype)
    program = jax.jit(jax.value_and_grad(total, (0, 1, 2)))
    return program.lower(query, keys, keys, layout, array((), jnp.int32)).compile()


if __name__ == "__main__":
    main()
