"""Checksums of arrays: one formula, by hand, on the host and on devices, on any mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from permix_jax.core.sharding import make_mesh
from permix_jax.train.checksums import _host_sums, _sums, checksums, opened, sealed


def test_a_checksum_by_hand():
    x = jnp.array([[1, 2], [3, 4]], jnp.int32)
    odd = [0x85EBCA6B, (0x9E3779B9 * 2 + 0x85EBCA6B) % 2**32]
    rows = (odd[0] * 3 + odd[1] * 7) % 2**32
    columns = (odd[0] * 4 + odd[1] * 6) % 2**32
    assert checksums({"a": {"x": x}}) == {"a/x": [[2, 2], "int32", f"{rows:08x}{columns:08x}"]}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.int32, jnp.bool_, jnp.int8])
@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((), PartitionSpec()),
        ((8,), PartitionSpec("tensor")),
        ((8, 12), PartitionSpec("fsdp", "tensor")),
        ((4, 8, 6), PartitionSpec("fsdp", ("data", "tensor"))),
        ((4, 8, 6), PartitionSpec(None, "data", "tensor")),
    ],
)
def test_host_and_devices_agree_on_any_mesh(dtype, shape, spec):
    x = (jax.random.normal(jax.random.key(1), shape) * 50).astype(dtype)
    cut = jax.device_put(x, NamedSharding(make_mesh(2, 2, 2), spec))
    for sums in (_sums(cut), _host_sums(x), _host_sums(cut)):
        np.testing.assert_array_equal(sums, _sums(x))


def test_every_flipped_bit_and_every_swap_of_unequal_elements_is_seen():
    x = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
    whole = _host_sums(jnp.asarray(x))
    for place in range(x.size):
        for bit in range(32):
            flipped = x.copy()
            flipped.reshape(-1).view(np.uint32)[place] ^= np.uint32(1 << bit)
            assert (_host_sums(jnp.asarray(flipped)) != whole).all()  # both halves
    for a, b in [((0, 0), (0, 1)), ((1, 2), (3, 2)), ((0, 5), (4, 0))]:
        swapped = x.copy()
        swapped[a], swapped[b] = x[b], x[a]
        assert (_host_sums(jnp.asarray(swapped)) != whole).any()


def test_a_record_is_known_by_its_hash():
    record = {"items": {"params": {"w": [[2], "float32", "ab"]}}, "orbax": "1"}
    assert opened(sealed(record)) == record
    for broken in ({**sealed(record), "orbax": "2"}, record, {}):
        with pytest.raises(ValueError, match="another hash"):
            opened(broken)
