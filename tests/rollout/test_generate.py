import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from permix_jax.rollout.generate import bucket, right_pad

rows = st.lists(st.lists(st.integers(0, 2**31 - 1), max_size=6), max_size=5)


def test_right_pad_by_hand():
    tokens, mask = right_pad([[7, 8, 9], [], [0]], 4)
    np.testing.assert_array_equal(tokens, [[7, 8, 9, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(mask, [[1, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    assert tokens.dtype == np.int32 and mask.dtype == bool


@given(rows=rows, length=st.integers(6, 9))
def test_the_mask_gives_the_rows_back(rows, length):
    tokens, mask = right_pad(rows, length)
    assert tokens.shape == mask.shape == (len(rows), length)
    assert [t[m].tolist() for t, m in zip(tokens, mask, strict=True)] == rows
    assert not tokens[~mask].any()


def test_a_row_over_the_length_is_refused():
    with pytest.raises(ValueError, match="row 1 has 3 tokens, over the length of 2"):
        right_pad([[1], [1, 2, 3]], 2)


@pytest.mark.parametrize(
    ("length", "limit", "size"),
    [(1, 64, 16), (16, 64, 16), (17, 64, 32), (33, 64, 64), (64, 64, 64), (3, 10, 3), (4, 10, 5)],
)
def test_bucket_by_hand(length, limit, size):
    assert bucket(length, limit) == size


@given(st.integers(1, 300).flatmap(lambda limit: st.tuples(st.integers(1, limit), st.just(limit))))
def test_buckets_are_few_big_enough_and_not_too_big(length_and_limit):
    length, limit = length_and_limit
    size = bucket(length, limit)
    assert length <= size <= limit
    assert size <= 2 * length or 4 * length < limit
    assert len({bucket(n, limit) for n in range(1, limit + 1)}) <= 3


def test_a_length_over_the_limit_is_refused():
    with pytest.raises(ValueError, match="65 tokens are over the limit of 64"):
        bucket(65, 64)
