"""What compiled programs send between devices, on meshes of eight: no more than they need."""

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections import Counter

import jax
import numpy as np
import pytest
from grpo_batches import small_decoder
from head_program import MESHES, counts
from hlo import collectives, in_loops
from jax.sharding import NamedSharding
from runs import load_config

from permix_jax.core.sharding import make_mesh, shard_rows, spec
from permix_jax.models.logprobs import score
from permix_jax.models.params import create_params, param_shardings
from permix_jax.planning.compiled import abstract_arguments, bytes_per_chip
from permix_jax.rollout.sampler import sample
from permix_jax.rollout.sampling import Sampling, draw
from permix_jax.train.programs import grpo_programs, scoring

MODEL = small_decoder(tie_embeddings=False)
SAMPLING, END_TOKENS = Sampling(8, temperature=0.9), (3, 7, 11)


@functools.cache
def fresh_params():
    return create_params(MODEL, jax.random.key(0), make_mesh(1, 1, 1))


def rollout(shape):
    """The completions of fixed prompts on a mesh, and the collectives within the decode loop."""
    rng, mesh = np.random.default_rng(0), make_mesh(*shape)
    prompts = rng.integers(0, 40, (8, 6), np.int32)
    mask = np.arange(6) < rng.integers(1, 7, (8, 1))
    with jax.set_mesh(mesh):
        keys = jax.random.split(jax.random.key(1), 16)
        arrays = shard_rows(((prompts, mask), keys), mesh)
        params = jax.device_put(fresh_params(), param_shardings(MODEL, mesh))
        static = {"sampling": SAMPLING, "end_tokens": END_TOKENS}
        compiled = sample.lower(MODEL, params, *arrays, **static).compile()
        return compiled(params, *arrays), collectives(in_loops(compiled.as_text()))


@pytest.fixture(scope="module")
def on_one():
    return rollout((1, 1, 1))


@pytest.fixture(scope="module")
def for_tensor():
    """Kinds of the collectives that a mesh of `tensor` alone needs for a token."""
    return Counter(found.kind for found in rollout((1, 1, 2))[1])


@pytest.mark.parametrize(
    "shape", [(8, 1, 1), (1, 8, 1), (2, 4, 1), (4, 1, 2), (1, 4, 2), (2, 2, 2)], ids=str
)
def test_a_rollout_is_the_same_on_any_mesh_and_decoding_gathers_nothing(on_one, for_tensor, shape):
    """Within the loop there is what `tensor` needs, and the agreement that all rows have ended."""
    expected, none = on_one
    assert none == []
    found, sent = rollout(shape)
    for name in ("tokens", "mask", "truncated"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=1e-5)
    assert expected.mask.sum(axis=1).min() < SAMPLING.max_new_tokens

    agreement = [one for one in sent if one.kind == "all-reduce" and one.bytes <= 4]
    assert len(agreement) == 1
    rest = Counter(one.kind for one in sent if one not in agreement)
    assert rest == (for_tensor if shape[2] > 1 else Counter())


def test_a_draw_does_not_gather_the_vocabulary():
    """Nor where its shards are no multiples of the blocks that the draw works in."""
    mesh, rows, vocabulary = make_mesh(1, 2, 4), 16, 4 * 650
    logits = np.random.default_rng(0).normal(size=(rows, vocabulary)).astype(np.float32)
    with jax.set_mesh(mesh):
        keys = shard_rows(jax.random.split(jax.random.key(0), rows), mesh)
        placed = jax.device_put(logits, NamedSharding(mesh, spec("batch", "vocab")))
        program = jax.jit(draw, static_argnums=2).lower(keys, placed, SAMPLING).compile()
        tokens, logprobs = program(keys, placed)
    sent = collectives(program.as_text().splitlines())
    assert sent and max(one.bytes for one in sent) < logits.nbytes / 8
    expected = draw(jax.random.split(jax.random.key(0), rows), logits, SAMPLING)
    np.testing.assert_array_equal(tokens, expected[0])
    np.testing.assert_allclose(logprobs, expected[1], rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)], ids=str)
def test_an_update_holds_its_share_and_gathers_one_parameter_at_a_time(shape):
    fields = dict(zip(("mesh__data", "mesh__fsdp", "mesh__tensor"), shape, strict=True))
    config = load_config("permix.py", "tiny", **fields, train__micro_batch_tokens=40)

    def on(mesh):
        programs = grpo_programs(config, MODEL, mesh)
        return programs, abstract_arguments(config, MODEL, programs, mesh)

    _, whole = on(make_mesh(1, 1, 1))
    programs, x = on(mesh := make_mesh(*shape))
    with jax.set_mesh(mesh):
        update = programs.update.trace(x.state, x.rows, x.tokens, x.frozen)
        compiled = update.lower().compile()
        scored = score.trace(MODEL, x.params, x.rows, scoring(config)).lower().compile()

    def matrices(state):
        return [leaf for leaf in jax.tree.leaves(state) if leaf.ndim > 1]

    share = shape[1] * shape[2]
    assert bytes_per_chip(matrices(x.state)) * share == bytes_per_chip(matrices(whole.state))
    held = compiled.memory_analysis().argument_size_in_bytes
    # Each device holds its own rows of the batch, and nothing of it is replicated but a count.
    batch = jax.tree.leaves((x.rows, x.tokens))
    of_batch = sum(leaf.size * leaf.dtype.itemsize for leaf in batch) / (shape[0] * shape[1])
    assert bytes_per_chip((x.rows, x.tokens)) == pytest.approx(of_batch, abs=4)
    assert held == bytes_per_chip((x.state, x.rows, x.tokens))
    assert x.rows.tokens.shape[0] > 1

    # What is gathered is parameters: f32, one at a time; no tokens, positions or places of them.
    sizes = [leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(whole.params)]
    assert max(sizes) < sum(sizes) / 2
    for program in (compiled, scored):
        sent = collectives(program.as_text().splitlines())
        gathers = [one for one in sent if one.kind == "all-gather"]
        assert len(gathers) >= len(matrices(x.params))
        assert max(one.bytes for one in gathers) <= max(sizes)
        assert [one.line for one in gathers if not re.search(r"[ (]f32\[", one.line)] == []


# An update: three micro-batches, and in each two chunks of the head.
_FOR_TPU = """
from permix_jax.planning.environment import compile_for_tpu
compile_for_tpu()
from head_program import print_for_tpu
print_for_tpu()
"""


def assert_the_head_crosses_once(shape, untied, tied):
    """Over `tensor` no gradient of a weight is summed; over rows the head's is, after the loops.

    The gradient of the lookup is summed in each micro-batch, like those of the layers.
    """
    rows = shape[0] * shape[1] > 1
    for found in (untied, tied):
        assert found["head"] == 0
        assert found["lookup"] == rows
        assert found["after"] == rows


@pytest.mark.parametrize("name", MESHES)
def test_the_gradient_of_the_head_crosses_the_network_once_an_update(name):
    mesh = make_mesh(*MESHES[name])
    assert_the_head_crosses_once(MESHES[name], *(counts(mesh, tied) for tied in (False, True)))


def test_so_it_does_between_tpus():
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("needs libtpu: pip install -e '.[plan]'")
    command = [sys.executable, "-c", _FOR_TPU]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == set(MESHES)
    for name, both in found.items():
        assert_the_head_crosses_once(MESHES[name], *both)
