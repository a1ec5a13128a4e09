"""The chunked head with its own gradient, against log_softmax of whole logits in f32."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from permix_jax.models.lm_head import head_statistics
from permix_jax.planning.costs import matmul_flops
from permix_jax.sharding import make_mesh, spec

B, T, E, V = 4, 6, 16, 48
STATISTICS = partial(jax.jit, static_argnums=(4, 5))(head_statistics)


def arrays(B=B, T=T, E=E, V=V, dtype="float32"):
    """(hidden [B, T, E], head [V, E], targets [B, T], slopes [B, T]); the head is f32."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    hidden = jnp.asarray(normal(B, T, E), dtype)
    return hidden, jnp.asarray(normal(V, E)), rng.integers(0, V, (B, T), np.int32), normal(B, T)


def whole(hidden, head, targets, temperature):
    """(log-probs, entropy), all logits at once, in f32."""
    every = jax.nn.log_softmax(hidden.astype(jnp.float32) @ head.T / temperature)
    chosen = jnp.take_along_axis(every, targets[..., None], axis=-1)[..., 0]
    return chosen, -(jnp.exp(every) * every).sum(axis=-1)


def gradients(statistics_of, slopes, *args):
    """Of sum(slopes * log-probs), with respect to hidden and head."""
    loss = lambda hidden, head: (slopes * statistics_of(hidden, head, *args)[0]).sum()  # noqa: E731
    return jax.jit(jax.grad(loss, (0, 1)))


def assert_close(got, wanted, tolerance):
    """Within `tolerance` of the largest entry."""
    got, wanted = np.asarray(got, np.float32), np.asarray(wanted, np.float32)
    np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance * np.abs(wanted).max())


# Widths of 1, 2, 4 (does not divide 6) and all 6 tokens, for 4 rows.
@pytest.mark.parametrize("chunk_tokens", [1, 8, 16, 1000])
@pytest.mark.parametrize("temperature", [0.6, 1.7])
def test_values_and_gradients_are_those_of_whole_logits(chunk_tokens, temperature):
    hidden, head, targets, slopes = arrays()
    statistics = STATISTICS(hidden, head, targets, targets >= 0, temperature, chunk_tokens)
    for got, wanted in zip(statistics, whole(hidden, head, targets, temperature), strict=True):
        assert got.dtype == jnp.float32
        assert_close(got, wanted, 1e-5)
    args = targets, targets >= 0, temperature, chunk_tokens
    got = gradients(head_statistics, slopes, *args)(hidden, head)
    wanted = gradients(whole, slopes, targets, temperature)(hidden, head)
    for mine, theirs in zip(got, wanted, strict=True):
        assert_close(mine, theirs, 1e-5)


def test_chunks_without_a_token_are_skipped_and_the_others_are_not():
    hidden, head, targets, slopes = arrays()
    mask = np.arange(T) < np.array([[3], [1], [0], [2]])  # of chunks of 2, 2 and 2, two hold some
    statistics = STATISTICS(hidden, head, targets, mask, 0.8, 8)
    for got, wanted in zip(statistics, whole(hidden, head, targets, 0.8), strict=True):
        assert_close(got[mask], wanted[mask], 1e-5)
        assert not got[:, 4:].any()
    got = gradients(head_statistics, slopes * mask, targets, mask, 0.8, 8)(hidden, head)
    for mine, theirs in zip(
        got, gradients(whole, slopes * mask, targets, 0.8)(hidden, head), strict=True
    ):
        assert_close(mine, theirs, 1e-5)


def test_bf16_states_are_summed_in_f32():
    """Each chunk rounds its logits' gradient to bf16; the sum over 512 chunks does not round."""
    hidden, head, targets, slopes = arrays(B=1, T=512, dtype="bfloat16")
    rounded = head.astype(jnp.bfloat16).astype(jnp.float32)
    statistics = STATISTICS(hidden, head, targets, targets >= 0, 0.8, 1)
    for got, wanted in zip(statistics, whole(hidden, rounded, targets, 0.8), strict=True):
        assert_close(got, wanted, 1e-5)
    got = gradients(head_statistics, slopes, targets, targets >= 0, 0.8, 1)(hidden, head)
    wanted = gradients(whole, slopes, targets, 0.8)(hidden, rounded)
    assert [x.dtype for x in got] == [jnp.bfloat16, jnp.float32]
    assert_close(got[0], wanted[0], 2**-7)
    # A sum in bf16 would be off by a percent.
    assert np.linalg.norm(got[1] - wanted[1]) < 2e-3 * np.linalg.norm(wanted[1])


def test_entropy_is_a_metric_without_gradient():
    hidden, head, targets, _ = arrays()

    def total(hidden, head):
        return head_statistics(hidden, head, targets, targets >= 0, 1.0, 8).entropy.sum()

    for gradient in jax.jit(jax.grad(total, (0, 1)))(hidden, head):
        assert not gradient.any()


def test_uniform_logits_have_the_closed_form():
    hidden, head, targets, _ = arrays()
    statistics = STATISTICS(jnp.zeros_like(hidden), head, targets, targets >= 0, 1.0, 4)
    np.testing.assert_allclose(statistics.logprobs, np.full((B, T), -np.log(V)), rtol=1e-6)
    np.testing.assert_allclose(statistics.entropy, np.full((B, T), np.log(V)), rtol=1e-6)


def test_a_frozen_head_costs_no_gradient_of_it():
    """Matmuls: logits forward, logits again, the states' gradient, and the head's if trained."""
    hidden, head, targets, slopes = arrays(T=8)

    def loss(hidden, head):
        return (
            slopes * head_statistics(hidden, head, targets, targets >= 0, 1.0, 8).logprobs
        ).sum()

    one = 2 * hidden.size * V

    def matmuls(arguments):
        jaxpr = jax.make_jaxpr(jax.grad(loss, arguments))(hidden, head)
        return matmul_flops(jaxpr, loop_trips=1) / one

    assert matmuls((0, 1)) == 4
    assert matmuls(0) == 3


def test_memory_grows_with_tokens_by_what_does_not_hold_the_vocabulary():
    """Bytes of temporaries of value and gradient, as the compiler plans them."""

    def temporaries(tokens: int, vocab: int) -> int:
        hidden, head, targets, slopes = arrays(B=1, T=tokens, V=vocab)
        run = gradients(head_statistics, slopes, targets, targets >= 0, 1.0, 16)
        return run.lower(hidden, head).compile().memory_analysis().temp_size_in_bytes

    tokens = 256, 512, 1024
    few, many = ([temporaries(n, vocab) for n in tokens] for vocab in (512, 4096))
    slopes = [np.diff(sizes) / np.diff(tokens) for sizes in (few, many)]
    # A token's state is E f32; a vocabulary of 512 would be 2 KiB of them, one of 4096 16 KiB.
    np.testing.assert_array_less(slopes, 6 * E * 4)
    assert abs(many[-1] - many[0] - (few[-1] - few[0])) < 1024


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2), (1, 1, 8)], ids=str)
def test_the_vocabulary_stays_cut_over_the_mesh(shape):
    hidden, head, targets, slopes = arrays(B=8, T=8)
    wanted = gradients(whole, slopes, targets, 0.8)(hidden, head)
    mesh = make_mesh(*shape)
    place = lambda x, *axes: jax.device_put(x, NamedSharding(mesh, spec(*axes)))  # noqa: E731
    rows = [place(x, "batch") for x in (hidden, targets, slopes)]

    def run(hidden, head, targets, slopes):
        def loss(hidden, head):
            statistics = head_statistics(hidden, head, targets, targets >= 0, 0.8, 16)
            return (slopes * statistics.logprobs).sum()

        return jax.grad(loss, (0, 1))(hidden, head)

    with jax.set_mesh(mesh):
        out = NamedSharding(mesh, spec("batch")), NamedSharding(mesh, PartitionSpec("tensor"))
        placed = rows[0], place(head, "vocab", "embed"), *rows[1:]
        compiled = jax.jit(run, out_shardings=out).lower(*placed).compile()
        got = compiled(*placed)
    for mine, theirs in zip(got, wanted, strict=True):
        assert_close(mine, theirs, 1e-5)
    gathers = [line for line in compiled.as_text().splitlines() if "all-gather(" in line]
    if shape[2] > 1:
        assert not any(f",{V}]" in line.split("all-gather(")[0] for line in gathers)
