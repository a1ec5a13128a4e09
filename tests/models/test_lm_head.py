"""The chunked head with its own gradient, against log_softmax of whole logits in f32."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_close, normal
from jax.sharding import NamedSharding, PartitionSpec
from jaxprs import array_shapes

from permix_jax.core.sharding import make_mesh, spec
from permix_jax.models.lm_head import Scoring, TokenLoss, head_logprobs, head_loss, head_sums
from permix_jax.planning.costs import matmul_flops

B, T, E, V = 4, 6, 16, 48


def arrays(B=B, T=T, E=E, V=V, dtype="float32"):
    """(hidden [B, T, E], head [V, E], targets [B, T], loss_weights [B, T]); the head is f32."""
    targets = np.random.default_rng(0).integers(0, V, (B, T), np.int32)
    loss_weights = np.asarray(normal(B, T, seed=3))
    return normal(B, T, E, dtype=dtype, seed=1), normal(V, E, seed=2), targets, loss_weights


def whole(hidden, head, targets, temperature):
    """(log-probs, entropy), all logits at once, in f32."""
    every = jax.nn.log_softmax(hidden.astype(jnp.float32) @ head.T / temperature)
    chosen = jnp.take_along_axis(every, targets[..., None], axis=-1)[..., 0]
    return chosen, -(jnp.exp(every) * every).sum(axis=-1)


@partial(jax.jit, static_argnums=(5, 6))
def chunked(hidden, head, targets, mask, loss_weights, temperature, logits_chunk):
    """((loss, statistics), gradients by hidden and head) of sum(loss_weights * log-probs)."""

    def loss(hidden, head):
        weighted = TokenLoss(jnp.multiply, Scoring(temperature, logits_chunk))
        return head_loss(weighted, hidden, head, targets, mask, loss_weights)

    return jax.value_and_grad(loss, (0, 1), has_aux=True)(hidden, head)


@partial(jax.jit, static_argnums=(4,))
def whole_gradients(hidden, head, targets, loss_weights, temperature):
    def loss(hidden, head):
        return (loss_weights * whole(hidden, head, targets, temperature)[0]).sum()

    return jax.grad(loss, (0, 1))(hidden, head)


# Widths of 1, 2, 4 (does not divide 6) and all 6 tokens, for 4 rows.
@pytest.mark.parametrize("logits_chunk", [1, 8, 16, 1000])
@pytest.mark.parametrize("temperature", [0.6, 1.7])
def test_values_and_gradients_are_those_of_whole_logits(logits_chunk, temperature):
    hidden, head, targets, loss_weights = arrays()
    mask, setting = targets >= 0, (temperature, logits_chunk)
    wanted = whole(hidden, head, targets, temperature)
    (loss, statistics), got = chunked(hidden, head, targets, mask, loss_weights, *setting)
    assert_close(loss, (loss_weights * wanted[0]).sum())
    assert statistics.logprobs.dtype == statistics.entropy.dtype == jnp.float32
    assert_close(statistics, wanted)
    assert_close(head_logprobs(hidden, head, targets, mask, Scoring(*setting)), wanted[0])
    assert_close(got, whole_gradients(hidden, head, targets, loss_weights, temperature))


def test_chunks_without_a_token_are_skipped_and_the_others_are_not():
    hidden, head, targets, loss_weights = arrays()
    mask = np.arange(T) < np.array([[3], [1], [0], [2]])  # of chunks of 2, 2 and 2, two hold some
    (_, statistics), got = chunked(hidden, head, targets, mask, loss_weights, 0.8, 8)
    logprobs = head_logprobs(hidden, head, targets, mask, Scoring(0.8, 8))
    wanted = whole(hidden, head, targets, 0.8)
    for mine, theirs in zip((*statistics, logprobs), (*wanted, wanted[0]), strict=True):
        assert_close(mine[mask], theirs[mask])
        assert not mine[:, 4:].any()
    assert_close(got, whole_gradients(hidden, head, targets, loss_weights * mask, 0.8))


def test_what_is_outside_the_mask_may_be_anything():
    hidden, head, targets, loss_weights = arrays()
    mask = np.arange(T) < np.array([[3], [1], [6], [2]])
    (loss, _), gradients = chunked(hidden, head, targets, mask, loss_weights, 0.8, 8)
    loss_weights = np.where(mask, loss_weights, np.inf)
    (same, _), others = chunked(hidden, head, targets, mask, loss_weights, 0.8, 8)
    assert np.isfinite(loss) and loss == same
    for mine, theirs in zip(gradients, others, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_the_gradient_is_that_of_any_loss_times_its_cotangent():
    hidden, head, targets, old = arrays()

    def clipped(logprobs, old):
        return -jnp.minimum(jnp.exp(logprobs - old), 1.2)

    def by_chunks(hidden, head):
        total, _ = head_loss(
            TokenLoss(clipped, Scoring(0.8, 8)), hidden, head, targets, targets >= 0, old - 4
        )
        return jnp.sin(total)

    def at_once(hidden, head):
        return jnp.sin(clipped(whole(hidden, head, targets, 0.8)[0], old - 4).sum())

    got, wanted = (jax.jit(jax.grad(f, (0, 1)))(hidden, head) for f in (by_chunks, at_once))
    assert min(np.abs(gradient).max() for gradient in wanted) > 1e-2
    assert_close(got, wanted)


@pytest.mark.parametrize("logits_chunk", [8, 1000])
def test_a_loss_of_the_entropy_has_the_gradient_of_autodiff(logits_chunk):
    hidden, head, targets, weights = arrays()
    mask = np.arange(T) < np.array([[3], [1], [6], [0]])
    factors = np.where(mask, weights[::-1] - 0.3, np.nan)  # outside the mask they may be anything
    of_token = TokenLoss(
        lambda x, tokens: x * tokens[0], Scoring(0.8, logits_chunk), lambda x: x[1]
    )

    def by_chunks(hidden, head):
        loss, statistics = head_loss(of_token, hidden, head, targets, mask, (weights, factors))
        return loss, statistics

    def at_once(hidden, head):
        logprobs, entropy = whole(hidden, head, targets, 0.8)
        loss = jnp.where(mask, weights * logprobs, 0) + jnp.where(mask, factors, 0) * entropy
        return loss.sum(), (logprobs, entropy)

    got, wanted = (
        jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(hidden, head)
        for f in (by_chunks, at_once)
    )
    for mine, theirs in zip((got[0][0], *got[1]), (wanted[0][0], *wanted[1]), strict=True):
        assert_close(mine, theirs, 1e-5)
    for mine, theirs in zip(got[0][1], wanted[0][1], strict=True):
        assert_close(mine[mask], theirs[mask], 1e-5)


def test_bf16_states_are_summed_in_f32():
    """Each chunk rounds its logits' gradient to bf16; the sum over 512 chunks does not round."""
    hidden, head, targets, loss_weights = arrays(B=1, T=512, dtype="bfloat16")
    rounded = head.astype(jnp.bfloat16).astype(jnp.float32)
    (_, statistics), got = chunked(hidden, head, targets, targets >= 0, loss_weights, 0.8, 1)
    logprobs, entropy = whole(hidden, rounded, targets, 0.8)
    assert_close(statistics.logprobs, logprobs)
    # The gradient by logits, at most 2 in all, is rounded to bf16 before it meets the logits.
    largest = np.abs(np.asarray(hidden, np.float32) @ rounded.T / 0.8).max(axis=-1)
    error = np.asarray(statistics.entropy - entropy)
    assert (np.abs(error) < 2 * 2**-9 * largest).all() and np.abs(error.mean()) < 1e-3
    wanted = whole_gradients(hidden, rounded, targets, loss_weights, 0.8)
    assert [x.dtype for x in got] == [jnp.bfloat16, jnp.float32]
    assert_close(got[0], wanted[0], 2**-7)
    # Both factors of the product are rounded; a sum in bf16 would be off by a percent.
    assert np.linalg.norm(got[1] - wanted[1]) < 3e-3 * np.linalg.norm(wanted[1])


def test_entropy_is_a_metric_without_gradient():
    hidden, head, targets, loss_weights = arrays()

    def total(hidden, head):
        arguments = hidden, head, targets, targets >= 0, loss_weights
        return head_loss(TokenLoss(jnp.multiply, Scoring(1.0, 8)), *arguments)[1].entropy.sum()

    for gradient in jax.jit(jax.grad(total, (0, 1)))(hidden, head):
        assert not gradient.any()


def test_a_frozen_head_costs_no_gradient_of_it():
    """Matmuls: the logits, once, the states' gradient, and the head's if it is trained."""
    hidden, head, targets, loss_weights = arrays(T=8)

    def loss(hidden, head):
        arguments = hidden, head, targets, targets >= 0, loss_weights
        return head_loss(TokenLoss(jnp.multiply, Scoring(1.0, 8)), *arguments)[0]

    one = 2 * hidden.size * V

    def matmuls(arguments):
        jaxpr = jax.make_jaxpr(jax.grad(loss, arguments))(hidden, head)
        return matmul_flops(jaxpr, loop_trips=1) / one

    assert matmuls((0, 1)) == 3
    assert matmuls(0) == 2


def test_memory_grows_with_tokens_by_what_does_not_hold_the_vocabulary():
    """Bytes of temporaries of value and gradient, as the compiler plans them."""

    def temporaries(tokens: int, vocab: int) -> int:
        hidden, head, targets, loss_weights = arrays(B=1, T=tokens, V=vocab)
        arguments = hidden, head, targets, targets >= 0, loss_weights, 1.0, 16
        return chunked.lower(*arguments).compile().memory_analysis().temp_size_in_bytes

    tokens = 256, 512, 1024
    few, many = ([temporaries(n, vocab) for n in tokens] for vocab in (512, 4096))
    loss_weights = [np.diff(sizes) / np.diff(tokens) for sizes in (few, many)]
    # A token's state is E f32; a vocabulary of 512 would be 2 KiB of them, one of 4096 16 KiB.
    np.testing.assert_array_less(loss_weights, 6 * E * 4)
    assert abs(many[-1] - many[0] - (few[-1] - few[0])) < 1024


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 1, 8)], ids=str)
def test_on_a_mesh_the_head_is_the_same_and_the_vocabulary_stays_cut(shape):
    """Loss, statistics, gradients and scores; rows 6 and 7 have no target."""
    hidden, head, targets, loss_weights = arrays(B=8, T=8)
    mask = np.arange(8) < np.array([[8], [1], [3], [8], [5], [2], [0], [0]])
    wanted = chunked(hidden, head, targets, mask, loss_weights, 0.8, 16)
    scores = head_logprobs(hidden, head, targets, mask, Scoring(0.8, 16))
    mesh = make_mesh(*shape)

    def place(x, *axes):
        return jax.device_put(x, NamedSharding(mesh, spec(*axes)))

    rows = [place(x, "batch") for x in (hidden, targets, mask, loss_weights)]

    def run(hidden, head, targets, mask, loss_weights):
        result, gradients = chunked(hidden, head, targets, mask, loss_weights, 0.8, 16)
        return gradients, (result, head_logprobs(hidden, head, targets, mask, Scoring(0.8, 16)))

    with jax.set_mesh(mesh):
        out = NamedSharding(mesh, spec("batch")), NamedSharding(mesh, PartitionSpec("tensor"))
        placed = rows[0], place(head, "vocab", "embed"), *rows[1:]
        compiled = jax.jit(run, out_shardings=(out, None)).lower(*placed).compile()
        gradients, ((loss, statistics), got_scores) = compiled(*placed)
    assert_close(gradients, wanted[1])
    assert_close(loss, wanted[0][0])
    for got, expected in zip((*statistics, got_scores), (*wanted[0][1], scores), strict=True):
        assert_close(np.asarray(got)[mask], np.asarray(expected)[mask])
    gathers = [line for line in compiled.as_text().splitlines() if "all-gather(" in line]
    if shape[2] > 1:
        assert not any(f",{V}]" in line.split("all-gather(")[0] for line in gathers)


@pytest.mark.parametrize("shape, width", [((8, 1, 1), 4), ((2, 2, 2), 2), ((1, 1, 8), 1)], ids=str)
def test_a_chunk_has_its_tokens_on_each_row_shard(shape, width):
    """Chunks of 4 tokens: of 8 rows a shard has 1, 2 or all."""
    hidden, head, targets, loss_weights = arrays(B=8, T=8)
    arguments = hidden, head, targets, targets >= 0
    of_token = TokenLoss(jnp.multiply, Scoring(1.0, 4))

    def gradient(*arguments):
        return jax.grad(lambda *x: head_loss(of_token, *x, loss_weights)[0], (0, 1))(*arguments)

    with jax.set_mesh(make_mesh(*shape)):
        scored = array_shapes(partial(head_logprobs, scoring=Scoring(1.0, 4)), *arguments)
        trained = array_shapes(gradient, *arguments)
    sums = (8, hidden.shape[-1], V)  # of the head, one a row shard
    for shapes in (scored, trained):
        logits = {x for x in shapes if len(x) == 3 and x[0] == 8 and x[2] == V} - {sums}
        assert logits == {(8, width, V)}


def test_gradients_of_several_calls_are_added_before_those_of_the_shards():
    """Differentiated by `head_sums`, a call leaves one sum a shard, of its own rows."""
    hidden, head, targets, loss_weights = arrays(B=8, T=8)
    of_token = TokenLoss(jnp.multiply, Scoring(0.8, 16))

    @jax.jit
    def by_shard(hidden, head, targets, loss_weights):
        def loss(sums):
            arguments = hidden, head, targets, targets >= 0, loss_weights
            return head_loss(of_token, *arguments, sums)[0]

        sums, add_shards = jax.vjp(head_sums, head)
        own = jax.grad(loss)(sums)
        return own, add_shards(own + own)[0]

    with jax.set_mesh(make_mesh(2, 2, 2)):
        own, twice = jax.tree.map(np.asarray, by_shard(hidden, head, targets, loss_weights))
    assert own.shape == (4, E, V) and own.dtype == np.float32
    for shard in range(4):
        alone = np.where(np.arange(8)[:, None] // 2 == shard, loss_weights, 0)
        assert_close(own[shard].T, whole_gradients(hidden, head, targets, alone, 0.8)[1])
    assert_close(twice, 2 * whole_gradients(hidden, head, targets, loss_weights, 0.8)[1])
