"""The kernels for TPUs, interpreted on a CPU: values and gradients of the reference."""

import importlib.util
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.core.sharding import make_mesh, shard_rows
from permix_jax.models.attention import PackedLayout, attend_packed
from permix_jax.models.attention_tpu import attend_tiles, tile_of, visits
from permix_jax.models.packing import Ragged, RowShape, pack

ROWS, WIDTH, BLOCK, TILE = 2, 64, 8, 16


def layout_of(prompts, completions, owners) -> PackedLayout:
    """The first micro-batch of 2 rows of 64 tokens that hold sequences of these lengths."""
    tokens = [Ragged(np.ones(sum(x), np.int32), np.array(x, int)) for x in (prompts, completions)]
    packing = pack(*tokens, np.array(owners, int), [RowShape(1, ROWS, WIDTH, BLOCK, 10)])
    return PackedLayout(*(x[0] for x in packing.rows.layout))


@st.composite
def layouts(draw):
    """Up to 4 prompts with up to 3 completions each; the rest of the rows is padding."""
    prompts, completions, owners = [], [], []
    for u in range(draw(st.integers(1, 4))):
        prompts.append(draw(st.integers(1, 24)))
        for _ in range(draw(st.integers(1, 3))):
            completions.append(draw(st.integers(0, 40)))
            owners.append(u)
    return layout_of(prompts, completions, owners)


@partial(jax.jit, static_argnums=(0, 1, 2))
def both(dtype, kv_heads, group, layout, window, seed):
    """(output, gradients) of the kernels and of the reference; 0 where a token is padding."""
    keys = jax.random.split(jax.random.key(seed), 4)
    shapes = [(ROWS, WIDTH, kv_heads * group, 8)] * 2 + [(ROWS, kv_heads, WIDTH, 8)] * 2
    query, cotangent, *keys_values = map(partial(jax.random.normal, dtype=dtype), keys, shapes)
    real = (layout.sequence >= 0)[..., None, None]
    cotangent *= real

    def run(attention):
        def total(*arrays):
            out = attention(*arrays)
            return (out * cotangent).astype(jnp.float32).sum(), jnp.where(real, out, 0)

        return jax.grad(total, (0, 1, 2), has_aux=True)(query, *keys_values)

    seen = visits(layout, window, TILE)
    kernels = run(lambda q, k, v: attend_tiles(q, k, v, seen, 0.7, True))
    return kernels, run(lambda q, k, v: attend_packed(q, k, v, layout, window, 0.7))


@settings(max_examples=25)
@given(layouts(), st.sampled_from([0, 1, 5, 30]), st.integers(0, 99))
def test_values_and_gradients_are_those_of_the_reference(layout, window, seed):
    kernels, reference = both("float32", 1, 2, layout, window, seed)
    assert_close(kernels, reference, 1e-5)


LAYOUT = layout_of([10, 5, 20], [20, 3, 9, 11, 30], [0, 0, 1, 1, 2])


@pytest.mark.parametrize("window", [0, 5])
def test_in_bf16_they_differ_by_its_rounding(window):
    kernels, reference = both("bfloat16", 2, 1, LAYOUT, window, 0)
    assert {x.dtype.name for x in jax.tree.leaves(kernels)} == {"bfloat16"}
    assert_close(kernels, reference, 3e-2)


def test_devices_share_rows_and_heads():
    """Two devices along `fsdp` and two along `tensor` have the numbers of one."""
    alone, _ = both("float32", 2, 1, LAYOUT, 5, 0)
    mesh = make_mesh(1, 2, 2)
    with jax.set_mesh(mesh):
        shared, _ = both("float32", 2, 1, shard_rows(LAYOUT, mesh), 5, 0)
    assert_close(shared, alone, 1e-6)


def pairs_of(seen, row: int) -> list[tuple[int, int]]:
    """The pairs (tile of queries, tile of keys) that are visited in a row."""
    n, count = seen.marks.shape[1], int(seen.count[row])
    by_query = [divmod(int(x), n) for x in seen.by_query[row, :count]]
    by_key = [divmod(int(x), n) for x in seen.by_key[row, :count]]
    assert by_query == sorted(set(by_query)) and by_key == sorted(set(by_key))
    assert set(by_query) == {pair[::-1] for pair in by_key}
    return by_query


@settings(max_examples=50)
@given(layouts(), st.sampled_from([0, 1, 5, 30]))
def test_pairs_with_tokens_that_see_each_other_are_visited_and_no_others_but_listed_ones(
    layout, window
):
    seen, n = visits(layout, window, TILE), WIDTH // TILE
    for row in range(ROWS):
        s, p, at = (x[row] for x in (layout.sequence, layout.prompt, layout.positions))
        distance = at[:, None] - at
        sees = ((s == s[:, None]) | (s == p[:, None])) & (distance >= 0) & (s[:, None] >= 0)
        sees &= (distance < window) | (window == 0)
        needed = set(zip(*np.nonzero(sees.reshape(n, TILE, n, TILE).any((1, 3))), strict=True))
        blocks = enumerate(layout.blocks[row])
        listed = {(i * BLOCK // TILE, j * BLOCK // TILE) for i, js in blocks for j in js if j >= 0}
        pairs, itself = set(pairs_of(seen, row)), {(i, i) for i in range(n)}
        assert needed <= pairs <= listed | itself


def test_a_window_and_other_prompts_are_skipped():
    """A prompt of 16 with completions of 32 and 16: the last sees the prompt, and not the first."""
    layout = layout_of([16], [32, 16], [0, 0])
    itself = [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert pairs_of(visits(layout, 0, TILE), 0) == sorted([*itself, (1, 0), (2, 0), (2, 1), (3, 0)])
    assert pairs_of(visits(layout, 9, TILE), 0) == sorted([*itself, (1, 0), (2, 1), (3, 0)])
    assert pairs_of(visits(layout, 0, TILE), 1) == itself


@pytest.mark.parametrize(
    ("tokens", "blocks", "group", "head_dim", "dtype", "tile"),
    [
        (8192, 64, 2, 128, "bfloat16", 512),
        (4608, 36, 2, 64, "bfloat16", 512),
        (2304, 18, 3, 64, "float32", 256),
        (1152, 36, 3, 64, "float32", 128),
        (8192, 64, 8, 256, "bfloat16", 256),  # a tile of all heads of a group is 1 MiB at most
        (1344, 42, 3, 64, "float32", 0),
        (128 * 129, 129, 2, 128, "bfloat16", 0),  # too many pairs
        (8192, 64, 2, 96, "bfloat16", 0),
        (8192, 32, 2, 128, "bfloat16", 512),
        (8192, 8, 2, 128, "bfloat16", 0),  # blocks are larger than any tile
    ],
)
def test_the_tile_is_the_largest_that_divides_the_row(tokens, blocks, group, head_dim, dtype, tile):
    layout = PackedLayout(*[np.zeros((1, tokens), int)] * 3, np.zeros((1, blocks, 3), int))
    assert tile_of(layout, group, head_dim, dtype) == tile


@pytest.mark.parametrize("case", ["v5e,128,2048", "v4,64,2048"])
def test_the_compiler_takes_the_kernels(case):
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("needs libtpu: pip install -e '.[plan]'")
    command = [sys.executable, "benchmarks/attention.py", f"--compile={case}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and "compiled in" in done.stdout, done.stdout + done.stderr
