"""Packed rows: each token once where it belongs, next to no padding, and the same log-probs."""

import sys

import jax
import numpy as np
import pytest
from dense import dense_statistics, pack_arrays, unpack
from grpo_batches import random_rollouts, small_decoder
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.models.config import Rope
from permix_jax.models.lm_head import Scoring
from permix_jax.models.logprobs import score
from permix_jax.models.packing import Ragged, RowShape, pack, row_shapes
from permix_jax.models.params import create_params


def ragged(lengths, first=0):
    """Sequences of these lengths whose tokens count up from `first`: each token is unique."""
    return Ragged(first + np.arange(sum(lengths), dtype=np.int32), np.array(lengths, int))


@st.composite
def sequences(draw):
    """(prompts, completions, owners, limits of both); some prompts have no completion."""
    U, N = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    P, T = draw(st.integers(1, 30)), draw(st.integers(1, 40))
    owners = np.array(draw(st.lists(st.integers(0, U - 1), min_size=N, max_size=N)))
    prompts = draw(st.lists(st.integers(1, P), min_size=U, max_size=U))
    completions = draw(st.lists(st.integers(0, T), min_size=N, max_size=N))
    limits = (U, P), (U * int(np.bincount(owners).max()), T)
    return ragged(prompts, 1), ragged(completions, 1 + sum(prompts)), owners, limits


@settings(deadline=None, max_examples=80)
@given(sequences(), st.integers(1, 3), st.integers(1, 200))
def test_every_completion_token_stands_once_behind_its_prompt(made, rows, tokens):
    prompts, completions, owners, limits = made
    packing = pack(prompts, completions, owners, row_shapes(*limits, rows, tokens))
    x, tree, source = packing.rows, packing.rows.layout, packing.source
    assert x.tokens.shape[1] == rows
    assert sorted(source[source >= 0].tolist()) == list(range(len(completions.values)))
    np.testing.assert_array_equal(x.scored, source >= 0)
    np.testing.assert_array_equal(x.targets[x.scored], completions.values[source[x.scored]])
    assert not x.scored[x.count :].any() and not (tree.sequence[x.count :] >= 0).any()

    ends = np.cumsum(completions.lengths)
    starts_of_prompts = np.cumsum(prompts.lengths) - prompts.lengths
    for m, r in np.ndindex(x.tokens.shape[:2]):
        sequence, row = tree.sequence[m, r], x.tokens[m, r]
        for target, state in zip(source[m, r], x.states[m, r], strict=True):
            if target < 0:
                continue
            n = int(np.searchsorted(ends, target, side="right"))
            u, begin = owners[n], ends[n] - completions.lengths[n]
            of_prompt = prompts.values[starts_of_prompts[u] :][: prompts.lengths[u]]
            before = np.append(of_prompt, completions.values[begin:target])
            # What the state has read is the prompt, and the completion up to the token before.
            seen = (sequence == sequence[state]) | (sequence == tree.prompt[m, r, state])
            seen &= tree.positions[m, r] <= tree.positions[m, r, state]
            order = np.argsort(tree.positions[m, r][seen])
            assert row[seen][order].tolist() == before.tolist()
            assert tree.positions[m, r][seen][order].tolist() == list(range(len(before)))


@settings(deadline=None, max_examples=80)
@given(sequences(), st.integers(1, 200))
def test_a_block_lists_every_block_that_its_queries_see(made, tokens):
    prompts, completions, owners, limits = made
    tree = pack(prompts, completions, owners, row_shapes(*limits, 1, tokens)).rows.layout
    sequence, prompt, positions = (
        x.reshape(-1, x.shape[-1]) for x in (tree.sequence, tree.prompt, tree.positions)
    )
    blocks = tree.blocks.reshape(len(sequence), -1, tree.blocks.shape[-1])
    size = sequence.shape[1] // blocks.shape[1]
    for row, lists in enumerate(blocks):
        s, p, at = sequence[row], prompt[row], positions[row]
        seen = ((s == s[:, None]) | (s == p[:, None])) & (at <= at[:, None]) & (s[:, None] >= 0)
        by_block = seen.reshape(len(lists), size, len(lists), size).any(axis=(1, 3))
        for needed, listed in zip(by_block, lists, strict=True):
            listed = listed[listed >= 0].tolist()
            assert len(set(listed)) == len(listed)
            assert set(np.flatnonzero(needed)) <= set(listed)


@settings(deadline=None, max_examples=40)
@given(sequences(), st.integers(1, 200))
def test_numbers_of_tokens_are_spread_and_collected(made, tokens):
    prompts, completions, owners, limits = made
    packing = pack(prompts, completions, owners, row_shapes(*limits, 1, tokens))
    values = np.random.default_rng(0).normal(size=len(completions.values)).astype(np.float32)
    packed = packing.spread(values)
    assert packed.shape == packing.rows.targets.shape
    assert not packed[~packing.rows.scored].any()
    np.testing.assert_array_equal(packing.collect(packed), values)


def test_a_row_by_hand():
    """Two prompts; the first has completions of 2 and 1 tokens, the second of 3."""
    prompts, completions = Ragged.of([[1, 2, 3], [4]]), Ragged.of([[5, 6], [7], [8, 9, 10]])
    packing = pack(prompts, completions, np.array([0, 0, 1]), [RowShape(1, 1, 16, 8, 4)])
    x = jax.tree.map(lambda x: x[0, 0] if np.ndim(x) else x, packing.rows)
    assert x.tokens.tolist() == [1, 2, 3, 5, 6, 7, 4, 8, 9, 10] + [0] * 6
    assert x.layout.positions.tolist()[:10] == [0, 1, 2, 3, 4, 3, 0, 1, 2, 3]
    assert x.layout.sequence.tolist() == [0, 0, 0, 1, 1, 2, 3, 4, 4, 4] + [-1] * 6
    assert x.layout.prompt.tolist() == [0, 0, 0, 0, 0, 0, 3, 3, 3, 3] + [-1] * 6
    assert x.targets.tolist() == [5, 6, 7, 8, 9, 10] + [0] * 10
    assert x.states.tolist()[:6] == [2, 3, 2, 6, 7, 8]
    # The second block begins in the completion 8 9 10, which begins in the first.
    assert x.layout.blocks.tolist() == [[0, -1, -1, -1], [0, 1, -1, -1]]
    assert x.scored.sum() == 6 and x.count == 1
    assert packing.padding == 6 / 16


def realistic(seed, prompts, samples, P, T):
    """Prompts of similar length; completions that mostly end early, and a few that do not."""
    rng = np.random.default_rng(seed)
    completions = np.ceil(rng.lognormal(np.log(T / 4), 0.7, prompts * samples)).astype(int)
    of_prompts = rng.integers(3 * P // 4, P + 1, prompts).tolist()
    owners = np.repeat(np.arange(prompts), samples)
    return ragged(of_prompts), ragged(np.minimum(completions, T).tolist()), owners


@pytest.mark.parametrize(
    ("prompts", "samples", "P", "T", "rows", "tokens"),
    [
        (32, 8, 16, 16, 1, 512),
        (8, 8, 256, 128, 1, 4096),
        (32, 8, 512, 1024, 1, 8192),
        (32, 8, 512, 1024, 4, 8192),
        (64, 1, 512, 1024, 1, 8192),
    ],
)
def test_padding_is_at_most_a_tenth_of_what_is_computed(prompts, samples, P, T, rows, tokens):
    """On the mean of four steps, which would be half padding in arrays of one length."""
    shapes = row_shapes((prompts, P), (prompts * samples, T), rows, tokens)
    packings = [pack(*realistic(seed, prompts, samples, P, T), shapes) for seed in range(4)]
    assert max(packing.rows.tokens.shape[2] for packing in packings) <= tokens
    assert np.mean([packing.padding for packing in packings]) <= 0.1


def test_three_widths_serve_all_lengths_and_full_ones_take_all_micro_batches():
    shapes = row_shapes((8, 256), (64, 128), 1, 4096)
    assert [shape.width for shape in shapes] == [2304, 2560, 4096]
    assert [shape.parts for shape in shapes] == [6, 4, 3]
    full = ragged([256] * 8), ragged([128] * 64), np.repeat(np.arange(8), 8)
    for shape in shapes:
        assert pack(*full, [shape]).rows.count == shape.parts
    short = ragged([256] * 8), ragged([5] * 64), full[2]
    assert pack(*short, shapes).rows.tokens.shape == (4, 1, 2560)
    assert pack(*short, shapes[-1:]).rows.count == 1


def test_a_row_is_never_narrower_than_a_prompt_and_a_completion():
    (shape,) = row_shapes((2, 10), (4, 20), 1, tokens=1)
    assert shape.width == 32
    with pytest.raises(ValueError, match="have 33 tokens, over the limits"):
        pack(ragged([10]), ragged([23]), np.array([0]), [shape])


def test_nothing_takes_no_micro_batch():
    shapes = row_shapes((4, 10), (4, 20), 1, 64)
    packing = pack(ragged([]), ragged([]), np.array([], int), shapes)
    assert packing.rows.count == 0 and not packing.rows.scored.any()


def test_the_time_to_pack_grows_little_faster_than_the_number_of_prompts():
    """Steps of work are counted, not seconds: lines of the package that are executed."""

    def lines(prompts):
        shapes = row_shapes((prompts, 64), (prompts * 2, 32), 1, 1024)
        made, count = realistic(0, prompts, 2, 64, 32), 0

        def trace(frame, event, _):
            nonlocal count
            count += event == "line"
            return trace if frame.f_code.co_filename.endswith("packing.py") else None

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            pack(*made, shapes)
        finally:
            sys.settrace(before)
        return count

    assert lines(512) < 4.5 * lines(128)


@pytest.mark.parametrize("window", [0, 3])
def test_packed_log_probs_are_those_of_rows_of_their_own(mesh, window):
    local = {"local_layers": (0,), "window": window, "local_rope": Rope(100.0)} if window else {}
    model = small_decoder(**local)
    params = create_params(model, jax.random.key(0), mesh)
    batch, _ = random_rollouts(0, 5, 3, vocab=40, prompt_tokens=20, tokens=17)
    arrays = *batch.prompts, *batch.completions[:2]
    packing = pack_arrays(*arrays, tokens=64)
    assert packing.rows.count > 1
    scores = score(model, params, packing.rows, Scoring(0.8, 64))
    wanted, _ = dense_statistics(model, params, *arrays, 0.8)
    mask = batch.completions.mask
    found = unpack(packing, scores, mask)
    np.testing.assert_allclose(found[mask], wanted[mask], rtol=1e-5, atol=1e-5)
    assert not scores[~packing.rows.scored].any()
