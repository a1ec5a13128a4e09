"""The jitted programs of a GRPO run."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from grpo_batches import random_rollouts
from jaxprs import product_shapes
from runs import load_config

from permix_jax.models.config import Lora
from permix_jax.models.packing import Ragged, pack
from permix_jax.models.params import abstract_params, split_trained
from permix_jax.models.transformer import Decoder
from permix_jax.train.batch import loss_tokens
from permix_jax.train.programs import (
    grpo_programs,
    loss_config,
    pack_step,
    pack_tokens,
    policy_gradients,
    step_shapes,
)


@pytest.fixture
def batch():
    return random_rollouts(0, 4, 2, vocab=48, prompt_tokens=3, tokens=5)[0]


def packed(config, batch):
    """(packing, tokens) of the batch, whose rollouts the config's steps are as many as."""
    with config.unlocked():
        config.train.problems_per_step, config.rollout.group_size = 4, 2
    packing = pack_step(batch, step_shapes(config))
    tokens = pack_tokens(loss_tokens(batch, loss_config(config)), batch.completions.mask, packing)
    return packing, tokens._replace(reference=np.zeros_like(tokens.weights))


def test_an_update_writes_the_new_state_over_the_old_one(tiny_model, mesh, batch):
    config = load_config("permix.py", "tiny", train__micro_batch_tokens=16)
    programs = grpo_programs(config, tiny_model, mesh)
    packing, tokens = packed(config, batch)
    compiled = programs.update.lower(programs.abstract, packing.rows, tokens, {}).compile()
    size = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(programs.abstract))
    assert compiled.memory_analysis().alias_size_in_bytes == size


def test_under_lora_no_gradient_of_the_head_is_made(tiny_model, mesh, batch):
    config = load_config("permix.py", "tiny")
    shape = 1, tiny_model.config.embed_dim, tiny_model.config.vocab_size  # of one row shard
    packing, tokens = packed(config, batch)

    def makes_one(model):
        trained, frozen = split_trained(model, abstract_params(model, mesh))
        gradients = policy_gradients(config, model)
        return shape in product_shapes(gradients, trained, packing.rows, tokens, frozen)

    assert makes_one(tiny_model)
    assert not makes_one(Decoder(replace(tiny_model.config, lora=Lora(2, 4.0))))


@pytest.mark.parametrize("preset", ["", "smollm2_mawps", "qwen3_0_6b"])
def test_a_run_compiles_at_most_three_programs_to_update_and_three_to_score(preset):
    """A shape of packed rows is a program. The budgets decide it, and not the lengths of a step."""
    config = load_config("permix.py", preset)
    shapes = step_shapes(config)
    assert len(shapes) <= 3
    N, T = config.train.problems_per_step * config.rollout.group_size, config.rollout.max_new_tokens
    U, P = config.train.problems_per_step, config.rollout.max_prompt_tokens
    for seed in range(4):
        rng = np.random.default_rng(seed)
        lengths = rng.integers(1, 1 + P // (1 + seed), U), rng.integers(1, 1 + T // (1 + seed), N)
        prompts, completions = (Ragged(np.zeros(n.sum(), np.int32), n) for n in lengths)
        rows = pack(prompts, completions, np.repeat(np.arange(U), N // U), shapes).rows
        parts, shards, width = rows.tokens.shape
        assert (parts, shards, width) in [(s.parts, s.rows, s.width) for s in shapes]
