"""Estimates without compiling and without all layers, beside what they stand for."""

from dataclasses import replace

import jax
import pytest
from runs import load_config

from permix_jax.core.sharding import make_mesh
from permix_jax.models.config import ModelConfig
from permix_jax.models.transformer import Decoder
from permix_jax.planning.compiled import abstract_arguments, step_programs
from permix_jax.planning.estimate import estimated_temporaries, kept_numbers, traced_flops
from permix_jax.train.programs import grpo_programs


def test_flops_of_all_layers_are_told_by_two_of_them(tiny_model):
    local = {"num_layers": 4, "local_layers": (0, 2), "window": 8, "remat": "full"}
    model = Decoder(replace(tiny_model.config, **local))
    config, mesh = load_config("permix.py", "tiny", model__remat="full"), make_mesh(1, 1, 1)
    with jax.set_mesh(mesh):
        _, programs = step_programs(config, model, mesh)
        for name in "rollout", "update":
            assert traced_flops(config, model, mesh, name) == programs[name].flops()


WIDE = ModelConfig(
    vocab_size=1000, embed_dim=16, num_layers=3, num_heads=4, num_kv_heads=2, head_dim=8, mlp_dim=24
)


@pytest.mark.parametrize(
    ("remat", "numbers"),
    [
        ("full", 16),
        # Queries of 4 heads, keys and values of 2, gate and up, halved; two outputs.
        ("dots", 16 + 32 / 2 + 2 * 16 / 2 + 2 * 24 / 2 + 2 * 16),
        ("none", 16 + 3 * (32 / 2) + 4 * 16 / 2 + 3 * 24 / 2 + 4 * 16),
    ],
)
def test_a_layer_keeps_more_the_less_is_computed_again(remat, numbers):
    assert kept_numbers(replace(WIDE, remat=remat), tensor=2) == numbers


def test_temporaries_are_weights_gradients_kept_states_and_logits():
    config = load_config("permix.py", "tiny", model__head_chunk=64)
    config.mesh.update(data=2, tensor=2)
    mesh, model = make_mesh(2, 1, 2), Decoder(replace(WIDE, remat="full"))
    arguments = abstract_arguments(config, model, grpo_programs(config, model, mesh), mesh)
    matrices = 1000 * 16 + 3 * (2 * 16 * 32 + 2 * 16 * 16 + 3 * 16 * 24)
    norms = 7 * 16
    weights, logit = (matrices + norms) / 2 * 4, 4 * 1000 / 2

    def bytes_of(name):
        return estimated_temporaries(name, arguments, model.config, config)

    assert bytes_of("score") == weights + 64 * logit
    _, rows, width = arguments.rows.tokens.shape
    kept = 3 * rows * width / 2 * 16 * 4
    gradients = (matrices / 2 + norms) * 4
    assert bytes_of("update") == weights + gradients + kept + 2 * 64 * logit
    # 64 rollouts and 8 prompts of 16 tokens: keys and values of 3 layers, 2 heads of 8, in f32.
    cache = (64 + 8) * 16 * 2 * 3 * 2 * 8 * 4 / 4
    assert bytes_of("rollout") == weights + cache + 32 * logit
