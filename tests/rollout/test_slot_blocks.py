"""Decoding that reads the written blocks of the cache, against decoding that reads all slots."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxprs import array_shapes

from permix_jax.core.sharding import make_mesh, shard_rows
from permix_jax.models.params import create_params
from permix_jax.models.transformer import Decoder, Segment
from permix_jax.rollout import sampler
from permix_jax.rollout.sampler import sample, slot_blocks, slots_read
from permix_jax.rollout.sampling import Sampling

U, S, P, T = 8, 8, 6, 11
END_TOKENS = tuple(range(0, 48, 8))
PROMPTS = np.random.default_rng(0).integers(0, 48, (U, P), np.int32)
MASK = np.arange(P) < np.array([4, 6, 1, 5, 6, 3, 2, 6])[:, None]


@pytest.fixture
def blocks_for(monkeypatch):
    """Chooses a platform's form of the blocks, here of 3 slots; "" has all slots in one."""

    def choose(platform: str) -> None:
        monkeypatch.setattr(sampler, "_SLOTS", 3)
        monkeypatch.setattr(sampler, "platform", lambda: platform)
        sample.clear_cache()

    yield choose
    sample.clear_cache()


@pytest.mark.parametrize(
    ("platform", "slots", "wanted"),
    [
        ("tpu", 1024, (8, 128)),
        ("tpu", 1100, (9, 128)),
        ("tpu", 8192, (16, 512)),
        ("tpu", 255, (1, 255)),
        ("tpu", 256, (2, 128)),
        ("cpu", 128, (1, 128)),
        ("cpu", 1024, (4, 256)),
        ("cpu", 2000, (4, 512)),
        ("gpu", 1024, (1, 1024)),
    ],
)
def test_blocks_have_whole_lanes_and_are_few(monkeypatch, platform, slots, wanted):
    monkeypatch.setattr(sampler, "platform", lambda: platform)
    assert slot_blocks(slots) == wanted
    number, size = wanted
    read = [min(number, i // size + 1) * size for i in range(slots)]
    assert slots_read(slots) == pytest.approx(np.mean(read))


@pytest.mark.parametrize(
    ("platform", "halvings", "shape", "window"),
    [("cpu", 2, (2, 2, 1), 0), ("tpu", 2, (1, 2, 2), 4), ("tpu", 0, (1, 1, 1), 0)],
)
def test_blocks_change_nothing_but_the_work(
    tiny_model, blocks_for, platform, halvings, shape, window
):
    """64 rows that end at every place; 4 blocks, of which the last is not full."""
    mesh = make_mesh(*shape)
    local = {"local_layers": (0,), "window": window} if window else {}
    model = Decoder(replace(tiny_model.config, **local))
    params = create_params(model, jax.random.key(0), mesh)
    keys = jax.random.split(jax.random.key(1), U * S)
    results = []
    with jax.set_mesh(mesh):
        given = shard_rows(((PROMPTS, MASK), keys), mesh)
        for chosen, number in ((platform, halvings), ("", 0)):
            blocks_for(chosen)
            sampling = Sampling(T, temperature=0.8, halvings=number)
            out = sample(model, params, *given, sampling, END_TOKENS)
            results.append(jax.tree.map(np.asarray, out))
    blocks, whole = results
    lengths = whole.mask.sum(axis=1)
    assert len(set(lengths)) > 8 and 3 < whole.truncated.sum() < 32
    for name in ("tokens", "mask", "truncated"):
        np.testing.assert_array_equal(getattr(blocks, name), getattr(whole, name))
    np.testing.assert_allclose(blocks.logprobs, whole.logprobs, atol=1e-5)


@pytest.mark.parametrize(("platform", "own"), [("cpu", {3}), ("tpu", {3, 9}), ("", {T})])
def test_no_array_of_scores_has_all_slots(tiny_model, tiny_params, blocks_for, platform, own):
    """Keys of a block of 3 slots, and on a TPU of all older blocks; scores of a block alone."""
    blocks_for(platform)
    keys = jax.random.split(jax.random.key(1), U * S)
    given = (PROMPTS, MASK), keys, Sampling(T), END_TOKENS
    shapes = array_shapes(lambda params: sample(tiny_model, params, *given), tiny_params)
    of_keys = {s[3] for s in shapes if s[:3] == (U * S, 2, 8) and len(s) == 4}
    of_queries = {s[4] for s in shapes if s[:4] == (U * S, 2, 2, 1) and len(s) == 5}
    assert of_keys - {1} == own, "1: the new key"
    assert of_queries - {1, P, 8} == {min(own)}, "1: maxima; P: the prompt's; 8: sums of values"


@pytest.mark.parametrize("write", [True, False])
def test_slots_are_put_where_they_belong(write):
    def segment(length: int, value: int) -> Segment:
        keys, values = jnp.full((2, 3, 4, length), value), jnp.full((2, 3, length, 4), value)
        place = jnp.full((2, length), value)
        return Segment(((keys, values),), place, place > 0)

    found = segment(9, 0).with_slots(segment(3, 7), at=3, write=jnp.array(write))
    wanted = np.where(write & (np.arange(9) // 3 == 1), 7, 0)
    ((keys, values),) = found.layers
    for x in (keys, np.swapaxes(values, 2, 3), found.positions, 7 * found.valid):
        np.testing.assert_array_equal(x, np.broadcast_to(wanted, x.shape))
