"""Draws against NumPy's cumulative sums, log_softmax and exact binomial bounds."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from permix_jax.rollout.sampling import Sampling, draw, inverse_cdf, truncate

BLOCK = 256
jitted_inverse_cdf = jax.jit(lambda weights, uniforms: inverse_cdf(weights, uniforms)[0])
jitted_draw = jax.jit(draw, static_argnames="sampling")
jitted_truncate = jax.jit(truncate, static_argnums=(1, 2))


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = np.asarray(x, np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def by_definition(weights: np.ndarray, uniforms: np.ndarray) -> list[int]:
    """The first block, and the first entry in it, whose cumulative share exceeds the uniform."""
    drawn = []
    for row, (first, second) in zip(weights.astype(np.float64), uniforms, strict=True):
        blocks = [row[i : i + BLOCK] for i in range(0, len(row), BLOCK)]
        cumulative = np.cumsum([b.sum() for b in blocks])
        block = np.flatnonzero(cumulative > first * cumulative[-1])[0]
        cumulative = np.cumsum(blocks[block])
        entry = np.flatnonzero(cumulative > second * cumulative[-1])[0]
        drawn.append(block * BLOCK + entry)
    return drawn


@pytest.mark.parametrize("vocab", [1, 5, 255, 256, 257, 512, 1000])
def test_inverse_cdf_is_its_definition(vocab):
    # Small integers and dyadic uniforms: every sum and product is exact in f32.
    rng = np.random.default_rng(vocab)
    weights = rng.integers(0, 4, (200, vocab)) * (rng.random((200, vocab)) < 0.5)
    weights[:, vocab // 2] = 1
    uniforms = rng.integers(0, 512, (200, 2)) / 512
    uniforms[:2] = [[0, 0], [511 / 512, 511 / 512]]
    drawn = jitted_inverse_cdf(weights.astype(np.float32), uniforms.astype(np.float32))
    np.testing.assert_array_equal(drawn, by_definition(weights, uniforms))


def test_an_even_grid_of_uniforms_draws_each_entry_exactly_its_share():
    weights = np.zeros(600, np.float32)
    share = {0: 1, 7: 3, 300: 4, 511: 0, 512: 6, 599: 2}
    weights[list(share)] = list(share.values())
    grid = np.stack(np.meshgrid(np.arange(16) / 16, np.arange(8) / 8), axis=-1).reshape(-1, 2)
    drawn = jitted_inverse_cdf(np.tile(weights, (len(grid), 1)), grid.astype(np.float32))
    counts = np.bincount(drawn, minlength=600)
    np.testing.assert_array_equal(counts, weights * len(grid) / 16)


almost_one = float(np.nextafter(np.float32(1), np.float32(0)))
uniform = st.floats(0, 1, exclude_max=True, width=32) | st.sampled_from([0.0, almost_one])
exponents = st.floats(-30, 30)


@settings(deadline=None, max_examples=300)
@given(
    st.dictionaries(st.integers(0, 599), exponents, min_size=1, max_size=8),
    st.tuples(uniform, uniform),
)
@example({599: 0.0}, (0.0, 0.0))
@example({0: 0.0, 1: -30.0, 598: -30.0}, (almost_one, almost_one))
def test_weight_zero_is_never_drawn(magnitudes, uniforms):
    weights = np.zeros((1, 600), np.float32)
    for i, exponent in magnitudes.items():
        weights[0, i] = 10.0**exponent
    drawn = jitted_inverse_cdf(weights, np.array([uniforms], np.float32))
    assert int(drawn[0]) in magnitudes


@pytest.mark.parametrize("vocab", [1, 255, 256, 1000, 49152])
def test_the_first_and_last_uniforms_draw_tokens_of_positive_probability(vocab):
    """Whole blocks at both ends, and tokens at both ends of a block, have the probability 0."""
    logits = np.random.default_rng(vocab).normal(size=(2, vocab)).astype(np.float32) * 5
    possible = np.zeros((2, vocab), bool)
    possible[0, vocab // 2] = True
    possible[1, vocab // 3 : vocab - vocab // 3 : 3] = True
    weights = np.where(possible, np.exp(logits - logits.max(axis=1, keepdims=True)), 0)
    for uniforms in itertools.product((0.0, 1 - 2**-24), repeat=2):
        drawn = jitted_inverse_cdf(weights.astype(np.float32), np.float32([uniforms] * 2))
        assert possible[[0, 1], drawn].all()


def test_weight_zero_is_not_drawn_where_prefix_sums_are_parallel(monkeypatch):
    """As on accelerators: sums that group their terms differently can rise over a weight of 0."""
    parallel = partial(jax.lax.associative_scan, jnp.add)
    monkeypatch.setattr(jnp, "cumsum", lambda x, axis: parallel(x, axis=axis))
    rng = np.random.default_rng(0)
    weights = np.where(rng.random((500, BLOCK)) < 0.5, rng.random((500, BLOCK)), 0)
    weights = weights.astype(np.float32)

    cumulative = np.asarray(jax.jit(partial(parallel, axis=1))(weights))
    below = np.maximum.accumulate(cumulative, axis=1)
    row, entry = np.nonzero((weights[:, 1:] == 0) & (cumulative[:, 1:] > below[:, :-1]))
    assert len(row) > 100, "no witness left: the prefix sum has become monotone"
    # A threshold from just below the rise: without care the entry of weight 0 would be next.
    uniforms = np.zeros((len(row), 2), np.float32)
    uniforms[:, 1] = below[row, entry] / below[row, -1]
    drawn = np.asarray(jax.jit(lambda w, u: inverse_cdf(w, u)[0])(weights[row], uniforms))
    assert (weights[row, drawn] > 0).all()


@pytest.mark.parametrize(
    ("vocab", "sampling"),
    [
        (8, Sampling(1, temperature=0.7)),
        (600, Sampling(1)),
        (600, Sampling(1, temperature=1.5, top_k=20, top_p=0.9)),
    ],
    ids=["small", "several-blocks", "truncated"],
)
def test_frequencies_are_the_probabilities(vocab, sampling):
    draws = 20_000
    logits = np.random.default_rng(0).normal(size=vocab).astype(np.float32) * 2
    keys = jax.random.split(jax.random.key(1), draws)
    tokens, logprobs = jitted_draw(keys, np.tile(logits, (draws, 1)), sampling)

    kept = np.asarray(truncate(logits[None] / sampling.temperature, sampling.top_k, sampling.top_p))
    expected = log_softmax(kept[0])
    np.testing.assert_allclose(logprobs, expected[tokens], atol=1e-5)
    p = np.exp(expected)
    counts = np.bincount(tokens, minlength=vocab)
    assert not counts[p == 0].any()
    # A z-score needs a few expected draws: rare tokens are judged as one.
    common = p * draws >= 20
    p = np.append(p[common], p[~common].sum())
    counts = np.append(counts[common], counts[~common].sum())
    deviation = np.sqrt(np.maximum(draws * p * (1 - p), 1))
    assert (np.abs(counts - draws * p) < 5 * deviation).all()
    assert len(p) >= 8


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, 0, 1.0), (0.3, 0, 1.0), (2.0, 0, 1.0), (1.0, 3, 1.0), (1.3, 9, 0.8)],
)
def test_logprobs_are_of_the_distribution_drawn_from(temperature, top_k, top_p):
    sampling = Sampling(1, temperature, top_k, top_p)
    logits = np.random.default_rng(2).normal(size=(64, 40)).astype(np.float32) * 3
    tokens, logprobs = jitted_draw(jax.random.split(jax.random.key(0), 64), logits, sampling)
    assert tokens.dtype == np.int32 and logprobs.dtype == np.float32

    # The kept set, per row, by its definition.
    tempered = logits.astype(np.float64) / sampling.temperature
    for row, token, logprob in zip(tempered, np.asarray(tokens), logprobs, strict=True):
        order = np.argsort(-row)[: sampling.top_k or None]
        mass = np.cumsum(np.exp(log_softmax(row[order])))
        order = order[: np.searchsorted(mass, sampling.top_p) + 1]
        assert token in order
        expected = log_softmax(row[order])[list(order).index(token)]
        assert abs(logprob - expected) < 1e-5


# Entry i has the i-th of these probabilities; sorted they are .5 (2), .3 (0), .15 (3), .05 (1).
PROBABILITIES = np.array([0.3, 0.05, 0.5, 0.15])


ORDER = [2, 0, 3, 1]


@pytest.mark.parametrize(
    ("top_k", "top_p", "number"),
    [
        *[(0, 1.0, 4), (1, 1.0, 1), (2, 1.0, 2), (3, 1.0, 3), (4, 1.0, 4), (9, 1.0, 4)],
        *[(0, 1e-6, 1), (0, 0.49, 1), (0, 0.51, 2), (0, 0.79, 2), (0, 0.81, 3), (0, 0.96, 4)],
        # Of the top two the first has .5 / .8 = .625: top-p is of what top-k left.
        *[(2, 0.62, 1), (2, 0.63, 2)],
    ],
)
def test_truncation_by_hand(top_k, top_p, number):
    logits = np.log(PROBABILITIES).astype(np.float32)[None]
    truncated = np.asarray(jitted_truncate(logits, top_k, top_p))[0]
    kept = ORDER[:number]
    assert np.flatnonzero(np.isfinite(truncated)).tolist() == sorted(kept)
    np.testing.assert_array_equal(truncated[kept], logits[0, kept])


def test_greedy_takes_the_largest_and_scores_it_untempered():
    logits = np.random.default_rng(3).normal(size=(32, 300)).astype(np.float32)
    keys = jax.random.split(jax.random.key(0), 32)
    tokens, logprobs = jitted_draw(keys, logits, Sampling(1, temperature=0))
    np.testing.assert_array_equal(tokens, logits.argmax(axis=-1))
    np.testing.assert_allclose(logprobs, log_softmax(logits).max(axis=-1), atol=1e-5)


def test_a_row_does_not_depend_on_its_neighbours():
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(16, 300)).astype(np.float32)
    keys = jax.random.split(jax.random.key(5), 16)

    run = partial(jitted_draw, sampling=Sampling(1, top_p=0.9))
    tokens, logprobs = run(keys, logits)
    order = rng.permutation(16)
    moved_tokens, moved_logprobs = run(keys[order], logits[order])
    np.testing.assert_array_equal(moved_tokens, tokens[order])
    np.testing.assert_array_equal(moved_logprobs, logprobs[order])
    other = np.where(np.arange(16)[:, None] < 8, logits, -logits)
    np.testing.assert_array_equal(run(keys, other)[0][:8], tokens[:8])
    np.testing.assert_array_equal(run(keys[:5], logits[:5])[0], tokens[:5])


def test_other_keys_draw_other_tokens():
    logits = np.zeros((64, 48), np.float32)
    keys = [jax.random.split(jax.random.key(seed), 64) for seed in (0, 1)]
    first, second = (np.asarray(jitted_draw(key, logits, Sampling(1))[0]) for key in keys)
    assert (first != second).any()
    assert len(set(first.tolist())) > 16
