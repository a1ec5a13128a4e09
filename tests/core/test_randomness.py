import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permix_jax.core.keys import key
from permix_jax.core.randomness import generator

INDICES = [(), (0,), (0, 0), (1,), (1, 0), (0, 1), (2, 1), (1, 2)]
PLACES = [(0, "rollout", *indices) for indices in INDICES]
PLACES += [(0, "order"), (0, "order", 0), (0, "sft", 1), (0, "")]
PLACES += [(1, "rollout"), (1, "rollout", 0), (2**31 - 1, "rollout")]


def bits(place):
    return tuple(jax.random.key_data(key(*place)).tolist())


def draws(place):
    return tuple(generator(*place).integers(2**63, size=2).tolist())


@pytest.mark.parametrize("stream", [bits, draws])
def test_other_arguments_give_another_stream(stream):
    assert len({stream(place) for place in PLACES}) == len(PLACES)


@settings(deadline=None)
@given(
    a=st.lists(st.integers(0, 2**31), max_size=4),
    b=st.lists(st.integers(0, 2**31), max_size=4),
)
def test_host_streams_of_different_indices_differ(a, b):
    assert (draws((0, "x", *a)) == draws((0, "x", *b))) == (a == b)


def test_the_streams_stay_what_they_are():
    """A change here changes every run and every cached base: it must be meant."""
    assert bits((0, "rollout", 1)) == (4043309685, 923649334)
    assert generator(0, "order", 0).permutation(8).tolist() == [3, 6, 0, 4, 2, 7, 5, 1]
    np.testing.assert_allclose(
        generator(7, "sft", 3).random(2), [0.336549557816502, 0.8082800350684558], rtol=1e-15
    )
