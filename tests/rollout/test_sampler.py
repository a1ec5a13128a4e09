"""Generation against full forward passes, and against itself in other company."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense import dense_statistics
from grpo_batches import loss_config, token_batch
from jaxprs import array_shapes

from permix_jax.core.sharding import make_mesh, shard_rows
from permix_jax.models.params import create_params
from permix_jax.rollout import sampler
from permix_jax.rollout.sampler import sample
from permix_jax.rollout.sampling import Sampling, draw
from permix_jax.train.batch import kept_tokens

VOCAB = 48
U, S, P, T = 2, 3, 6, 10
LENGTHS = np.array([4, 6])
END_TOKENS = (5, 11, 17, 23, 29)
SAMPLING = Sampling(T, temperature=0.8)
PROMPTS = np.random.default_rng(0).integers(0, VOCAB, (U, P), np.int32)
MASK = np.arange(P) < LENGTHS[:, None]

repeat = partial(np.repeat, repeats=S, axis=0)


def keys(seed: int = 0, rows: int = U * S) -> jax.Array:
    return jax.random.split(jax.random.key(seed), rows)


@pytest.fixture(scope="module")
def run(tiny_model, tiny_params):
    """sample(...) as NumPy arrays."""

    def run(prompts, mask, keys, sampling=SAMPLING, end_tokens=END_TOKENS):
        result = sample(tiny_model, tiny_params, (prompts, mask), keys, sampling, end_tokens)
        return jax.tree.map(np.asarray, result)

    return run


@pytest.fixture(scope="module")
def completions(run):
    return run(PROMPTS, MASK, keys())


def test_greedy_is_the_argmax_of_full_forward_passes(tiny_model, tiny_params, run):
    sampling = Sampling(T, temperature=0)
    generated = run(PROMPTS, MASK, keys(rows=U), sampling, end_tokens=(VOCAB - 1,))

    @jax.jit
    def logits_of(tokens):
        whole, params = jnp.ones(tokens.shape, bool), {"params": tiny_params}
        hidden, _ = tiny_model.apply(params, tokens, np.arange(tokens.shape[1])[None], whole)
        return tiny_model.apply(params, hidden[0], method="unembed")

    for row, length in enumerate(LENGTHS):
        sequence = np.append(PROMPTS[row, MASK[row]], generated.tokens[row])
        logits = logits_of(sequence[None])[length - 1 : -1]
        np.testing.assert_array_equal(generated.tokens[row], logits.argmax(axis=-1))
        wanted = jax.nn.log_softmax(logits).max(axis=-1)
        np.testing.assert_allclose(generated.logprobs[row], wanted, atol=1e-5)
    assert len(np.unique(generated.tokens)) > 3, "a decoder stuck on one token shows nothing"


def test_behaviour_logprobs_are_those_of_the_trainer(tiny_model, tiny_params, completions):
    completed = completions.tokens, completions.mask
    logprobs, _ = dense_statistics(tiny_model, tiny_params, PROMPTS, MASK, *completed, 0.8)
    mask = completions.mask
    np.testing.assert_allclose(completions.logprobs[mask], logprobs[mask], atol=1e-5)
    assert not completions.logprobs[~mask].any()
    assert completions.logprobs.dtype == np.float32


def test_mask_and_truncation_follow_the_first_end_token(run):
    """Over many rows, so that rows end at every place, by several tokens, and not at all."""
    result = run(np.repeat(PROMPTS, 32, axis=0), np.repeat(MASK, 32, axis=0), keys(1, 64))
    lengths, ended_by = [], set()
    for tokens, mask, truncated in zip(result.tokens, result.mask, result.truncated, strict=True):
        ends = np.flatnonzero(np.isin(tokens, END_TOKENS))
        length = ends[0] + 1 if len(ends) else T
        np.testing.assert_array_equal(mask, np.arange(T) < length)
        assert truncated == (not len(ends))
        assert np.isin(tokens[length:], END_TOKENS).all(), "nothing is written after the end"
        lengths.append(length)
        ended_by |= set(tokens[ends[:1]].tolist())
    assert len(set(lengths)) > 5 and len(ended_by) > 2
    assert 0 < result.truncated.sum() < 64


def test_an_end_token_in_the_last_place_is_no_truncation(run):
    result = run(PROMPTS, MASK, keys(2, 32), Sampling(1), end_tokens=tuple(range(VOCAB // 2)))
    assert result.mask.all()
    np.testing.assert_array_equal(result.truncated, result.tokens[:, 0] >= VOCAB // 2)
    assert 0 < result.truncated.sum() < 32


def test_every_end_token_ends_a_completion_also_in_the_last_place(tiny_model, tiny_params):
    """Sampler and loss agree: with all tokens alike, 512 rows of up to 3 tokens end in each."""
    zeros = jax.tree.map(jnp.zeros_like, tiny_params)
    prompts = PROMPTS[:1], MASK[:1]
    drawn = sample(tiny_model, zeros, prompts, keys(3, 512), Sampling(3), END_TOKENS)
    drawn = jax.tree.map(np.asarray, drawn)
    lengths = drawn.mask.sum(axis=1)
    last = drawn.tokens[np.arange(512), lengths - 1]
    for length in (1, 2, 3):
        assert set(END_TOKENS) <= set(last[lengths == length])
    ended = np.isin(last, END_TOKENS)
    np.testing.assert_array_equal(drawn.truncated, ~ended)

    batch = token_batch(lengths, 3, logprobs=drawn.logprobs)._replace(completions=drawn)
    kept = kept_tokens(batch, loss_config(mask_truncated=True))
    np.testing.assert_array_equal(kept, drawn.mask & ended[:, None])
    assert kept[lengths == 3].any() and not ended.all()


def test_rows_do_not_depend_on_their_neighbours(run, completions):
    repeated = run(repeat(PROMPTS), repeat(MASK), keys())
    # Sharing a prompt is having it to oneself.
    np.testing.assert_array_equal(completions.tokens, repeated.tokens)
    np.testing.assert_array_equal(completions.mask, repeated.mask)
    np.testing.assert_allclose(completions.logprobs, repeated.logprobs, atol=1e-5)

    order = np.array([4, 0, 5, 3, 1, 2])
    moved = run(repeat(PROMPTS)[order], repeat(MASK)[order], keys()[order])
    np.testing.assert_array_equal(moved.tokens, repeated.tokens[order])

    others = repeat(PROMPTS).copy()
    others[3:] = (others[3:] + 1) % VOCAB
    mixed = run(others, repeat(MASK), jnp.append(keys()[:3], keys(9)[3:]))
    np.testing.assert_array_equal(mixed.tokens[:3], repeated.tokens[:3])
    assert (mixed.tokens[3:] != repeated.tokens[3:]).any()

    alone = run(PROMPTS[1:], MASK[1:], keys()[3:])
    np.testing.assert_array_equal(alone.tokens, completions.tokens[3:])


def test_a_bigger_bucket_for_the_prompt_changes_nothing(run, completions):
    wide = np.zeros((U, 2 * P), np.int32), np.zeros((U, 2 * P), bool)
    wide[0][:, :P], wide[1][:, :P] = PROMPTS, MASK
    wide[0][:, P:] = 13
    result = run(*wide, keys())
    np.testing.assert_array_equal(result.tokens, completions.tokens)
    np.testing.assert_allclose(result.logprobs, completions.logprobs, atol=1e-5)


def test_rows_of_one_prompt_differ_by_their_keys_alone(run, completions):
    assert len({tuple(row) for row in completions.tokens[:S]}) == S
    same = run(PROMPTS, MASK, jnp.repeat(keys()[:1], U * S))
    assert len({tuple(row) for row in same.tokens[:S]}) == 1
    np.testing.assert_array_equal(same.tokens[0], completions.tokens[0])


def test_every_step_draws_by_a_key_of_its_own(tiny_model, tiny_params):
    """Zero weights make every token as likely as every other, at every step."""
    zeros = jax.tree.map(jnp.zeros_like, tiny_params)
    result = sample(tiny_model, zeros, (PROMPTS, MASK), keys(), SAMPLING, END_TOKENS)
    np.testing.assert_allclose(result.logprobs[result.mask], -np.log(VOCAB), rtol=1e-6)
    for tokens, mask in zip(np.asarray(result.tokens), result.mask, strict=True):
        assert mask.sum() < 3 or len(set(tokens[mask])) > 2
    assert result.mask.sum(axis=1).max() > 5


@pytest.fixture
def drawn(monkeypatch):
    """A list of how many rows the compiled loop draws a token for, step by step."""
    rows = []

    def noted(keys, logits, sampling):
        jax.debug.callback(lambda: rows.append(len(keys)))
        return draw(keys, logits, sampling)

    monkeypatch.setattr(sampler, "draw", noted)
    sample.clear_cache()
    yield rows
    sample.clear_cache()


def test_the_loop_ends_when_the_last_row_does(run, drawn):
    result = run(PROMPTS, MASK, keys(), end_tokens=tuple(range(VOCAB)))
    jax.effects_barrier()
    assert drawn == [U * S] and not result.truncated.any()
    np.testing.assert_array_equal(result.mask.sum(axis=1), 1)

    drawn.clear()
    result = run(PROMPTS, MASK, keys(), end_tokens=tuple(range(0, VOCAB, 2)))
    jax.effects_barrier()
    assert len(drawn) == result.mask.sum(axis=1).max()
    assert 1 < len(drawn) < T, "the seed should make some, but not all, rows go on"


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 2, 1)])
def test_halving_the_batch_changes_nothing_but_the_work(tiny_model, shape, drawn):
    """128 rows of 8 prompts, which end at every place."""
    mesh, end_tokens = make_mesh(*shape), tuple(range(0, VOCAB, 4))
    params = create_params(tiny_model, jax.random.key(0), mesh)
    prompts = (np.tile(PROMPTS, (4, 1)), np.tile(MASK, (4, 1))), keys(1, 128)
    results, work = [], []
    with jax.set_mesh(mesh):
        for halvings in (0, 2):
            sampling = replace(SAMPLING, halvings=halvings)
            out = sample(tiny_model, params, *shard_rows(prompts, mesh), sampling, end_tokens)
            results.append(jax.tree.map(np.asarray, out))
            jax.effects_barrier()
            work.append(sum(drawn))
            drawn.clear()
    whole, halved = results
    assert len(set(whole.mask.sum(axis=1))) > 5
    for name in ("tokens", "mask", "truncated"):
        np.testing.assert_array_equal(getattr(halved, name), getattr(whole, name))
    np.testing.assert_allclose(halved.logprobs, whole.logprobs, atol=1e-5)
    assert work[0] > work[1] >= whole.mask.sum()


def test_a_prompt_is_prefilled_once_for_all_its_rows(tiny_model, tiny_params):
    """No activation of the prompt's length has a copy per row, and no logits have its length."""
    prompts, length, rows = 2, 13, 6

    def shapes(distinct):
        tokens = np.zeros((distinct, length), np.int32)
        given = (tokens, tokens == 0), keys(rows=rows), SAMPLING, END_TOKENS
        return array_shapes(lambda params: sample(tiny_model, params, *given), tiny_params)

    width = tiny_model.config.embed_dim
    shared, repeated = shapes(prompts), shapes(rows)
    assert (prompts, length, width) in shared
    assert (rows, length, width) in repeated
    assert not [s for s in shared if s[:2] == (rows, length)]
    logits = [s for s in shared if VOCAB in s and width not in s]
    assert (rows, VOCAB) in logits
    assert not [s for s in logits if length in s or T in s]
