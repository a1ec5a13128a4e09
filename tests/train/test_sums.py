"""Where matmuls are in bf16, gradients are summed over tokens and devices in f32."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from grpo_batches import loss_config, packed, random_rollouts, small_decoder
from hlo import collectives
from jaxprs import sums

from permix_jax.core.sharding import make_mesh, shard_packed
from permix_jax.models.config import Lora
from permix_jax.models.lm_head import Scoring, TokenLoss, head_loss
from permix_jax.models.params import (
    abstract_params,
    create_params,
    init_params,
    param_shardings,
    split_trained,
)
from permix_jax.models.transformer import Decoder
from permix_jax.train.gradients import cross_entropy, packed_gradients
from permix_jax.train.loss import token_losses
from permix_jax.train.supervised import SftBatch, SftTokens

LOSS = loss_config(kl_weight=0.1)


def a_batch(rows=1):
    """Prompts of 11 and completions of 13 tokens, in longer rows: no axis of a model is as long."""
    sizes = {"vocab": 40, "prompt_tokens": 11, "tokens": 13}
    batch, reference = random_rollouts(0, 8, 4, **sizes)
    x = packed(batch, LOSS, reference, tokens=88, rows=rows)
    assert x.rows.tokens.shape[2] > 40
    return x


def grpo(model, rows, tokens, trained, frozen):
    of_token, scoring = partial(token_losses, config=LOSS), Scoring(0.9, 64)
    return packed_gradients(model, of_token, scoring, trained, rows, tokens, frozen)


def sft(model, batch, trained, frozen):
    scoring = Scoring(0.9, 64)
    return packed_gradients(model, cross_entropy, scoring, trained, *batch, frozen)


@pytest.mark.parametrize("lora", [None, Lora(3, 6.0)], ids=["all", "lora"])
@pytest.mark.parametrize("remat", ["none", "full"])
def test_no_gradient_is_summed_over_tokens_in_bf16(lora, remat):
    model = small_decoder(dtype="bfloat16", lora=lora, remat=remat)
    params = nn.unbox(jax.eval_shape(lambda: init_params(model, jax.random.key(0))))
    x = a_batch()
    of_sft = SftBatch(x.rows, SftTokens(np.float32(x.rows.scored)))
    on_device = jax.tree.map(jnp.asarray, (x.rows, x.tokens, of_sft))
    for gradients in (partial(grpo, model, *on_device[:2]), partial(sft, model, on_device[2])):
        all_sums = sums(gradients, *split_trained(model, params))
        names = {name for name, _, _ in all_sums}
        assert {"dot_general", "reduce_sum", "scatter-add"} <= names
        narrow = {(name, sizes) for name, sizes, dtype in all_sums if dtype == "bfloat16"}
        # What is left are products that give activations: they sum over axes of the model.
        assert {name for name, _ in narrow} == {"dot_general"}
        rank = {(3,)} if lora else set()
        assert {sizes for _, sizes in narrow} == {(16,), (2, 4), (4, 4)} | rank


def test_devices_add_up_gradients_in_f32():
    """XLA computes an all-reduce of bf16 in f32 on a CPU, and says so in the name of its sum."""
    model, mesh = small_decoder(dtype="bfloat16", tie_embeddings=False), make_mesh(2, 2, 2)
    x = a_batch(rows=4)
    with jax.set_mesh(mesh):
        placed = shard_packed((x.rows, x.tokens), mesh)
        gradients = jax.jit(
            lambda params, *batch: grpo(model, *batch, params, {})[0],
            out_shardings=param_shardings(model, mesh),
        )
        text = gradients.lower(abstract_params(model, mesh), *placed).compile().as_text()
    sent = [one.line for one in collectives(text.splitlines()) if one.kind == "all-reduce"]
    of_bf16 = [line.partition(" all-reduce(")[0] for line in sent if "_promoted" in line]
    activations = f"f32[1,{x.rows.tokens.shape[2]},16]"
    assert any(activations in line for line in of_bf16)  # over `tensor`, two terms each
    assert all(activations in line for line in of_bf16)
    assert any("f32[16,8]" in line for line in sent)  # such as a gate's gradient, half of it


def test_embeddings_learn_in_bf16_what_they_learn_in_f32():
    """17,000 tokens as frequent as words are: the first of them comes 2,700 times."""
    rng, vocabulary = np.random.default_rng(0), 256
    frequencies = 1 / np.arange(1, vocabulary + 1)
    tokens = rng.choice(vocabulary, (128, 133), p=frequencies / frequencies.sum()).astype(np.int32)
    inputs, targets = tokens[:, :-1], tokens[:, 1:]
    positions, every = np.broadcast_to(np.arange(132), inputs.shape), np.ones(inputs.shape, bool)
    shape = small_decoder(tie_embeddings=False).config
    shape = replace(shape, vocab_size=vocabulary, num_layers=2)
    params = create_params(Decoder(shape), jax.random.key(0), make_mesh(1, 1, 1))

    def of_table(dtype):
        model = Decoder(replace(shape, dtype=dtype))

        def loss(params):
            hidden, _ = model.apply({"params": params}, inputs, positions, every)
            of_token = TokenLoss(lambda logp, _: -logp / targets.size, Scoring(1.0, 4096))
            return head_loss(of_token, hidden, params["head"], targets, every, targets)[0]

        return np.asarray(jax.jit(jax.grad(loss))(params)["embedding"])

    got, wanted = of_table("bfloat16"), of_table("float32")
    # Summed in bf16 they were 0.27 and 0.198.
    for tokens, tolerance in ((0, 0.01), (slice(None), 0.015)):
        error = np.linalg.norm(got[tokens] - wanted[tokens]) / np.linalg.norm(wanted[tokens])
        assert error < tolerance
