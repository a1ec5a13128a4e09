"""The compiled decode loop: what it moves at every token."""

import re
from functools import partial
from math import prod

import jax
import numpy as np
import pytest
from hlo import computations

from permix_jax.models.config import ModelConfig
from permix_jax.models.params import create_params
from permix_jax.models.transformer import Decoder
from permix_jax.rollout.sampler import sample
from permix_jax.rollout.sampling import Sampling

# No weight, cache and activation have as many elements.
SHAPE = ModelConfig(256, 40, 2, num_heads=4, num_kv_heads=2, head_dim=12, mlp_dim=104)
U, S, P, T = 2, 3, 7, 11
PASSED_ON = ("parameter", "get-tuple-element", "bitcast", "tuple", "while", "call")


def made_in_loops(program: str) -> list[tuple[str, int]]:
    """(name, elements) of each array that an instruction of a while loop's body writes."""
    parts, found = computations(program), []
    for body in re.findall(r"\bwhile\(.*body=%?([\w.-]+)", program):
        for line in parts[body]:
            made = re.match(r"\s+(?:ROOT )?%([\w.-]+) = \w+\[([\d,]*)\]\S* ([\w-]+)\(", line)
            if made and made[3] not in PASSED_ON:
                found.append((made[1], prod(map(int, filter(None, made[2].split(","))))))
    return found


@pytest.fixture(scope="module")
def params(mesh):
    return create_params(Decoder(SHAPE), jax.random.key(0), mesh)


@pytest.fixture(scope="module")
def program(params):
    tokens, keys = np.ones((U, P), np.int32), jax.random.split(jax.random.key(0), U * S)
    prompts = tokens, tokens > 0
    lowered = sample.lower(Decoder(SHAPE), params, prompts, keys, Sampling(T), (5,))
    return lowered.compile().as_text()


@pytest.fixture(scope="module")
def loop(program):
    return made_in_loops(program)


def test_no_weight_is_copied(loop, params):
    weights = {x.size for x in jax.tree.leaves(params) if x.ndim > 1}
    assert len(loop) > 100 and len(weights) == 4
    assert not [name for name, size in loop if size in weights]


def test_caches_are_written_in_place(loop):
    """A cache's array is written by a slice's update alone, the prompt's by nothing."""
    own, prompt = (rows * 2 * slots * 12 for rows, slots in ((U * S, T), (U, P)))
    writes = [name for name, size in loop if size == own]
    assert len(writes) == 2 * SHAPE.num_layers
    assert all("dynamic-update-slice" in name for name in writes)
    assert prompt not in [size for _, size in loop]


def test_plain_sampling_does_not_sort(loop):
    assert not [name for name, _ in loop if "sort" in name]


def test_rotations_are_made_once_for_all_heads_and_layers(program):
    """In prefill and in the loop, where fusions would otherwise repeat them."""
    assert len(re.findall(r" cosine\(", program)) == len(re.findall(r" sine\(", program)) == 2


def test_a_copy_of_a_weight_would_be_seen():
    w, x = np.ones((40, 104), np.float32), np.ones((6, 40), np.float32)

    def step(w, _, x):
        return x + (x @ (w * x[0, 0])) @ w.T

    program = jax.jit(lambda w, x: jax.lax.fori_loop(0, 9, partial(step, w), x))
    assert w.size in [size for _, size in made_in_loops(program.lower(w, x).compile().as_text())]
