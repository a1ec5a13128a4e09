"""Packed rows: each token once where it belongs, next to no padding, and the same log-probs."""

from functools import partial

import jax
import numpy as np
import pytest
from grpo_batches import packing_of, random_batch, small_decoder
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.models.config import Rope
from permix_jax.models.logprobs import completion_logprobs
from permix_jax.models.params import create_params
from permix_jax.train.gradients import score
from permix_jax.train.packing import pack, pack_into, packed_shapes, padding_share


def masks(prompt_lengths, completion_lengths, P, T):
    until = lambda lengths, size: np.arange(size) < np.array(lengths)[:, None]  # noqa: E731
    return until(prompt_lengths, P), until(completion_lengths, T)


@st.composite
def lengths(draw):
    """(prompt lengths [U], completion lengths [N], P, T)."""
    prompts, samples = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    P, T = draw(st.integers(1, 30)), draw(st.integers(1, 40))
    of = lambda most, size: draw(st.lists(st.integers(1, most), min_size=size, max_size=size))  # noqa: E731
    return of(P, prompts), of(T, prompts * samples), P, T


@settings(deadline=None, max_examples=60)
@given(lengths(), st.integers(1, 3), st.integers(1, 200))
def test_every_completion_token_stands_once_behind_its_prompt(sizes, rows, tokens):
    prompt_lengths, completion_lengths, P, T = sizes
    both = masks(*sizes)
    U, N = len(prompt_lengths), len(completion_lengths)
    packing = pack(*both, packed_shapes((U, P), (N, T), rows, tokens))
    assert packing.tokens.shape[1] == rows
    used = packing.targets < N * T
    scored = np.sort(packing.targets[used])
    np.testing.assert_array_equal(scored, np.flatnonzero(both[1]))
    assert not used[packing.count :].any()

    tree, flat = packing.tree, packing.tokens
    for m, r in np.ndindex(packing.tokens.shape[:2]):
        sequence, position = tree.sequence[m, r], tree.positions[m, r]
        for target, state in zip(
            packing.targets[m, r][used[m, r]], packing.states[m, r], strict=False
        ):
            n, t = divmod(int(target), T)
            u = n // (N // U)
            # Predicted by the token before it: of its completion, or the last of its prompt.
            before = U * P + target - 1 if t else u * P + prompt_lengths[u] - 1
            assert flat[m, r, state] == before
            assert position[state] == prompt_lengths[u] + t - 1
            prompt = tree.prompt[m, r][state]
            own = np.flatnonzero(sequence == sequence[state]) if t else []
            assert [flat[m, r, i] for i in own][:t] == [U * P + n * T + i for i in range(t)][:t]
            of_prompt = np.flatnonzero(sequence == prompt)
            assert flat[m, r, of_prompt].tolist() == list(range(u * P, u * P + prompt_lengths[u]))


@settings(deadline=None, max_examples=60)
@given(lengths(), st.integers(1, 200))
def test_a_block_lists_every_block_that_its_queries_see(sizes, tokens):
    both = masks(*sizes)
    packing = pack(*both, packed_shapes(both[0].shape, both[1].shape, 1, tokens))
    sequence, prompt, positions = (
        x.reshape(-1, x.shape[-1])
        for x in (packing.tree.sequence, packing.tree.prompt, packing.tree.positions)
    )
    blocks = packing.tree.blocks.reshape(len(sequence), -1, packing.tree.blocks.shape[-1])
    size = sequence.shape[1] // blocks.shape[1]
    for row, lists in enumerate(blocks):
        s, p, at = sequence[row], prompt[row], positions[row]
        seen = ((s == s[:, None]) | (s == p[:, None])) & (at <= at[:, None]) & (s[:, None] >= 0)
        by_block = seen.reshape(len(lists), size, len(lists), size).any(axis=(1, 3))
        for needed, listed in zip(by_block, lists, strict=True):
            listed = listed[listed >= 0].tolist()
            assert len(set(listed)) == len(listed)
            assert set(np.flatnonzero(needed)) <= set(listed)


def realistic(seed, prompts, samples, P, T):
    """Prompts of similar length; completions that mostly end early, and a few that do not."""
    rng = np.random.default_rng(seed)
    completions = np.ceil(rng.lognormal(np.log(T / 4), 0.7, prompts * samples))
    return masks(rng.integers(3 * P // 4, P + 1, prompts), np.minimum(completions, T), P, T)


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
    shares = []
    for seed in range(4):
        both = realistic(seed, prompts, samples, P, T)
        assert both[0].sum() + both[1].sum() < 0.65 * (both[0].size + both[1].size)
        packing = pack(*both, packed_shapes(both[0].shape, both[1].shape, rows, tokens))
        assert packing.tokens.shape[2] <= tokens
        shares.append(padding_share(packing, *both))
    assert np.mean(shares) <= 0.1


def test_a_few_shapes_serve_all_lengths_and_full_ones_take_all_micro_batches():
    shapes = packed_shapes((8, 256), (64, 128), 1, 4096)
    assert [shape.width for shape in shapes] == [2048 + 256 * i for i in range(9)]
    full = np.ones((8, 256), bool), np.ones((64, 128), bool)
    short = masks([256] * 8, [5] * 64, 256, 128)
    for both, used in ((full, 3), (short, 1)):
        packing = pack_into(shapes[-1], *both)
        assert (int(packing.count), packing.tokens.shape) == (used, (3, 1, 4096))


def test_a_micro_batch_is_never_smaller_than_a_prompt_and_a_completion():
    (shape,) = packed_shapes((2, 10), (4, 20), 1, tokens=1)
    assert shape.width == 32


@pytest.mark.parametrize("window", [0, 3])
def test_packed_log_probs_are_those_of_rows_of_their_own(mesh, window):
    local = {"local_layers": (0,), "window": window, "local_rope": Rope(100.0)} if window else {}
    model = small_decoder(**local)
    params = create_params(model, jax.random.key(0), mesh)
    batch = random_batch(0, 5, 3, vocab=40, prompt_tokens=20, tokens=17)
    rows = jax.jit(partial(completion_logprobs, model), static_argnums=(5, 6))(
        params,
        batch.prompt_tokens,
        batch.prompt_mask,
        batch.completion_tokens,
        batch.completion_mask,
        0.8,
        64,
    )
    packing = packing_of(batch, tokens=64)
    assert packing.count > 1
    packed = jax.jit(partial(score, model), static_argnums=(3, 4))(params, batch, packing, 0.8, 64)
    mask = batch.completion_mask
    np.testing.assert_allclose(packed[mask], rows[mask], rtol=1e-5, atol=1e-5)
    assert not packed[~mask].any()
