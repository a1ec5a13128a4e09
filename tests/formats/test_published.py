"""The presets' models have as many parameters as the hub counts in their files."""

from math import prod

import pytest

from permix_jax.formats.huggingface import config_from_hf, config_to_hf, weights
from permix_jax.formats.published import CONFIGS
from permix_jax.models.config import Rope

# "Model size" on each model's page: all elements of its safetensors files.
PARAMETERS = {
    "meta-llama/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "google/gemma-3-270m-it": 268_098_176,
    "google/gemma-3-1b-it": 999_885_952,
    "google/gemma-3-4b-it": 4_300_079_472,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M-Instruct": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1_711_376_384,
}


def vision_parameters() -> int:
    """Those of Gemma 3 that are not of its text part: SigLIP (so400m) and the projector."""
    E, F, layers, patch, image, text = 1152, 4304, 27, 14, 896, 2560
    embeddings = E * (3 * patch**2 + 1) + (image // patch) ** 2 * E
    norm = 2 * E
    layer = 4 * E * (E + 1) + F * (E + 1) + E * (F + 1) + 2 * norm
    projector = E * text + E
    return embeddings + layers * layer + norm + projector


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_are_as_many_as_published(name):
    count = sum(prod(weight.shape) for weight in weights(config_from_hf(CONFIGS[name])))
    if name == "google/gemma-3-4b-it":
        count += vision_parameters()
    assert count == PARAMETERS[name]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_published_config_survives_the_way_out_and_back(name):
    config = config_from_hf(CONFIGS[name])
    assert config_from_hf(config_to_hf(config)) == config


def test_what_gemma_4b_leaves_out_is_filled_in():
    config = config_from_hf(CONFIGS["google/gemma-3-4b-it"])
    assert (config.vocab_size, config.max_context) == (262_208, 131_072)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (8, 4, 256)
    assert config.query_scale == 1 / 16
    assert config.local_layers == tuple(i for i in range(34) if i % 6 != 5)
    assert config.window == 1024
    assert (config.rope, config.local_rope) == (Rope(1e6, factor=8.0), Rope(1e4))
    assert config.tie_embeddings
